"""Sessions in request handlers: the only module that imports `tornado.web`.

The load happens before any application code, by wrapping ``_execute``: ``prepare`` does
not run for 405, malformed bodies and XSRF failures, and may be overridden without
``super()``. The commit happens before the first header byte, by wrapping ``finish`` and
``flush``: if something is to be stored, the operation is queued behind one task that
stores it, sets the cookie, and then performs the real call. (Hook design measured
against four others; ``on_finish`` is too late, and ``redirect`` cannot await.)
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import cached_property
from typing import Any, TypeAlias

from tornado.web import OutputTransform, RequestHandler

from tornado_sessions import cookie
from tornado_sessions.config import SessionConfig
from tornado_sessions.cookie import CookieDue
from tornado_sessions.errors import ResponseStarted, SessionError, StoreError
from tornado_sessions.manager import SessionManager
from tornado_sessions.plan import Plan
from tornado_sessions.session import Flash, Session
from tornado_sessions.visit import Visit

_Future: TypeAlias = "asyncio.Future[None]"
_Operation: TypeAlias = Callable[[], _Future]


class SessionMixin(RequestHandler):
    """Gives a handler ``self.session``.

    It goes before the handler class it extends::

        class Visits(SessionMixin, tornado.web.RequestHandler): ...

    The other order is a `TypeError`. Settings are those of the `Application`.
    """

    session_autoload = True
    """Load the session before the handler runs. If False, ``await load_session()``."""

    _session: Session | None = None
    _session_error: BaseException | None = None
    _session_ready = False
    _session_accessed = False
    _session_settled = False
    _session_reported = False
    _session_task: asyncio.Task[None] | None = None
    _session_queued: Sequence[tuple[_Operation, _Future, bool]] = ()

    # -- for applications --------------------------------------------------------

    @property
    def session(self) -> Session:
        """The visitor's session. Always there, also in error pages and templates.

        Where none could be loaded (yet), it is an empty one that refuses to be written
        and says why.
        """
        self._session_accessed = True
        if self._session is None:
            return self._session_absent()
        return self._session

    @property
    def session_manager(self) -> SessionManager:
        """The manager of this application."""
        return SessionManager.of(self.application)

    async def load_session(self) -> Session:
        """Load the session, where ``session_autoload`` is False; return it.

        Raises:
            StoreError: The store failed, and ``session_on_store_error`` is "fail".
        """
        if self._session is None:
            self._session = await self._session_load()
            self._session_ready = True
        return self.session

    async def save_session(self) -> None:
        """Commit the session now, instead of with the response.

        Raises:
            ResponseStarted: A new session or token needs a cookie, and headers left.
            StoreError: The store failed.
        """
        await self.session.save()

    def get_current_user(self) -> Any:
        """Return the session's principal, so that ``@authenticated`` works."""
        return self.session.principal

    def get_template_namespace(self) -> dict[str, Any]:
        """Add ``session`` and ``flashes()`` to what templates see."""
        namespace = super().get_template_namespace()
        namespace["session"] = self.session
        namespace["flashes"] = _Flashes(self.session)
        return namespace

    # -- in: the load ------------------------------------------------------------

    async def _execute(
        self, transforms: list[OutputTransform], *args: bytes, **kwargs: bytes
    ) -> None:
        if self.session_autoload:
            self._session_ready = True
            if "Cookie" in self.request.headers:
                await self._session_autoload()
        await super()._execute(transforms, *args, **kwargs)
        if self._session is not None:
            await self._session_conclude()

    async def _session_autoload(self) -> None:
        try:
            self._session = await self._session_load()
        except (Exception, asyncio.CancelledError) as error:
            # What escapes _execute leaves the client hanging; what prepare() raises
            # goes through the usual error path, after the checks that come before it.
            self._session_error = error
            self.prepare = self._session_raise  # type: ignore[method-assign]

    async def _session_load(self) -> Session | None:
        manager = SessionManager.of(self.application)
        tickets = self._session_tickets(manager.config)
        if not tickets:
            return None
        try:
            return await manager.load(tickets, self._session_visit)
        except StoreError as error:
            if manager.config.on_store_error == "fail":
                raise
            self.log_exception(*sys.exc_info())
            return _sealed(manager, error)

    def _session_raise(self) -> None:
        assert self._session_error is not None
        raise self._session_error

    def _session_tickets(self, config: SessionConfig) -> list[cookie.Ticket]:
        name = config.full_cookie_name
        found = []
        for value in cookie.candidates(self.request.headers.get("Cookie", ""), name):
            days = config.absolute_timeout / 86400
            inner = self.get_signed_cookie(name, value, days, min_version=2)
            if inner is not None:
                ticket = cookie.decode(inner, resign=self._session_old_key(name, value))
                if ticket is not None:
                    found.append(ticket)
        return found

    def _session_old_key(self, name: str, value: str) -> bool:
        newest = self.settings.get("key_version")
        if newest is None:
            return False
        return bool(self.get_signed_cookie_key_version(name, value) != newest)

    def _session_absent(self) -> Session:
        manager = SessionManager.of(self.application)
        if self._session_error is not None:
            return _sealed(manager, SessionError("the session could not be loaded"))
        if not self._session_ready and self._session_tickets(manager.config):
            message = "the session is not loaded yet; await self.load_session() first"
            return _sealed(manager, SessionError(message))
        self.require_setting("cookie_secret", "sessions")
        self._session = Session(manager, manager.config.codec, self._session_visit)
        return self._session

    def _session_visit(self) -> Visit:
        secure = SessionManager.of(self.application).config.secure
        return Visit(
            ip=self.request.remote_ip or "",
            user_agent=self.request.headers.get("User-Agent", ""),
            started=self._headers_written,
            insecure=secure is True and self.request.protocol != "https",
        )

    # -- out: the commit ---------------------------------------------------------

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> _Future:
        """Finish the response as usual, once the session is stored (T2)."""
        if self._session is None or self.get_status() == 101:
            self._session_headers()
            return super().finish(chunk)
        if self._finished:
            raise RuntimeError("finish() called twice")
        if chunk is not None:
            self.write(chunk)
        if self._session_settled and self._session_is_late():
            return self._session_refuse(ResponseStarted(_LATE))
        return self._session_before(super().finish, finishing=True)

    def flush(self, include_footers: bool = False) -> _Future:
        """Flush as usual; the first flush waits until the session is stored (T4)."""
        if self._session is None or self._session_settled:
            self._session_headers()
            return super().flush(include_footers)
        return self._session_before(super().flush, finishing=False)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Send the error page as usual; a store that failed is a 503 (T3)."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if status_code == 500 and isinstance(error, StoreError):
            status_code = 503
        super().send_error(status_code, **kwargs)

    def _session_before(self, real: _Operation, *, finishing: bool) -> _Future:
        """Call *real*, the inherited finish or flush, once the session is stored."""
        if self._session_task is not None:
            return self._session_queue(real, finishing=finishing)
        if not self._session_settled:
            try:
                plan = self._session_plan()
            except SessionError as error:
                return self._session_refuse(error)
            if plan.changes and not self.session_manager.store.immediate:
                future = self._session_queue(real, finishing=finishing)
                store = self._session_store(plan)
                self._session_task = asyncio.get_running_loop().create_task(store)
                return future
            run_immediately(self.session_manager.perform(plan))
            self._session_settle(finishing=finishing)
        self._session_headers()
        return real()

    def _session_plan(self) -> Plan:
        assert self._session is not None
        discard = self.get_status() >= 500
        return self.session_manager.plan(self._session, discard=discard)

    def _session_queue(self, real: _Operation, *, finishing: bool) -> _Future:
        if finishing:
            # Keeps the verb method from running after prepare(), and write() out.
            self._finished = True
        future: _Future = asyncio.get_running_loop().create_future()
        self._session_queued = [*self._session_queued, (real, future, finishing)]
        return future

    async def _session_store(self, plan: Plan) -> None:
        try:
            await self.session_manager.perform(plan)
        except Exception as error:
            self._session_break(error)
        except asyncio.CancelledError:
            self._session_break(StoreError("the server stopped during the commit"))
            raise
        else:
            self._session_release()

    def _session_release(self) -> None:
        """Perform what was held back, in order."""
        self._session_task = None
        finishing = any(last for _, _, last in self._session_queued)
        self._session_settle(finishing=finishing)
        self._session_headers()
        for real, future, finishing in self._session_queued:
            if finishing:
                self._finished = False
            try:
                _chain(real(), future)
            except Exception as error:
                future.set_result(None)
                self._handle_request_exception(error)
        self._session_queued = []

    def _session_break(self, error: Exception) -> None:
        """Turn the held response into an error: what it says was not stored (T3)."""
        assert self._session is not None
        self._session.sealed = SessionError("the session could not be stored")
        self._session_task = None
        self._session_settled = True
        self._finished = False
        queued, self._session_queued = self._session_queued, []
        self._session_report(error)
        for _, future, finishing in queued:
            if finishing:
                future.set_result(None)
            else:
                future.set_exception(error)
                future.exception()  # nobody has to await a flush

    def _session_refuse(self, error: SessionError) -> _Future:
        """Answer with an error page instead; the data of this request are dropped."""
        if isinstance(error, ResponseStarted):
            self._session_settled = self._session_reported = True
        self._session_report(error)
        future: _Future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    def _session_report(self, error: Exception) -> None:
        try:
            raise error
        except Exception as raised:
            self._handle_request_exception(raised)

    def _session_settle(self, *, finishing: bool) -> None:
        assert self._session is not None
        self._session_settled = True
        if finishing:
            self._session.close_request()

    def _session_is_late(self) -> bool:
        session = self._session
        if session is None or self._session_reported or session.sealed is not None:
            return False
        return session.touched and session.modified

    async def _session_conclude(self) -> None:
        """Wait for the commit, and tell about changes that came after it."""
        if self._session_task is not None:
            await asyncio.wait([self._session_task])
        if self._session_settled and self._session_is_late():
            self._session_reported = True
            self._session_report(ResponseStarted(_LATE))

    # -- headers -----------------------------------------------------------------

    def _session_headers(self) -> None:
        """Set what the response has to say about the session (T6). Idempotent."""
        if self._headers_written:
            return
        if self._session_accessed:
            vary = self._headers.get("Vary", "")
            if vary != "*" and "cookie" not in vary.lower().replace(",", " ").split():
                self.add_header("Vary", "Cookie")
        if self._session is not None and self._session_settled:
            if self._session.cookie_due is not CookieDue.KEEP:
                self._session_cookie(self._session)

    def _session_cookie(self, session: Session) -> None:
        config = self.session_manager.config
        name, ticket = config.full_cookie_name, session.ticket
        secure = config.secure
        attributes: dict[str, Any] = {
            "secure": self.request.protocol == "https" if secure == "auto" else secure,
            "httponly": True,
            **config.cookie_kwargs,
        }
        if session.cookie_due is CookieDue.CLEAR:
            self.clear_cookie(name, **attributes)
        elif ticket is not None:
            attributes.update(_lifetime(session, config))
            value = cookie.encode(ticket)
            self.set_signed_cookie(name, value, expires_days=None, **attributes)
        if "Cache-Control" not in self._headers:
            self.set_header("Cache-Control", "no-store")


