"""The WebSockets of the chat: they end with the session they belong to."""

import asyncio
import json
import logging
import secrets
import sqlite3
from typing import Any

from tornado.ioloop import PeriodicCallback
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from tornado_sessions import SessionError, StoreError, WebSocketSessionMixin

from .devices import Device
from .messages import Line, Presence
from .page import InChat

MAX_TEXT = 500
MAX_NONCE = 40
# Close codes of RFC 6455. NOT_ALLOWED is for the end of a session and nothing else:
# a page connects again after all others.
BAD_MESSAGE, NOT_ALLOWED, TRY_LATER = 1003, 1008, 1013
LOOK_AT_DEVICES_EVERY = 1.0
log = logging.getLogger(__name__)


class Socket(InChat, WebSocketSessionMixin, WebSocketHandler):
    """A socket for somebody who is logged in, with a limit to what waits to be sent."""

    max_unsent = 256 * 1024
    """Bytes. The history of a room has to fit: 50 lines of at most 3,000 bytes each."""
    unsent = 0

    def open(self) -> None:
        """Go on with somebody who is logged in, as which they stay until the end.

        A page that lost its connection says whose it is: somebody else may have logged in
        meanwhile, in another tab, and must not say what the page has yet to send.
        """
        self.name = self.session.principal
        if self.get_query_argument("as", self.name, strip=False) != self.name:
            self.name = None
        if self.name is None:
            self.close(NOT_ALLOWED, "anonymous")

    def tell(self, **what: Any) -> None:
        """Send *what*; who does not read it is cut off before it piles up."""
        # As UTF-8 a letter has at most 4 bytes, as \u and digits an emoji has 12.
        text = json.dumps(what, ensure_ascii=False).encode()
        try:
            sending = self.write_message(text)
        except WebSocketClosedError:
            return
        self.unsent += len(text)
        sending.add_done_callback(lambda done: self._sent(done, len(text)))
        if self.unsent > self.max_unsent:
            self.close(TRY_LATER, "you do not read")

    def _sent(self, sending: "asyncio.Future[None]", length: int) -> None:
        self.unsent -= length
        if not sending.cancelled():
            sending.exception()  # on_close() tells enough


class RoomSocket(Socket):
    """Somebody in a room. What they say goes out under the name in their session."""

    presence: Presence | None = None
    told: tuple[list[Any], list[str]] | None = None

    async def on_message(self, message: str | bytes) -> None:
        """Do what the page asks for; it can ask for two things."""
        if self.name is None:
            return  # it has been told to go, and may not have heard
        match parsed(message):
            case {"enter": int(room)} if not isinstance(room, bool):
                await self.enter(room)
            case {"say": str(text), "nonce": str(nonce)} if len(nonce) <= MAX_NONCE:
                await self.say(text, storable(nonce))
            case _:
                self.close(BAD_MESSAGE, "malformed")

    async def enter(self, room: int) -> None:
        """Enter a room, and remember it in the session."""
        if self.presence or room not in await self.hub.rooms():
            self.close(BAD_MESSAGE, "no such room")
            return
        self.session["room"] = room
        try:
            await self.session.save()  # a socket has no response to save with
        except SessionError:
            self.close(TRY_LATER, "the session cannot be saved")
            return
        if self.name and not self.is_over():
            handle = self.session.handle
            self.presence = Presence(secrets.token_hex(8), handle, self.name, room)
            self.hub.enter(self, self.presence)

    async def say(self, text: str, nonce: str) -> None:
        """Say something in the room, unless there is a reason not to."""
        text = " ".join(storable(text).split())
        try:
            why_not = self.objection(text) or await self.count_line()
            if not why_not and self.presence and self.name:
                room = self.presence.room
                if not await self.hub.say(room, self.name, text, nonce):
                    self.tell(kept=nonce)
        except (StoreError, sqlite3.Error):
            why_not = "The server cannot keep it now. Try again in a moment."
        except SessionError:  # it ended, and the page hears that anyway
            return
        if why_not:
            self.tell(refused=nonce, why=why_not)

    def objection(self, text: str) -> str | None:
        """Say why a line is refused, if it is."""
        if not self.presence:
            return "You are in no room yet."
        if not 0 < len(text) <= MAX_TEXT:
            return f"A message has 1 to {MAX_TEXT} characters."
        if self.hub.is_hasty(self.presence.name):
            return "That was a lot at once. Wait a few seconds."
        return None

    async def count_line(self) -> str | None:
        """Count a line in the session; an answer means that the session has ended.

        Two tabs share one session, and mutate() counts the lines of both. The session
        may have been ended by another server a moment ago: refresh() finds that out,
        so that nothing is said after the end.
        """
        await self.session.mutate("said", lambda said: said + 1, default=0)
        await self.session.refresh()
        ended = self.session.principal != self.name
        return "This session has ended." if ended else None

    def show(self, lines: list[Line], rooms: list[Any], people: list[str]) -> None:
        """Tell what is new since the last time."""
        if lines:
            self.tell(lines=[self.shown(line) for line in lines])
        if self.told != (rooms, people):
            self.told = (rooms, people)
            self.tell(rooms=rooms, people=people)

    def shown(self, line: Line) -> dict[str, Any]:
        """Return a line for the page, with its nonce where it was sent from there."""
        what = {"id": line.id, "name": line.name, "text": line.text, "at": line.at}
        return {**what, "nonce": line.nonce} if line.name == self.name else what

    def is_over(self) -> bool:
        """Tell whether the socket was closed, by whichever side."""
        return self.ws_connection is None or self.ws_connection.is_closing()

    def on_session_end(self, reason: str) -> None:
        """Leave the room at once, then close with 1008 and the reason, as usual."""
        self.on_close()
        self.close(NOT_ALLOWED, reason)

    def on_close(self) -> None:
        """Leave the room."""
        if self.presence:
            self.hub.leave(self)


class DevicesSocket(Socket):
    """An open list of devices, which follows what happens to them."""

    shown: list[Device] | None = None

    def initialize(self) -> None:
        """Be ready to be closed, which may come before the socket is open."""
        self.looking = PeriodicCallback(self.look, LOOK_AT_DEVICES_EVERY * 1000)

    def open(self) -> None:
        super().open()
        if self.name:
            self.looking.start()

    async def look(self) -> None:
        """Send the list, if it is another than before."""
        if self.session.principal != self.name:
            return  # it ends right now
        try:
            devices = await self.my_devices()
        except (StoreError, sqlite3.Error) as error:
            log.warning("the devices cannot be listed now: %s", error)
            return
        if devices != self.shown:
            self.shown = devices
            html = self.render_string("device_list.html", devices=devices)
            self.tell(devices=html.decode())

    def on_message(self, message: str | bytes) -> None:
        """Take no messages: forms do what is to be done."""

    def on_close(self) -> None:
        self.looking.stop()


def storable(text: str) -> str:
    """Return *text* without the halves of letters that JSON lets through."""
    return text.encode(errors="replace").decode()


def parsed(message: str | bytes) -> Any:
    """Read a message of a page; None if it is no JSON."""
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        return None
