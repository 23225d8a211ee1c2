"""Atomic read-modify-write of one key, by compare-and-set on its bytes (C2)."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections.abc import Callable
from typing import Any

from tornado_sessions.errors import SessionConflict, StoreError
from tornado_sessions.link import StoreLink
from tornado_sessions.plan import Planner
from tornado_sessions.session import Session
from tornado_sessions.settlement import Settlement
from tornado_sessions.stores.base import Outcome, Record, merged_meta
from tornado_sessions.values import shown, stored_name

ATTEMPTS = 64
_PAUSE = 0.001
_LONGEST_PAUSE = 0.05


class _Turn:
    """Whose turn it is to change one key of one session."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.failures = 0


class Mutation:
    """Runs `Session.mutate`.

    Within this process, mutations of one key take turns, so that only other processes
    can make an attempt fail.
    """

    def __init__(
        self, link: StoreLink, planner: Planner, settlement: Settlement
    ) -> None:
        self._link = link
        self._planner = planner
        self._settlement = settlement
        self._turns: weakref.WeakValueDictionary[object, _Turn] = (
            weakref.WeakValueDictionary()
        )

    async def run(
        self, session: Session, key: str, fn: Callable[[Any], Any], default: Any
    ) -> Any:
        """Replace the value of *key* by what *fn* makes of it; return the new value."""
        name = stored_name(key)
        if session.sealed is not None:
            raise session.sealed
        if session.stored.unsaved(name):
            await self._settlement.commit(session)
        turn = self._turn(session.handle, name)
        outdated, failures = turn.lock.locked(), turn.failures
        async with turn.lock:
            if failures != turn.failures:
                # Else each of those who wait would wait for a deadline of its own (F1).
                raise StoreError("the store failed whoever changed the key before")
            try:
                if outdated:
                    await self._reload(session, name)
                return await self._attempts(session, name, fn, default)
            except StoreError:
                turn.failures += 1
                raise

    def _turn(self, handle: str, name: str) -> _Turn:
        place = (id(asyncio.get_running_loop()), handle, name)
        turn = self._turns.get(place)
        if turn is None:
            turn = self._turns[place] = _Turn()
        return turn

    async def _attempts(
        self, session: Session, name: str, fn: Callable[[Any], Any], default: Any
    ) -> Any:
        for attempt in range(ATTEMPTS):
            value = fn(session.fresh(name, default))
            if session.is_new:
                return await self._begin(session, name, value)
            if await self._compare_and_set(session, name, value):
                return value
            longest = min(_LONGEST_PAUSE, _PAUSE * 2**attempt)
            await asyncio.sleep(random.uniform(0, longest))
            await self._reload(session, name)
        raise SessionConflict(
            f"session key {shown(name)!r} was changed by others {ATTEMPTS} times in a "
            "row; try again later, or spread what you count over several keys"
        )

    async def _begin(self, session: Session, name: str, value: Any) -> Any:
        """Nobody else can know a session that is not stored yet: just write it."""
        session[shown(name)] = value
        await self._settlement.commit(session)
        return value

    async def _compare_and_set(self, session: Session, name: str, value: Any) -> bool:
        raw = session.stored.encode(name, value)
        if session.ended or session.record is None:
            return True
        plan, change = self._planner.plan_one(session, name, raw)
        try:
            (outcome,) = await self._link.commit([change])
        except BaseException:
            self._planner.not_extended(session.handle)
            raise
        if outcome is Outcome.CONFLICT:
            self._planner.not_extended(session.handle)
            return False
        if outcome is Outcome.GONE:
            self._settlement.dropped(plan)
        if session.generation != plan.generation:  # it has ended here meanwhile
            return True
        if outcome is Outcome.APPLIED:  # and nothing else: a login is still to come
            session.rebase_meta(merged_meta(session.record.meta, change.meta))
            session.note_cookie(plan.due, session.ticket)
        session.stored.restore(name, raw)
        return True

    async def _reload(self, session: Session, name: str) -> None:
        if session.is_new:
            return
        generation = session.generation
        (record,) = await self._link.load([session.handle])
        if session.generation != generation:
            return
        raw = record.values.get(name) if isinstance(record, Record) else None
        if isinstance(record, Record) and not session.admits(record):
            # Somebody logged in meanwhile: what is theirs is not for this request.
            await self._go_on_without(session, record)
            if not session.outlives_request:
                return
            raw = None
        elif isinstance(record, Record) and session.outlives_request:
            session.rebase_meta(record.meta)  # its token may have been replaced for age
        session.stored.restore(name, raw)

    async def _go_on_without(self, session: Session, record: Record) -> None:
        """Leave a session to who logged in on it meanwhile, as *record* says (C6)."""
        if session.outlives_request:
            self._settlement.outdated(session)
        elif session.login_pending:  # which begins a session of its own
            await self._settlement.commit(session)
        else:
            session.step_aside(record)
