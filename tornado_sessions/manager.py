"""The policy between a request and a store: who is let in, and what is committed.

Knows nothing of HTTP: a request comes as verified `Ticket`s and a `Visit`, and what the
response has to do with the cookie is left on the session as ``cookie_due``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from tornado_sessions.admission import Admission
from tornado_sessions.clocked import aware
from tornado_sessions.config import MANAGER_KEY, PREFIX, STORE_KEY, SessionConfig
from tornado_sessions.cookie import Ticket
from tornado_sessions.ending import Ending
from tornado_sessions.errors import (
    CodecError,
    ConfigurationError,
    SessionError,
)
from tornado_sessions.events import UNDECODABLE, Callback, Events
from tornado_sessions.link import StoreLink
from tornado_sessions.mutation import Mutation
from tornado_sessions.plan import Plan, Planner, expiry
from tornado_sessions.principal import checked_principal
from tornado_sessions.session import Session
from tornado_sessions.settlement import Settlement, Told
from tornado_sessions.stores.base import Delete, Outcome, Record, Store
from tornado_sessions.stores.url import store_from_url
from tornado_sessions.sweeper import Sweeper
from tornado_sessions.visit import Visit
from tornado_sessions.watch import Watch

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger("tornado_sessions")

_ATTRIBUTE = "_tornado_sessions_manager"


class HasSettings(Protocol):
    """What `SessionManager.of` needs of a `tornado.web.Application`."""

    settings: dict[str, Any]


@dataclass(frozen=True)
class SessionInfo:
    """One live session, as a list of devices shows it. Times are aware, in UTC."""

    handle: str
    principal: str | None
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    user_agent: str
    ip: str
    authenticated_at: datetime | None = None
    """When the principal last logged in; see `Session.authenticated_at`."""


class SessionManager:
    """Loads and commits the sessions of one application.

    Args:
        store: A `Store` or a URL (see `store_from_url`); ``memory://`` by default.
        **settings: The fields of `SessionConfig`, and ``preset``; see
            `SessionConfig.preset`.

    It starts by itself on first use. Use it as ``async with SessionManager(...)``, or
    await `close` at the end, to stop the sweeper and close the store.

    Raises:
        ConfigurationError: A setting is unknown or impossible.
    """

    def __init__(self, store: Store | str | None = None, **settings: Any) -> None:
        self.config = SessionConfig.from_names(settings)
        """The settings, as they were checked."""
        if store is None:
            store = "memory://"
        self.store = store if isinstance(store, Store) else store_from_url(store)
        """Where the sessions are kept."""
        timeout, interval = self.config.store_timeout, self.config.sweep_interval
        self._link = StoreLink(self.store, timeout, self._opened)
        self._events = Events()
        self._planner = Planner(self.config, self.now)
        self._admission = Admission(self.config, self._link, self._events, self)
        most = self.config.max_per_principal
        self._ending = Ending(self._link, self._events, most)
        self._settlement = Settlement(
            self._link, self._planner, self._events, self._ending
        )
        self._mutation = Mutation(self._link, self._planner, self._settlement)
        self._sweeper = Sweeper(self._sweep_some, interval=interval)
        self.watch = Watch(self._link, self._events, self.config)
        """Tells a `WebSocketSessionMixin` when its session ends."""
        self._touching: set[asyncio.Task[None]] = set()

    @classmethod
    def of(cls, application: HasSettings) -> SessionManager:
        """Return the manager of *application*, made from its settings if need be.

        Calling it when the application starts makes a wrong setting known there and
        then, instead of with the first request.
        """
        manager: SessionManager | None = getattr(application, _ATTRIBUTE, None)
        if manager is None:
            manager = cls._from_settings(application.settings)
            setattr(application, _ATTRIBUTE, manager)
        return manager

    @classmethod
    def _from_settings(cls, settings: dict[str, Any]) -> SessionManager:
        manager = settings.get(MANAGER_KEY)
        if manager is None:
            config = SessionConfig.from_settings(settings)
            return cls(settings.get(STORE_KEY), **vars(config))
        if not isinstance(manager, SessionManager):
            kind = type(manager).__name__
            raise ConfigurationError(
                f"session_manager is of the type {kind}; use a SessionManager"
            )
        others = [k for k in settings if k.startswith(PREFIX) and k != MANAGER_KEY]
        if others:
            raise ConfigurationError(
                f"session_manager and {', '.join(sorted(others))} are both set; "
                "give the settings to the SessionManager, without the prefix"
            )
        return manager

    # -- life --------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store and start the sweeper, unless that was done in this loop."""
        await self._link.open()

    async def close(self) -> None:
        """Stop the sweeper and close the store. A later use starts it again.

        So let connections end first, as with ``HTTPServer.close_all_connections``.
        """
        await self.watch.close()
        await self._settled()
        await self._sweeper.stop()  # which an opening may have started
        await self._link.close()

    async def _settled(self) -> None:
        """Wait for what is under way, and what follows from that: it needs the store.

        Who goes on asking is not waited for longer than for an answer of the store.
        """
        loop, current = asyncio.get_running_loop(), asyncio.current_task()
        until = loop.time() + self.config.store_timeout
        while True:
            await self._link.drain()
            tasks = self._settlement.tasks | self._touching
            mine = [
                one for one in tasks if one.get_loop() is loop and one is not current
            ]
            if mine:
                await asyncio.wait(mine)
            if not mine or loop.time() > until:
                return

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _opened(self) -> None:
        if not self.store.expires_natively:
            self._sweeper.start()

    # -- one request -------------------------------------------------------------

    def load(
        self, tickets: Sequence[Ticket], visit: Callable[[], Visit] = Visit
    ) -> Awaitable[Session]:
        """Return the session of the first of *tickets* that holds good, or a new one.

        Args:
            tickets: What the verified cookies of the request say.
            visit: Tells about the request, each time it matters.

        Raises:
            StoreError: The store failed.
        """
        return self._admission.admit(tickets, visit)

    def new_session(
        self,
        visit: Callable[[], Visit] = Visit,
        sealed: SessionError | None = None,
    ) -> Session:
        """Return an empty session; with *sealed* one that raises it when written."""
        config = self.config
        session = Session(self, config.codec, visit, keyring=config.encryption_keys)
        session.sealed = sealed
        return session

    def plan(self, session: Session, *, discard: bool = False) -> Plan:
        """Return what a commit of *session* asks of the store; see `Planner.plan`."""
        return self._planner.plan(session, discard=discard)

    def perform(self, plan: Plan) -> Coroutine[Any, Any, None]:
        """Carry out *plan* and leave the result on its session."""
        return self._settlement.perform(plan)

    def perform_soon(self, plan: Plan, then: Told) -> None:
        """Carry out *plan*, and call *then* with the result, never before this returns."""
        self._settlement.perform_soon(plan, then)

    async def commit(self, session: Session, *, discard: bool = False) -> None:
        """Store what changed in *session*: `plan` and `perform` in one."""
        await self._settlement.commit(session, discard=discard)

    def touch(self, session: Session) -> None:
        """Extend the life of *session* in the background, if that is due (E3)."""
        plan = self._planner.plan_touch(session)
        if plan is None:
            return
        task = asyncio.get_running_loop().create_task(self.perform(plan))
        self._touching.add(task)
        task.add_done_callback(self._touching.discard)

    def refused(self, reason: str) -> None:
        """Tell the subscribers of a cookie that named no session at all."""
        self._events.emit("refused", "", reason)

    # -- asked by a session ------------------------------------------------------

    def now(self) -> float:
        """Return the time in epoch seconds, from the store's clock."""
        return self.store.clock()

    def expiry(self, session: Session) -> float:
        """Return when *session* ends if it is not used any more, in epoch seconds."""
        if session.record is not None:
            return session.record.meta.expires_at
        return expiry(self.config, self.now(), self.now())

    def undecodable(self, session: Session, error: CodecError) -> None:
        """Make *session* a new one: its record cannot be read (S6).

        The record is deleted with the response, whatever its status: else a handler
        that fails over it would fail again with every request.
        """
        log.warning("dropped the session %s: %s", session.handle, error)
        self._events.emit("undecodable", session.handle, str(error))
        known = session.record
        if known is not None:
            principal = known.meta.principal
            session.doomed = Delete(known.handle, UNDECODABLE, principal)
            session.doomed_epoch = known.meta.epoch
        session.begin_without()

    async def save(self, session: Session) -> None:
        """Do what `Session.save` promises."""
        await _until_out(session)
        if session.sealed is not None:
            raise session.sealed
        await self.commit(session)

    async def refresh(self, session: Session) -> None:
        """Do what `Session.refresh` promises."""
        await _until_out(session)
        if session.record is None:
            session.adopt(None, None)
            return
        handle = session.handle
        (record,) = await self._link.load([handle])
        if not session.is_new and session.handle == handle:  # else it ended meanwhile
            self._admission.readmit(session, record)

    async def mutate(
        self, session: Session, key: str, fn: Callable[[Any], Any], default: Any
    ) -> Any:
        """Do what `Session.mutate` promises."""
        await _until_out(session)
        return await self._mutation.run(session, key, fn, default)

    # -- all sessions ------------------------------------------------------------

    async def sessions_of(self, principal: str) -> list[SessionInfo]:
        """Return the live sessions of *principal*, the latest used first.

        Raises:
            TypeError: *principal* is no str; ValueError: nobody can have that one.
        """
        principal = checked_principal(principal)
        records = await self._link.call("find", lambda store: store.find(principal))
        records.sort(key=lambda record: record.meta.last_seen_at, reverse=True)
        return [_info(record) for record in records]

    async def revoke(self, handle: str, reason: str = "revoked") -> bool:
        """End the session *handle*; False if there is none. Nothing brings it back.

        Args:
            handle: As in `SessionInfo`; not a cookie's value.
            reason: What events and WebSockets are told.

        Raises:
            TypeError: *handle* is no str.
        """
        if not isinstance(handle, str):  # callers need not be type-checked
            kind = type(handle).__name__
            raise TypeError(f"the handle must be a str, not {kind}; see SessionInfo")
        (outcome,) = await self._link.commit([Delete(handle, reason)])
        if outcome is Outcome.APPLIED:
            self._events.emit("ended", handle, reason)
        return outcome is Outcome.APPLIED

    async def revoke_all(self, principal: str, keep: str | None = None) -> int:
        """End every session of *principal* but *keep*; return how many it were.

        Args:
            principal: Whose.
            keep: The handle of a session that stays, such as ``self.session.handle``.

        Raises:
            TypeError: *principal* is no str; ValueError: nobody can have that one.
            StoreError: Some could not be ended, and the others have; or the store could
                not tell which there are, and none was ended.
        """
        principal = checked_principal(principal)
        return await self._ending.end_all(principal, "revoked", keep)

    async def sweep(self) -> int:
        """Delete the expired records now; return how many it were."""
        await self._link.open()
        return await self._sweeper.run_once()

    async def _sweep_some(self, limit: int) -> int:
        return await self.store.sweep(limit)

    async def count(self) -> int:
        """Return the number of live sessions."""
        return await self._link.call("count", lambda store: store.count())

    async def iterate(self) -> AsyncIterator[SessionInfo]:
        """Yield the live sessions, read from the store in batches."""
        async for record in self._link.iterate():
            yield _info(record)

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Call *callback* with each `SessionEvent` of this process from now on.

        It is called on the event loop and must not block; what it raises is logged.

        Returns:
            A function that ends the subscription.
        """
        return self._events.subscribe(callback)


async def _until_out(session: Session) -> None:
    """Wait for the response that stores *session*: of two writes, the later one stays."""
    if session.held is not None:
        await asyncio.shield(session.held())


def _info(record: Record) -> SessionInfo:
    meta, login = record.meta, record.meta.authenticated_at
    return SessionInfo(
        handle=record.handle,
        principal=meta.principal,
        created_at=aware(meta.created_at),
        last_seen_at=aware(meta.last_seen_at),
        expires_at=aware(meta.expires_at),
        user_agent=meta.user_agent,
        ip=meta.ip,
        authenticated_at=None if login is None else aware(login),
    )