_LATE = (
    "the session was changed after the response had begun, and nothing stores that; "
    "change it before the first flush(), or await self.save_session()"
)


def _lifetime(session: Session, config: SessionConfig) -> dict[str, Any]:
    """Return the attributes that make a cookie outlive the browser, if it should."""
    wanted = session.persistent
    if not (config.persistent if wanted is None else wanted):
        return {}
    left = session.expires_at - session.now_at
    return {"max_age": max(1, int(left.total_seconds())), "expires": session.expires_at}


def _sealed(manager: SessionManager, error: SessionError) -> Session:
    session = Session(manager, manager.config.codec)
    session.sealed = error
    return session


def run_immediately(call: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that does not suspend, without the cost of a task."""
    try:
        call.send(None)
    except StopIteration:
        return
    call.close()
    raise RuntimeError("a store with immediate = True must not suspend")


def _chain(done: _Future, waiting: _Future) -> None:
    """Give *waiting* the result of *done* when it is there."""

    def copy(_: object) -> None:
        if waiting.cancelled():
            return
        error = done.exception()
        if error is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(error)
            waiting.exception()  # as with Tornado's own: nobody has to await it

    done.add_done_callback(copy)


class _Flashes(Sequence[Flash]):
    """The queued messages, taken when a template first looks at them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def _taken(self) -> list[Flash]:
        return self._session.flashes()

    def __call__(self) -> Sequence[Flash]:
        return self

    def __len__(self) -> int:
        return len(self._taken)

    def __getitem__(self, index: Any) -> Any:
        return self._taken[index]
