"""The suite that proves a store; import it from `tornado_sessions.testing`.

Races are parked on events, so that each run of a test takes the same course.
"""

# ruff: noqa: PT009  (asserts vanish under -O, and pytest explains none of a library's)

from __future__ import annotations

import asyncio
from typing import Any

from tornado_sessions.conformance_ends import EndConformance
from tornado_sessions.conformance_record import (
    APPLIED,
    CONFLICT,
    DAY,
    GONE,
    RecordConformance,
)
from tornado_sessions.errors import CodecError
from tornado_sessions.stores.base import Apply, Create, Delete, Record, Store

_PRINCIPALS = ("al", "alice", "Alice", "alice*", "a.b/../c", "\0", "😀", "%", "'")


class StoreConformance(EndConformance, RecordConformance):
    """Proves that a store keeps its contract (R1 to R5, C1 to C4), whoever wrote it.

    A mixin, so that importing it collects nothing; it needs `unittest` only::

        class TestMyStore(StoreConformance, unittest.IsolatedAsyncioTestCase):
            async def make_store(self, clock, namespace):
                return MyStore(URL, namespace=namespace, clock=clock)

    Each test works in a namespace of its own and clears it in the end. `make_peer` and
    `corrupt` may be overridden too.
    """

    # -- batches -------------------------------------------------------------------

    async def test_empty_batches(self) -> None:
        """R1: nothing asked, nothing answered, nothing raised."""
        self.assertEqual(await self.store.load([]), [])
        self.assertEqual(await self.store.commit([]), [])

    async def test_mixed_batch(self) -> None:
        """R1: each outcome stands where its change stood."""
        await self._do(self._new("a"), self._new("b"), self._new("c"))
        outcomes = await self.store.commit(
            [
                Apply(handle="none", set={"k": b"x"}),
                Apply(handle="a", set={"k": b"a"}),
                Delete("b"),
                self._new("c"),
                Delete("none"),
                Apply(handle="a", set={"k": b"x"}, expect={"k": b"v"}),
                self._new("d"),
            ]
        )
        expected = [GONE, APPLIED, APPLIED, CONFLICT, GONE, CONFLICT, APPLIED]
        self.assertEqual(outcomes, expected)
        self.assertEqual(await self._iterated(), ["a", "c", "d"])
        self.assertEqual(await self._values("a"), {"k": b"a", "other": b"o"})

    async def test_one_handle_in_one_batch(self) -> None:
        """R1: changes of one handle take effect in the order of the batch."""
        outcomes = await self.store.commit(
            [
                Apply(handle="h", set={"k": b"too early"}),
                self._new("h"),
                Apply(handle="h", set={"k": b"1"}, expect={"k": b"v"}),
                Apply(handle="h", set={"k": b"2"}, expect={"k": b"v"}),
                Apply(handle="h", set={"x": b"3"}, expect={"k": b"1"}),
                Delete("h"),
                Apply(handle="h", set={"k": b"too late"}),
                Create("h", self._meta(epoch=5), {"fresh": b"f"}),
                Apply(handle="h", set={"k": b"end"}),
            ]
        )
        expected = [GONE, APPLIED, APPLIED, CONFLICT, APPLIED, APPLIED, GONE]
        self.assertEqual(outcomes, [*expected, APPLIED, APPLIED])
        self.assertEqual(await self._values("h"), {"fresh": b"f", "k": b"end"})
        self.assertEqual((await self._record("h")).meta.epoch, 5)

    async def test_a_bad_item_stands_alone(self) -> None:
        """R1: a value that is not bytes harms no neighbour.

        A store may take such a value or put an exception in the outcome's place, but then
        nothing of that change is stored.
        """
        await self._do(self._new("h"))
        bad: Any = {"new": b"n", "bad": object()}
        outcomes = await self.store.commit(
            [
                Apply(handle="h", set={"k": b"1"}),
                Create("bad", self._meta(), bad),
                Apply(handle="h", set=bad),
                Apply(handle="h", set={"other": b"2"}),
                self._new("last"),
            ]
        )
        good = [outcomes[0], *outcomes[3:]]
        self.assertEqual(good, [APPLIED] * 3)
        self.assertIsNotNone(await self._record("last"))
        if isinstance(outcomes[1], Exception):
            self.assertIsNone(await self._record("bad"))
        if isinstance(outcomes[2], Exception):
            self.assertEqual(await self._values("h"), {"k": b"1", "other": b"2"})
        await self.store.clear()

    async def test_an_unreadable_record_stands_alone(self) -> None:
        """R1, S6: it is a `CodecError` in its place, and can be deleted."""
        await self._do(self._new("a"), self._new("broken", principal="p"))
        await self._do(self._new("z", principal="p"))
        await self.corrupt(self.store, "broken")
        first, broken, last = await self.store.load(["a", "broken", "z"])
        self.assertIsInstance(first, Record)
        self.assertIsInstance(broken, CodecError)
        self.assertIsInstance(last, Record)
        outcomes = await self.store.commit(
            [Apply(handle=h, set={"k": b"1"}) for h in ("a", "broken", "z")]
        )
        self.assertEqual([outcomes[0], outcomes[2]], [APPLIED, APPLIED])
        self.assertEqual(await self._iterated(), ["a", "z"])
        self.assertEqual(await self._found("p"), ["z"])
        await self.store.commit([Delete("broken")])
        self.assertIsNone(await self._record("broken"))

    # -- expiry --------------------------------------------------------------------

    async def test_expired_is_absent(self) -> None:
        """R3: on every read and from the very moment, before any sweep."""
        await self._do(self._new("h", 10, principal="p"), self._new("stays", 10.5))
        self.clock.advance(9.5)
        self.assertEqual(await self._found("p"), ["h"])
        self.clock.advance(0.5)
        for store in (self.store, self.peer):
            self.assertIsNone(await self._record("h", store))
            self.assertEqual(await store.find("p"), [])
            self.assertEqual(await store.count(), 1)
        self.assertEqual(await self._iterated(), ["stays"])
        await self._do(Apply(handle="h"), Delete("h"), expect=GONE)

    async def test_expiry_is_exact(self) -> None:
        """R3, E2: a life of a day or a year ends at its end, not a second before."""
        await self._do(self._new("day"), self._new("year", 365 * DAY))
        self.clock.advance(DAY - 0.5)
        self.assertIsNotNone(await self._record("day"))
        self.clock.advance(0.5)
        self.assertIsNone(await self._record("day"))
        self.clock.advance(364 * DAY - 0.5)
        self.assertIsNotNone(await self._record("year"))

    async def test_sweep(self) -> None:
        """R4: deletes expired records only, at most *limit*, and counts them."""
        await self._do(*self._many(5, "old", 10), *self._many(4, "live", 2 * DAY))
        self.assertEqual(await self.store.sweep(100), 0)
        self.clock.advance(DAY)
        if self.store.expires_natively:
            await self.store.sweep(100)
        else:
            swept = [await self.store.sweep(2) for _ in range(4)]
            self.assertEqual(swept, [2, 2, 1, 0])
        self.assertEqual(await self._iterated(), [f"live{n}" for n in range(4)])
        self.clock.advance(-DAY + 5)  # back when they were live: they are not there
        self.assertIsNone(await self._record("old0"))

    # -- all records ---------------------------------------------------------------

    async def test_find(self) -> None:
        """R4: exactly the live records of a principal, whatever its name looks like."""
        for number, name in enumerate(_PRINCIPALS):
            await self._do(self._new(f"h{number}", principal=name))
        await self._do(self._new("nobody's"), self._new("short", 10, principal="al"))
        for number, name in enumerate(_PRINCIPALS[1:], 1):
            self.assertEqual(await self._found(name), [f"h{number}"], name)
        self.assertEqual(await self._found("al"), ["h0", "short"])
        self.assertEqual(await self._found("nobody"), [])
        await self._do(Apply(handle="h1", meta={"principal": "al"}))
        await self._do(Apply(handle="h2", meta={"principal": None}), Delete("h0"))
        self.clock.advance(10)
        self.assertEqual(await self._found("al"), ["h1"])
        self.assertEqual([*await self._found("alice"), *await self._found("Alice")], [])

    async def test_iterate(self) -> None:
        """R4: each live record once, in batches, while records are deleted and made."""
        await self._do(*self._many(20), *self._many(20, "gone"), self._new("old", 1))
        self.clock.advance(1)
        seen: list[str] = []
        async for record in self.store.iterate(batch=3):
            number = len(seen)
            seen.append(record.handle)
            if number < 10:  # noqa: PLR2004  (passed ones too: pages must not move up)
                gone = dict.fromkeys([record.handle, f"gone{number}"])
                await self.peer.commit([Delete(handle) for handle in gone])
            elif number < 30:  # noqa: PLR2004  (or it might go on for ever)
                await self.peer.commit([self._new(f"x{number}")])
        kept = [handle for handle in seen if handle.startswith("h")]
        self.assertEqual(sorted(kept), sorted(f"h{number}" for number in range(20)))
        self.assertEqual(len(seen), len(set(seen)))

    async def test_count_and_clear(self) -> None:
        """R4, R5: both see the store's own namespace and nothing else."""
        other = await self._opened(self.make_store, self.namespace + "_2")
        await self._do(self._new("h"), self._new("a"))
        await other.commit([Create("h", self._meta(principal="p"), {"k": b"other"})])
        self.assertEqual((await self.store.count(), await other.count()), (2, 1))
        self.assertEqual(await self._values("h"), {"k": b"v", "other": b"o"})
        self.assertEqual(await self._found("p"), [])
        await self.store.clear()
        self.assertEqual((await self.store.count(), await other.count()), (0, 1))
        self.assertEqual(await self._iterated(), [])
        self.assertEqual(await self._values("h", other), {"k": b"other"})

    async def test_open_and_close(self) -> None:
        """R4: both may be called twice, and a store that was closed can be reopened."""
        await self._do(self._new("h"))
        await self.store.close()
        await self.store.close()
        await self.store.open()
        await self.store.open()
        kept = {"k": b"v", "other": b"o"}
        if self.store.shared:
            self.assertEqual(await self._values("h"), kept)
        await self._do(self._new("more"))

    # -- parallel requests -----------------------------------------------------------

    def _sides(self, count: int) -> list[Store]:
        return [(self.store, self.peer)[number % 2] for number in range(count)]

    async def test_twenty_create_at_once(self) -> None:
        """R2: one is APPLIED, the others CONFLICT, and what is stored is the winner's."""
        creates = [
            Create("h", self._meta(epoch=number), {"by": str(number).encode()})
            for number in range(20)
        ]
        pairs = zip(self._sides(20), creates, strict=True)
        outcomes = await asyncio.gather(*(side.commit([one]) for side, one in pairs))
        flat = [outcome for (outcome,) in outcomes]
        self.assertEqual((flat.count(APPLIED), flat.count(CONFLICT)), (1, 19))
        winner = flat.index(APPLIED)
        self.assertEqual(await self._values("h"), {"by": str(winner).encode()})

    async def test_different_keys_at_once(self) -> None:
        """C1: what parallel requests write to different keys survives, all of it."""
        await self._do(self._new("h"))
        changes = [Apply(handle="h", set={f"k{n}": b"%d" % n}) for n in range(20)]
        pairs = zip(self._sides(20), changes, strict=True)
        await asyncio.gather(*(side.commit([one]) for side, one in pairs))
        expected = {f"k{n}": b"%d" % n for n in range(20)}
        self.assertEqual(await self._values("h"), {"k": b"v", "other": b"o"} | expected)

    async def test_counting_at_once(self) -> None:
        """C2: compare-and-set from many sides loses and doubles nothing."""
        await self._do(Create("h", self._meta(), {"n": b"0"}))

        async def count(side: Store) -> int:
            done = 0
            for _ in range(1000):
                raw = (await self._values("h", side))["n"]
                change = Apply(
                    handle="h", set={"n": b"%d" % (int(raw) + 1)}, expect={"n": raw}
                )
                done += await side.commit([change]) == [APPLIED]
                if done == 5:  # noqa: PLR2004
                    break
            return done

        counted = await asyncio.gather(*map(count, self._sides(8)))
        self.assertEqual(counted, [5] * 8)
        self.assertEqual(await self._values("h"), {"n": b"40"})

    async def test_a_slow_request_cannot_resurrect(self) -> None:
        """C3: what was loaded before a delete cannot be written after it."""
        await self._do(self._new("h", principal="p"))
        loaded, ended = asyncio.Event(), asyncio.Event()

        async def slow_request() -> Any:
            record = await self._record("h")
            loaded.set()
            await ended.wait()
            meta = {"last_seen_at": self.clock(), "expires_at": self.clock() + 2 * DAY}
            values = {**record.values, "k": b"late"}
            return await self.store.commit([Apply(handle="h", set=values, meta=meta)])

        async def logout() -> None:
            await loaded.wait()
            self.assertEqual(await self.peer.commit([Delete("h")]), [APPLIED])
            ended.set()

        outcomes, _ = await asyncio.gather(slow_request(), logout())
        self.assertEqual(outcomes, [GONE])
        for store in (self.store, self.peer):
            self.assertIsNone(await self._record("h", store))
        self.assertEqual((await self._found("p"), await self.store.count()), ([], 0))
