"""Sessions in WebSocket handlers: there at the handshake, and until they end.

The session is stored and its cookie put on the response before the 101 leaves (T7),
by wrapping ``get``, which Tornado shakes hands in. From then on the handler outlives
every request: the session is watched, and the handler is told when it ends (W1).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from tornado.web import OutputTransform
from tornado.websocket import WebSocketHandler

from tornado_sessions.deadline import within
from tornado_sessions.departure import Departure
from tornado_sessions.errors import ResponseStarted, SessionError
from tornado_sessions.held import Sent
from tornado_sessions.session import Session
from tornado_sessions.watch import UNKNOWN_REASON, Watcher
from tornado_sessions.web import SessionMixin

_SWITCHING_PROTOCOLS = 101
_POLICY_VIOLATION = 1008
"""The close code for a client that may not go on: RFC 6455 §7.4.1."""
_LONGEST_REASON = 123
"""Bytes that a close frame has room for beside the code: RFC 6455 §5.5."""
TELLING_TIMEOUT = 5.0
"""Seconds for ``on_session_end``; as many as Tornado gives a client to close."""
_LATE = (
    "the session was changed in select_subprotocol() or get_compression_options(), "
    "after the handshake had stored it; change it in prepare()"
)


class WebSocketSessionMixin(SessionMixin, WebSocketHandler):
    """Gives a WebSocket handler ``self.session``, from the handshake to the end.

    It goes before the handler class it extends::

        class Chat(WebSocketSessionMixin, tornado.websocket.WebSocketHandler): ...

    What ``prepare()`` changes is stored before the handshake is answered. Afterwards
    nothing is stored by itself: ``await self.session.save()``, ``refresh()`` and
    ``mutate()`` do what they say. ``login()`` and ``regenerate_id()`` raise
    `ResponseStarted`, since no cookie can leave any more.

    A socket goes on as the visitor that shook hands. If that browser logs in by another
    request, what the socket saves is dropped: open a new one then (C6).
    """

    _session_watchers: tuple[Watcher, ...] = ()
    _session_telling: asyncio.Future[None] | None = None
    _session_is_open = False

    # -- for applications --------------------------------------------------------

    def on_session_end(self, reason: str) -> Awaitable[None] | None:
        """Hear that the session ended; by default the socket is closed with 1008.

        It may be a coroutine, and take five seconds. If it fails or takes longer, the
        socket is closed: nobody goes on as who they were by not reading. Until it
        returns, the session can be read as it was, and afterwards it is an empty one;
        it cannot be written. Messages that come after the socket was closed are dropped.

        Args:
            reason: "destroyed", "idle", "absolute", "revoked", "evicted", "reuse",
                "undecodable", or what was given to `SessionManager.revoke`.
        """
        self.close(_POLICY_VIOLATION, _close_reason(reason))
        return None

    async def load_session(self) -> Session:
        """Load the session, where ``session_autoload`` is False; return it.

        Raises:
            StoreError: The store failed, and ``session_on_store_error`` is "fail".
        """
        loaded = self._visitor_session is not None
        session = await super().load_session()
        if not loaded and self._session_is_open:
            self._session_opened()
        return session

    # -- the handshake -----------------------------------------------------------

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Shake hands as usual, once the session is stored (T7)."""
        await self._session_shake()
        await super().get(*args, **kwargs)

    async def _execute(
        self, transforms: list[OutputTransform], *args: bytes, **kwargs: bytes
    ) -> None:
        try:
            await super()._execute(transforms, *args, **kwargs)
        finally:
            self._session_unwatch()

    async def _session_load(self) -> Session | None:
        # Before it is loaded: what ends from now on is heard of.
        tickets = self._session_presented()
        added = [self._session_watch(ticket.handle) for ticket in tickets]
        try:
            return await super()._session_load()
        except BaseException:
            # The socket may be closed by now, and then nobody else would remove them.
            kept = [one for one in self._session_watchers if one not in added]
            self._session_watchers = tuple(kept)
            for watcher in added:
                self.session_manager.watch.remove(watcher)
            raise

    async def _session_shake(self) -> None:
        session = self._visitor_session
        if session is None:
            return
        if session.is_new and session.modified:
            self._session_watch(session.handle)
        departure = Departure(self)
        try:
            await self.session_manager.commit(session)
        finally:
            departure.tell()
        self._session_left_out = session.modified  # on purpose, if it was not stored
        known = {watcher.handle for watcher in self._session_watchers}
        if session.record is not None and session.handle not in known:
            # A login had to begin another session; its end may have been missed.
            self._session_watch(session.handle).missed = True
        self._session_settled = True
        self._session_headers()

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Sent:
        """Finish the response as usual; with a 101, begin to watch the session."""
        if self.get_status() != _SWITCHING_PROTOCOLS:
            return super().finish(chunk)
        if self._session_is_late():
            raise ResponseStarted(_LATE)
        self._session_is_open = True
        if self._visitor_session is not None:
            self._visitor_session.outlives_request = True
            # Tornado calls open() without a pause, so that comes first.
            asyncio.get_running_loop().call_soon(self._session_opened)
        return super().finish(chunk)

    def _session_absent(self) -> Session:
        session = super()._session_absent()
        session.outlives_request = self._session_is_open
        return session

    def _session_opened(self) -> None:
        session = self._visitor_session
        assert session is not None
        session.outlives_request = True
        record, watched = session.record, None
        for watcher in self._session_watchers:
            if record is not None and watcher.handle == record.handle:
                watched = watcher
        self._session_unwatch(spare=watched)
        if record is None or watched is None or self._on_close_called:
            self._session_unwatch()
        elif session.ended:
            self._session_end(watched.reason or UNKNOWN_REASON)
        else:
            if self.session_manager.config.touch_on_message:
                self._session_touch_with(self.on_message)
            self.session_manager.watch.arm(watched, record.meta, self._session_end)

    def _session_conclude(self) -> None:
        """A socket may leave changes unsaved: it has its own ways to save them."""

    # -- from the handshake to the end -------------------------------------------

    def _session_watch(self, handle: str) -> Watcher:
        watcher = self.session_manager.watch.add(handle)
        self._session_watchers = (*self._session_watchers, watcher)
        return watcher

    def _session_unwatch(self, spare: Watcher | None = None) -> None:
        for watcher in self._session_watchers:
            if watcher is not spare:
                self.session_manager.watch.remove(watcher)
        self._session_watchers = () if spare is None else (spare,)

    def _session_touch_with(
        self, on_message: Callable[[str | bytes], Awaitable[None] | None]
    ) -> None:
        """Have each message extend the session's life, where that is due (W3)."""
        session, manager = self._visitor_session, self.session_manager
        assert session is not None

        def touch(message: str | bytes) -> Awaitable[None] | None:
            manager.touch(session)
            return on_message(message)

        self.on_message = touch  # type: ignore[method-assign]

    def _session_end(self, reason: str) -> None:
        session = self._visitor_session
        assert session is not None
        if self._on_close_called:
            return
        session.sealed = SessionError(f"the session ended ({reason})")
        told: Awaitable[None] | None = None
        try:
            told = self.on_session_end(reason)
        except Exception as error:
            self._session_untold(error)
        if inspect.isawaitable(told):
            telling = within(TELLING_TIMEOUT, told)
            self._session_telling = asyncio.ensure_future(telling)
            self._session_telling.add_done_callback(self._session_told)
            self._session_drop_once_closed(self.on_message)
        else:
            self._session_forget(session)
        if self.ws_connection is None:  # it was closed
            self.on_message = _dropped  # type: ignore[method-assign]

    def _session_drop_once_closed(
        self, on_message: Callable[[str | bytes], Awaitable[None] | None]
    ) -> None:
        """Hear nothing from a client that goes on after it was told, by then or never."""

        def heard(message: str | bytes) -> Awaitable[None] | None:
            return None if self.ws_connection is None else on_message(message)

        self.on_message = heard  # type: ignore[method-assign]

    def _session_told(self, telling: asyncio.Future[None]) -> None:
        assert self._visitor_session is not None
        self._session_telling = None
        error = None if telling.cancelled() else telling.exception()
        if error is not None:
            self._session_untold(error)
        self._session_forget(self._visitor_session)
        if self.ws_connection is None:
            self.on_message = _dropped  # type: ignore[method-assign]

    def _session_untold(self, error: BaseException) -> None:
        """Close the socket, since the application failed to do what it wanted to."""
        self.log_exception(type(error), error, error.__traceback__)
        self.close(_POLICY_VIOLATION)

    def _session_forget(self, session: Session) -> None:
        """Have nobody take the visitor for who it was."""
        session.ended = True
        session.adopt(None, None)
        self.current_user = None


def _close_reason(reason: str) -> str:
    """Return as much of *reason* as a close frame can hold."""
    text = reason.encode(errors="replace")[:_LONGEST_REASON]
    return text.decode(errors="ignore")


def _dropped(message: str | bytes) -> None:
    """Do nothing with a message that came too late."""
