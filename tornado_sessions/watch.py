"""Which sessions somebody in this process waits for, and how their end is heard of.

A socket outlives the request that loaded its session. So each is **watched**: by the
events of this process, by what the store tells of others (`Store.listen`), and by one
timer at the moment the session would expire, which is set anew when the clock jumps.
Nothing else is asked of the store, unless its news were interrupted: then every watched
session is looked at once (W4).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from itertools import islice

from tornado_sessions.clock_jumps import ClockJumps
from tornado_sessions.coalescer import MAX_BATCH
from tornado_sessions.config import SessionConfig
from tornado_sessions.errors import CodecError, SessionError
from tornado_sessions.events import Events, SessionEvent
from tornado_sessions.link import StoreLink
from tornado_sessions.stores.base import Meta, Record

log = logging.getLogger("tornado_sessions")

UNKNOWN_REASON = "revoked"
"""Why a session ended of which nothing is left to ask, though its time had not come."""
_PAUSE = 0.5
"""Seconds at the most until a store that failed is tried again: within a second of its
return everybody knows what has ended meanwhile."""

_REASON_TAKES = 0.25
"""Seconds for the news of why a session ended to follow the look that finds it gone."""

OnEnd = Callable[[str], None]


class Watcher:
    """Waits for the end of one session.

    It hears nothing before it is armed: until then the session may be about to be
    stored, and what waits for it may not be ready.
    """

    __slots__ = (
        "deadline",
        "expires_at",
        "gone",
        "handle",
        "missed",
        "on_end",
        "reason",
        "timer",
        "unreadable",
    )

    def __init__(self, handle: str) -> None:
        self.handle = handle
        self.on_end: OnEnd | None = None
        self.reason: str | None = None
        """Why the session ended, if that was known before anybody asked."""
        self.missed = False
        """True if news may have been missed before it was armed."""
        self.expires_at = 0.0
        self.deadline = 0.0
        """When the session is over in any case; epoch seconds, like ``expires_at``."""
        self.gone = False
        """True if a look found nothing, and the news may yet say why."""
        self.timer: asyncio.TimerHandle | None = None
        self.unreadable = False
        """True once the log says so; it is asked for twice a second."""


class Watch:
    """Tells whoever waits for the end of a session.

    Args:
        link: The way to the store.
        events: What happens in this process.
        config: Whose clocks are in force.
    """

    def __init__(self, link: StoreLink, events: Events, config: SessionConfig) -> None:
        self._link = link
        self._events = events
        self._config = config
        self._watchers: dict[str, list[Watcher]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._deaf = False
        """True once the log says that the store does not tell of ends."""
        self._stopped: set[asyncio.Task[None]] = set()
        """Tasks that were cancelled, and may not be over yet."""
        self._doubtful: dict[str, None] = {}
        """Handles that have to be looked at, in the order in which that was found."""
        self._unsubscribe: Callable[[], None] | None = None
        self._jumps = ClockJumps(self._now, self._on_jump)

    # -- for those who wait ------------------------------------------------------

    def add(self, handle: str) -> Watcher:
        """Begin to watch the session *handle*, best before it is loaded or stored."""
        watcher = Watcher(handle)
        self._watchers.setdefault(handle, []).append(watcher)
        self._listen()
        return watcher

    def arm(self, watcher: Watcher, meta: Meta, on_end: OnEnd) -> None:
        """Call *on_end*, once, with the reason for which the session ends or has ended.

        Args:
            watcher: What `add` returned.
            meta: What is known of the session; tells when its time is over.
            on_end: Called on the event loop.
        """
        watcher.on_end = on_end
        self._note_life(watcher, meta)
        if watcher.reason is not None:
            self.ended(watcher.handle, watcher.reason)
        elif watcher.missed:
            self._doubt([watcher.handle])

    def remove(self, watcher: Watcher) -> None:
        """Stop watching; doing it twice does nothing."""
        if watcher.timer is not None:
            watcher.timer.cancel()
        others = self._watchers.get(watcher.handle, [])
        if watcher in others:
            others.remove(watcher)
        if not others:
            self._watchers.pop(watcher.handle, None)
        if not self._watchers:
            self._stop()

    async def close(self) -> None:
        """Stop listening; who waits hears nothing more."""
        for watcher in [one for some in self._watchers.values() for one in some]:
            self.remove(watcher)
        loop = asyncio.get_running_loop()
        mine = [task for task in self._stopped if task.get_loop() is loop]
        if mine:
            await asyncio.wait(mine)

    # -- for the store, as its `EndListener` -------------------------------------

    def ended(self, handle: str, reason: str) -> None:
        """Tell everybody who waits for *handle*; who is not armed yet hears it later."""
        for watcher in tuple(self._watchers.get(handle, ())):
            watcher.reason = watcher.reason or reason
            if watcher.on_end is not None:
                self.remove(watcher)
                try:
                    watcher.on_end(watcher.reason)
                except Exception:
                    log.exception("whoever waited for the session %s failed", handle)

    def connected(self) -> None:
        """From now on every end is heard of; what ended before has to be looked at."""
        self._deaf = False
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.missed = watcher.on_end is None
        self._doubt([handle for handle in self._watchers if self._armed(handle)])

    # -- listening ---------------------------------------------------------------

    def _listen(self) -> None:
        loop, task = asyncio.get_running_loop(), self._listening
        self._jumps.start()
        if self._unsubscribe is None:
            self._unsubscribe = self._events.subscribe(self._note_event)
        if task is None or task.done() or task.get_loop() is not loop:
            self._listening = loop.create_task(self._keep_listening())

    def _stop(self) -> None:
        self._doubtful.clear()
        self._jumps.stop()
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        for task in (self._listening, self._looking):
            if task is not None and not task.get_loop().is_closed():
                task.cancel()
                self._stopped.add(task)
                task.add_done_callback(self._stopped.discard)
        self._listening = self._looking = None

    def _note_event(self, event: SessionEvent) -> None:
        if event.kind == "ended":
            self.ended(event.handle, event.reason or UNKNOWN_REASON)

    async def _keep_listening(self) -> None:
        self._deaf = False
        while True:
            try:
                await self._link.listen(self)
            except Exception as error:
                if not self._deaf:  # once, not twice a second while it is away
                    log.warning("the store does not tell of ends: %s", error)
                self._deaf = True
            await asyncio.sleep(random.uniform(_PAUSE / 2, _PAUSE))

    # -- looking -----------------------------------------------------------------

    def _doubt(self, handles: list[str]) -> None:
        if not handles:
            return
        self._doubtful.update(dict.fromkeys(handles))
        loop, task = asyncio.get_running_loop(), self._looking
        if task is None or task.done() or task.get_loop() is not loop:
            self._looking = loop.create_task(self._look())

    async def _look(self) -> None:
        while self._doubtful:
            # They are off the list before they are looked at: whatever gives rise to a
            # doubt from now on may have happened after the answer was given.
            handles = list(islice(self._doubtful, MAX_BATCH))
            for handle in handles:
                del self._doubtful[handle]
            if await self._failed_to_look(handles):
                await asyncio.sleep(random.uniform(_PAUSE / 2, _PAUSE))

    async def _failed_to_look(self, handles: list[str]) -> bool:
        asked_at = self._now()
        loaded: Sequence[Record | BaseException | None]
        try:
            loaded = await self._link.look(handles)
        except SessionError as error:
            log.warning("watched sessions could not be looked at: %s", error)
            loaded = [error] * len(handles)
        failed = False
        for handle, one in zip(handles, loaded, strict=True):
            if isinstance(one, BaseException) and self._armed(handle):
                failed = True
                self._doubtful[handle] = None  # at the end: others go first
                self._note_unreadable(handle, one)
            elif not isinstance(one, BaseException):
                self._judge(handle, one, asked_at)
        return failed

    def _judge(self, handle: str, record: Record | None, asked_at: float) -> None:
        for watcher in self._armed(handle):
            if record is not None:
                self._note_life(watcher, record.meta)
            # One that expired since then may have been extended before: its timer asks.
            if record is None or asked_at >= watcher.expires_at:
                reason = _reason(watcher, self._now())
                if reason is not UNKNOWN_REASON:
                    self.ended(handle, reason)
                    return  # the others have been told, too
                self._await_reason(watcher)

    def _await_reason(self, watcher: Watcher) -> None:
        if not watcher.gone:
            watcher.gone = True
            self._set_timer(watcher, self._now() + _REASON_TAKES)

    def _note_unreadable(self, handle: str, error: BaseException) -> None:
        watchers = self._armed(handle)
        told = any(watcher.unreadable for watcher in watchers)
        for watcher in watchers:
            watcher.unreadable = isinstance(error, CodecError)
        if not told and isinstance(error, CodecError):
            log.warning("a watched session cannot be read: %s", error)

    def _armed(self, handle: str) -> list[Watcher]:
        """Return who can be told. Others may wait for a session yet to be stored."""
        watchers = self._watchers.get(handle, ())
        return [watcher for watcher in watchers if watcher.on_end is not None]

    # -- the clocks --------------------------------------------------------------

    def _now(self) -> float:
        return self._link.store.clock()

    def _note_life(self, watcher: Watcher, meta: Meta) -> None:
        watcher.deadline = meta.created_at + self._config.absolute_timeout
        idle_until = meta.last_seen_at + self._config.idle_timeout
        watcher.expires_at = min(meta.expires_at, watcher.deadline, idle_until)
        watcher.gone = False
        self._set_timer(watcher, watcher.expires_at)

    def _set_timer(self, watcher: Watcher, until: float) -> None:
        if watcher.timer is not None:
            watcher.timer.cancel()
        seconds = max(0.0, until - self._now())
        loop = asyncio.get_running_loop()
        watcher.timer = loop.call_later(seconds, self._on_time, watcher)

    def _on_time(self, watcher: Watcher) -> None:
        now = self._now()
        if watcher.gone:
            self.ended(watcher.handle, UNKNOWN_REASON)
        elif now < watcher.expires_at:  # the clock of the store is not that of the loop
            self._set_timer(watcher, watcher.expires_at)
        elif now >= watcher.deadline:
            self.ended(watcher.handle, "absolute")
        else:  # requests may have extended its life, though never beyond the deadline
            self._set_timer(watcher, watcher.deadline)
            self._doubt([watcher.handle])

    def _on_jump(self) -> None:
        for handle in tuple(self._watchers):
            for watcher in self._armed(handle):
                self._on_time(watcher)


def _reason(watcher: Watcher, now: float) -> str:
    if now >= watcher.deadline:
        return "absolute"
    return "idle" if now >= watcher.expires_at else UNKNOWN_REASON
