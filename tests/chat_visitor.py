"""A guest of the example chat: over HTTP, and over its sockets."""

import asyncio
import json
import re
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

import examplekit
from examplekit import PATIENCE, SECRET, Visitor, open_example, serve
from examples.chat import make_app
from examples.chat.hub import hub_open
from tornado_sessions import SessionManager

open_chat = partial(open_example, "chat")


class ChatPage(examplekit.Page):
    """One answer of the chat."""

    @property
    def devices(self):
        """The browsers in the list of devices, and which one is marked as this one."""
        item = r'<li class="sheet device( this)?">.*?<h2>([^<]+)'
        found = re.findall(item, self.text, re.DOTALL)
        return [(browser.strip(), bool(this)) for this, browser in found]

    @property
    def handles(self):
        """The handles of the devices that can be ended."""
        return re.findall(r'name="handle" value="([^"]+)"', self.text)


class Guest(Visitor):
    """A visitor of the chat, who may open sockets."""

    page = ChatPage
    cookie = "chat"

    def __init__(self, url):
        super().__init__(url)
        self.sockets = []

    async def log_in(self, name):
        """Log in by name; return self."""
        answer = await self.send("/login", name=name)
        assert answer.headers["Location"] == "/"
        return self

    async def connect(self, path="/live/room", **headers):
        """Open a socket."""
        url = self.url.replace("http", "ws", 1) + path
        request = HTTPRequest(url, headers={**self.headers, **headers})
        connection = await asyncio.wait_for(websocket_connect(request), PATIENCE)
        self.sockets.append(Talk(connection))
        return self.sockets[-1]

    async def enter(self, room=1):
        """Open a socket and enter a room with it."""
        talk = await self.connect()
        await talk.send(enter=room)
        await talk.news("people")
        return talk

    async def devices(self):
        return await self.get("/devices")


class Talk:
    """The page's side of a socket."""

    def __init__(self, connection):
        self.connection = connection
        self.lines = []
        self.state = {}
        self.over = False
        self.nonces = count()

    async def send(self, **what):
        await self.connection.write_message(json.dumps(what))

    async def say(self, text):
        """Say something; return its nonce."""
        nonce = f"n{next(self.nonces)}-{id(self)}"
        await self.send(say=text, nonce=nonce)
        return nonce

    async def heard(self):
        """Wait for the next message; None if the socket was closed."""
        message = await asyncio.wait_for(self.connection.read_message(), PATIENCE)
        self.over = message is None
        if self.over:
            return None
        news = json.loads(message)
        self.lines += news.get("lines", [])
        self.state.update(news)
        return news

    async def news(self, key):
        """Wait for a message that has *key*; return what it says."""
        while (news := await self.heard()) is not None:
            if key in news:
                return news[key]
        raise AssertionError(f"closed: {self.end}")

    async def line(self, text):
        """Wait until somebody says *text*; return the line."""
        while not (found := [line for line in self.lines if line["text"] == text]):
            assert await self.heard() is not None, self.end
        return found[0]

    async def people(self, *names):
        """Wait until these people are here, and nobody else."""
        while self.state.get("people") != list(names):
            assert await self.heard() is not None, self.end

    async def closed(self):
        """Wait until the server has closed the socket; return code and reason."""
        while await self.heard() is not None:
            pass
        return self.end

    async def hang_up(self):
        """Close the socket, and wait until both sides have."""
        self.connection.close()
        while not self.over:
            await self.heard()

    @property
    def end(self):
        return self.connection.close_code, self.connection.close_reason


@asynccontextmanager
async def guests():
    """Bring people to a chat for the length of a block; their sockets end with it."""
    brought = []
    with examplekit.visitors(Guest) as bring:

        def bring_and_note(url):
            brought.append(bring(url))
            return brought[-1]

        yield bring_and_note
        for guest in brought:
            for talk in guest.sockets:
                await talk.hang_up()


@asynccontextmanager
async def chat_here(folder, store="sqlite:///{folder}/sessions.db", **settings):
    """Run the chat in this process; a second one on the same folder is another server."""
    app = make_app(store.format(folder=folder), f"{folder}/chat.db", SECRET)
    app.settings.update(settings)
    async with serve(app) as url, hub_open(app), guests() as bring:

        def guest():
            return bring(url)

        guest.app, guest.manager = app, SessionManager.of(app)
        yield guest
