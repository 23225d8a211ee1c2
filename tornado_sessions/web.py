"""Sessions in request handlers: what wraps the way of a request in `tornado.web`.

The load happens before any application code, by wrapping ``_execute``: ``prepare`` does
not run for 405, malformed bodies and XSRF failures, and may be overridden without
``super()``. The commit happens before the first header byte, by wrapping ``finish`` and
``flush``: what is to be sent waits until the store has answered.
(``on_finish`` is too late, and ``redirect`` cannot await.)
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any

from tornado.web import OutputTransform, RequestHandler

from tornado_sessions.carrier import CookieCarrier, vary
from tornado_sessions.cookie import CookieDue, Ticket
from tornado_sessions.departure import Departure
from tornado_sessions.errors import ResponseStarted, SessionError, StoreError
from tornado_sessions.held import (
    LATE,
    HeldResponse,
    Operation,
    Sent,
    already_sent,
    run_immediately,
)
from tornado_sessions.manager import SessionManager
from tornado_sessions.page_handler import PageHandler
from tornado_sessions.session import NO_INTENTS, Session
from tornado_sessions.streaming import StreamedBody

_NOT_STORED = "the session could not be stored"


class SessionMixin(PageHandler):
    """Gives a handler ``self.session``.

    It goes before the handler class it extends::

        class Visits(SessionMixin, tornado.web.RequestHandler): ...

    The other order is a `TypeError`. Settings are those of the `Application`.
    """

    session_autoload = True
    """Load the session before the handler runs. If False, ``await load_session()``."""

    _session_tickets: list[Ticket] | None = None
    _session_error: BaseException | None = None
    _session_ready = _session_accessed = False
    _session_settled = _session_refused = _session_reported = False
    _session_executed = _session_left_out = False
    _session_held: HeldResponse | None = None

    # -- for applications --------------------------------------------------------

    @property
    def session(self) -> Session:
        """The visitor's session. Always there, also in error pages and templates.

        Where none could be loaded (yet), it is an empty one that refuses to be written
        and says why.
        """
        session = self._visitor_session
        if session is None:
            session = self._session_absent()
        self._session_accessed = True
        return session

    @property
    def session_manager(self) -> SessionManager:
        """The manager of this application."""
        return SessionManager.of(self.application)

    async def load_session(self) -> Session:
        """Load the session, where ``session_autoload`` is False; return it.

        Raises:
            StoreError: The store failed, and ``session_on_store_error`` is "fail".
        """
        if self._visitor_session is None:
            session = await self._session_load()
            self._session_ready = True
            if self._visitor_session is None:  # else somebody else was faster
                self._session_found(session)
        return self.session

    async def save_session(self) -> None:
        """Commit the session now, instead of with the response.

        Raises:
            ResponseStarted: A new session or token needs a cookie, and headers left.
            StoreError: The store failed.
        """
        await self.session.save()

    def _session_as_known(self) -> tuple[Session | None, list[Ticket]]:
        """Return the session, unless it is not loaded, and what the cookies say."""
        self._session_accessed = True
        tickets = self._session_presented()
        if self._visitor_session is None and not tickets:
            return self.session, []
        return self._visitor_session, tickets

    # -- in: the load ------------------------------------------------------------

    async def _execute(
        self, transforms: list[OutputTransform], *args: bytes, **kwargs: bytes
    ) -> None:
        if self._prepared_future is not None:  # @stream_request_body
            # Else a factory of eager tasks has the connection wait for the wrong future.
            await asyncio.sleep(0)
            body = StreamedBody(self, SessionMixin._session_until_out)
            self._prepared_future = body.after_prepare(self._prepared_future)
            self.data_received = body
        if self.session_autoload:
            self._session_ready = True
            if "Cookie" in self.request.headers:
                departure = Departure(self)
                try:
                    self._session_found(await self._session_load())
                except (Exception, asyncio.CancelledError) as error:
                    self._session_postpone(error)
                departure.tell()
        await super()._execute(transforms, *args, **kwargs)
        self._session_executed = True
        if self._session_held is None:  # else once that has gone out
            self._session_conclude()

    def _session_postpone(self, error: BaseException) -> None:
        """Have *error* raised by ``prepare()``.

        What escapes ``_execute`` leaves the client hanging; this goes through the usual
        error path, after the checks that come before it.
        """
        self._session_error = error
        self.prepare = partial(_raise, error)  # type: ignore[method-assign]

    async def _session_load(self) -> Session | None:
        tickets = self._session_presented()
        if not tickets:
            return None
        carrier = CookieCarrier.of(self.application)
        manager = carrier.manager
        try:
            return await manager.load(tickets, carrier.visit_of(self))
        except StoreError as error:
            if manager.config.on_store_error == "fail":
                raise
            self.log_exception(*sys.exc_info())
            return manager.new_session(sealed=error)

    def _session_presented(self) -> list[Ticket]:
        """Return what the cookies of the request say. They are read once."""
        if self._session_tickets is None:
            self._session_tickets = CookieCarrier.of(self.application).tickets(self)
        return self._session_tickets

    def _session_absent(self) -> Session:
        manager = SessionManager.of(self.application)
        if self._session_error is not None:
            error = SessionError("the session could not be loaded")
            return manager.new_session(sealed=error)
        if not self._session_ready and self._session_presented():
            message = "the session is not loaded yet; await self.load_session() first"
            return manager.new_session(sealed=SessionError(message))
        carrier = CookieCarrier.of(self.application)  # refuses what cannot work
        self._visitor_session = manager.new_session(carrier.visit_of(self))
        return self._visitor_session

    # -- out: the commit ---------------------------------------------------------

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Sent:
        """Finish the response as usual, once the session is stored (T2)."""
        if self._finished:
            raise RuntimeError("finish() called twice")
        real: Operation = super().finish
        if chunk is not None and getattr(real, "__func__", 0) is RequestHandler.finish:
            self.write(chunk)
        elif chunk is not None:  # a base class has plans for it
            real = partial(super().finish, chunk)
        if self._visitor_session is None or self.get_status() == 101:
            # What Tornado calls from here on, such as compute_etag(), is too late.
            self._session_settled |= self._visitor_session is None
            return real()
        if self._session_settled and self._session_is_late():
            return self._session_refuse(ResponseStarted(LATE))
        return self._session_before(real, finishing=True)

    def flush(self, include_footers: bool = False) -> Sent:
        """Flush as usual; the first flush waits until the session is stored (T4)."""
        held = self._visitor_session is not None and not self._session_settled
        if not held or self.get_status() == 101:
            self._session_headers()
            return super().flush(include_footers)
        real = partial(super().flush, include_footers)
        return self._session_before(real, finishing=False)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Send the error page as usual; a store that failed is a 503 (T3)."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if status_code == 500 and isinstance(error, StoreError):
            status_code = 503
        super().send_error(status_code, **kwargs)

    def _session_before(self, real: Operation, *, finishing: bool) -> Sent:
        """Call *real*, the inherited finish or flush, once the session is stored."""
        if self._session_held is None and not self._session_settled:
            try:
                self._session_commit(finishing=finishing)
            except SessionError as error:
                return self._session_refuse(error)
        if self._session_held is not None:
            if finishing and not self._finished:
                self._session_held.put_aside(vars(self))
            return self._session_held.add(real, finishing=finishing)
        if not finishing:  # finish() comes to flush() by itself
            self._session_headers()
        return real()

    def _session_commit(self, *, finishing: bool) -> None:
        """Store the session at once, or hold the response until that is done."""
        session, manager = self._visitor_session, self.session_manager
        assert session is not None
        discard = self._session_refused or self.get_status() >= 500
        plan = manager.plan(session, discard=discard)
        # The plan has it all: what is asked for or touched from now on is too late.
        session.intents = NO_INTENTS
        self._session_left_out = plan.dropped
        if finishing:
            session.stored.close()
        if plan.changes and not manager.store.immediate:
            self._session_held = HeldResponse()
            session.held = self._session_held.out
            if finishing:
                plan.anticipate()  # for who reads on, whose changes are in the plan
            manager.perform_soon(plan, self._session_answered)
            return
        if not plan.idle:
            run_immediately(manager.perform(plan))
        self._session_settled = True

    def _session_answered(self, error: Exception | None) -> None:
        if error is None:
            self._session_release()
        else:
            self._session_break(error)
        if self._session_executed:
            self._session_conclude()

    def _session_release(self) -> None:
        """Perform what was held back, in its order."""
        session, held = self._visitor_session, self._session_held
        assert session is not None
        assert held is not None
        held.put_back(vars(self))
        self._session_settled = True
        try:
            # Not for a finish() alone: that calls flush(), but there it could not fail.
            if held.streams or session.cookie_due is not CookieDue.KEEP:
                self._session_headers()
        except Exception as error:
            self._session_break(error)
        else:
            self._session_held = None
            self._finished = False
            held.perform(self._session_report)

    def _session_break(self, error: Exception) -> None:
        """Turn the held response into an error: what it says was not stored (T3)."""
        held, self._session_held = self._session_held, None
        assert held is not None
        assert self._visitor_session is not None
        held.put_back(vars(self))
        self._visitor_session.sealed = SessionError(_NOT_STORED)
        self._session_settled = True
        self._finished = False
        try:
            self._session_report(error)
        finally:
            held.refuse(error)

    def _session_refuse(self, error: SessionError) -> Sent:
        """Answer with an error page instead; the data of this request are dropped.

        They are from the first refusal on, whatever status that page has; a second one
        would be for what is still to be stored then, such as a login.
        """
        assert self._visitor_session is not None
        if isinstance(error, StoreError):
            self._visitor_session.sealed = SessionError(_NOT_STORED)
        lost = isinstance(error, StoreError | ResponseStarted)
        if lost or self._session_refused or self.get_status() >= 500:
            self._session_settled = self._session_reported = True
        self._session_refused = True
        self._session_report(error)
        return already_sent()

    def _session_report(self, error: Exception) -> None:
        try:
            raise error  # noqa: TRY301  (Tornado looks for it in sys.exc_info())
        except Exception as raised:
            self._handle_request_exception(raised)

    def _session_started(self) -> bool:
        """Tell whether headers have left: no cookie can be sent any more."""
        held = self._session_held
        return self._headers_written if held is None else held.started(vars(self))

    def _session_until_out(self) -> Sent | None:
        """Return a future for when a finish that is held has gone out, if one is."""
        held = self._session_held
        return held.out() if held is not None and self._finished else None

    def _session_is_late(self) -> bool:
        session = self._visitor_session
        if session is None or self._session_reported or session.ended:
            return False
        if session.sealed is not None or (self._session_left_out and not session.asked):
            return False
        return session.touched and session.modified

    def _session_conclude(self) -> None:
        """Tell about changes that came after the commit, once all has been done."""
        # One that does not finish by itself may yet save.
        settled = self._session_settled and self._auto_finish
        if (settled or self._finished) and self._session_is_late():
            self._session_reported = True
            self._session_report(ResponseStarted(LATE))

    def _session_headers(self) -> None:
        """Set what the response has to say about the session (T6). Idempotent."""
        if self._headers_written:
            return
        if self._session_accessed:
            vary(self)
        session = self._visitor_session
        if session is None or session.cookie_due is CookieDue.KEEP:
            return
        if not self._session_is_confirmed(session):
            return
        try:
            CookieCarrier.of(self.application).put(self, session)
        except Exception:
            session.cookie_due = CookieDue.KEEP  # the error page has to get out
            raise


def _raise(error: BaseException) -> None:
    raise error
