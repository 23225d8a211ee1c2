"""What a store promises to those who listen for ends: a part of `StoreConformance`."""

# ruff: noqa: PT009  (asserts vanish under -O, and pytest explains none of a library's)

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tornado_sessions.conformance_record import APPLIED, GONE, StoreCase
from tornado_sessions.stores.base import Apply, Delete, Store

_PATIENCE = 10.0
_HANDLES = ("plain", "with space", "a.b/$c", "\0", "😀", "\ud800", "'\"\\\n")
_REASONS = ("revoked", "two words", "", "ünï: %s", "\n")


class _Heard:
    """An `EndListener` that remembers."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, str]] = []
        self.connections = 0
        self._changed = asyncio.Event()

    def ended(self, handle: str, reason: str) -> None:
        self.ends.append((handle, reason))
        self._changed.set()

    def connected(self) -> None:
        self.connections += 1
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds of what was heard."""
        while not condition():
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), _PATIENCE)


class EndConformance(StoreCase):
    """Tests of `Store.listen`.

    A store that knows no way to hear of ends says ``connected`` again instead: then each
    session is looked at, which is found to be over.
    """

    async def test_listening(self) -> None:
        """W1, W2: an end is heard of with its reason, whoever ended the session."""
        for number, store in enumerate((self.store, self.peer)):
            heard = await self._listening(self.store)
            handle, stays = f"h{number}", f"s{number}"
            await self._do(self._new(handle), self._new(stays))
            self.assertEqual(await store.commit([Delete(handle, "why")]), [APPLIED])
            await self._heard_of(heard, (handle, "why"))
            self.assertNotIn(stays, dict(heard.ends))
            await self._do(Delete(stays))

    async def test_listening_to_many(self) -> None:
        """W1: of a whole batch, each end is heard of."""
        heard = await self._listening(self.peer)
        handles = [f"h{number}" for number in range(300)]
        await self._do(*[self._new(handle) for handle in handles])
        await self._do(*[Delete(handle, "all") for handle in handles])
        await self._heard_of(heard, *((handle, "all") for handle in handles))

    async def test_listening_to_any_text(self) -> None:
        """W1: handle and reason may be any text."""
        heard = await self._listening(self.peer)
        ends = [(handle, "gone") for handle in _HANDLES]
        ends += [(f"h{number}", reason) for number, reason in enumerate(_REASONS)]
        told = []
        for handle, reason in ends:
            (created,) = await self.store.commit([self._new(handle)])
            if created is APPLIED:  # a store may refuse what no session is called
                await self._do(Delete(handle, reason))
                told.append((handle, reason))
        await self._heard_of(heard, *told)

    async def test_listening_to_what_is_no_end(self) -> None:
        """W1: changes, and the end of what was not there, are not told as ends."""
        heard = await self._listening(self.peer)
        await self._do(self._new("h"), self._new("old", ttl=1))
        await self._do(Apply("h", set={"k": b"1"}))
        await self._do(Delete("none"), expect=GONE)
        self.clock.advance(2)
        await self.store.sweep(10)
        await self._do(Delete("h", "last"))
        await self._heard_of(heard, ("h", "last"))
        self.assertLessEqual({handle for handle, _ in heard.ends}, {"h"})

    async def test_listening_late(self) -> None:
        """W4: ``connected`` says from when on; what ended before may be on its way."""
        await self._do(self._new("h"))
        await self._do(Delete("h", "too early"))
        heard = await self._listening(self.store)
        self.assertLessEqual(set(heard.ends), {("h", "too early")})
        self.assertGreaterEqual(heard.connections, 1)

    async def test_two_listeners(self) -> None:
        """W1: each of those who listen hears of each end; one that stops, of no more."""
        stops = _Heard()
        listening = await self._start(self.store, stops)
        others = [await self._listening(store) for store in (self.store, self.peer)]
        listening.cancel()
        await asyncio.wait([listening])
        await self._do(self._new("h"))
        await self._do(Delete("h", "why"))
        for heard in others:
            await self._heard_of(heard, ("h", "why"))
        self.assertEqual(stops.ends, [])

    async def _listening(self, store: Store) -> _Heard:
        """Listen to *store* until the test is over; return what is heard."""
        heard = _Heard()
        await self._start(store, heard)
        return heard

    async def _start(self, store: Store, heard: _Heard) -> asyncio.Task[None]:
        listening = asyncio.ensure_future(store.listen(heard))
        self.addAsyncCleanup(asyncio.wait, [listening])
        self.addCleanup(listening.cancel)
        await heard.until(lambda: heard.connections > 0 or listening.done())
        if listening.done():
            await listening  # raises what it failed with
        return listening

    async def _heard_of(self, heard: _Heard, *ends: tuple[str, str]) -> None:
        before, expected = heard.connections, set(ends)
        await heard.until(
            lambda: expected <= set(heard.ends) or heard.connections > before
        )
