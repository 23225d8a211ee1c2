"""WebSocket handlers with a session, and a client that keeps what it hears."""

import asyncio
import json
from contextlib import suppress

from tornado.httpclient import HTTPRequest
from tornado.websocket import (
    WebSocketClosedError,
    WebSocketHandler,
    websocket_connect,
)

from httpkit import Acts, Counter
from httpkit_stores import PATIENCE, soon
from tornado_sessions import SessionError, WebSocketSessionMixin

ROUTES = [(r"/ws", None), (r"/acts", Acts), (r"/.*", Counter)]


class Socket(WebSocketSessionMixin, WebSocketHandler):
    """Does what each message says, and answers with what came of it."""

    ends: list[tuple[str, str | None]]
    """Reasons, and who the visitor was at that moment; one list for each class."""

    def __init_subclass__(cls):
        cls.ends = []
        cls.open_sockets = []

    def open(self):
        self.open_sockets.append(self)

    async def on_message(self, message):
        words = message.split(" ")
        try:
            answer = await getattr(self, f"do_{words[0]}")(*words[1:])
        except (SessionError, TypeError, ValueError) as error:
            answer = f"{type(error).__name__}: {error}"
        # The message may have ended the session, which closes the socket. An error here would
        # keep Tornado from reading that the other side has closed it, too.
        with suppress(WebSocketClosedError):
            await self.write_message(json.dumps(answer))

    async def do_read(self, key):
        return self.session.get(key)

    async def do_who(self):
        return self.current_user

    async def do_set(self, key, value):
        self.session[key] = value

    async def do_save(self):
        await self.session.save()

    async def do_refresh(self):
        await self.session.refresh()

    async def do_add(self, key, number):
        return await self.session.mutate(key, lambda n: n + int(number), default=0)

    async def do_login(self, principal):
        self.session.login(principal)

    async def do_renew(self):
        self.session.regenerate_id()

    async def do_destroy(self):
        self.session.destroy()
        await self.session.save()

    def on_session_end(self, reason):
        self.ends.append((reason, self.current_user))
        return super().on_session_end(reason)


def a_socket(**more):
    """Return a class of handlers of its own, which notes its ends and open sockets."""
    return type("ASocket", (Socket,), more)


def routes(handler):
    """Return the routes of an application with such a socket at /ws."""
    return [(path, handler if kind is None else kind) for path, kind in ROUTES]


class Talk:
    """The client's side of an open socket."""

    def __init__(self, connection):
        self._connection = connection
        self._over = False

    async def say(self, message):
        """Send *message* and return the answer."""
        await self._connection.write_message(message)
        return json.loads(await self.heard())

    async def send(self, message):
        await self._connection.write_message(message)

    async def heard(self):
        """Return the next message, or None if the server closed the socket."""
        message = await soon(self._connection.read_message())
        self._over = message is None
        return message

    async def closed(self):
        """Wait until the server has closed the socket; return its code and reason."""
        assert await self.heard() is None
        return self._connection.close_code, self._connection.close_reason

    async def ended(self):
        """The same, whatever messages come before that."""
        while await self.heard() is not None:
            continue
        return self._connection.close_code, self._connection.close_reason

    @property
    def headers(self):
        """Those of the answer to the handshake."""
        return self._connection.headers

    def close(self):
        self._connection.close()

    async def hang_up(self):
        """Close the socket, and wait until both sides have."""
        self.close()
        while not self._over:
            await self.heard()


async def connect(visitor, path="/ws", **headers):
    """Open a socket with the cookies of *visitor*, who keeps those that come."""
    request = HTTPRequest(
        visitor.url(path).replace("http", "ws", 1),
        headers={**visitor.headers, **headers},
        request_timeout=PATIENCE,
    )
    connection = await asyncio.wait_for(websocket_connect(request), PATIENCE)
    visitor.keep(connection.headers)
    talk = Talk(connection)
    visitor.site.sockets.append(talk)
    return talk
