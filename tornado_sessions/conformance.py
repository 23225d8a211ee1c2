"""The suite that proves a store; `tornado_sessions.testing` is where to import it from.

It talks to a store through the contract in `tornado_sessions.stores.base` and nothing
else. Time is a `FakeClock`, and races are parked on events: there is no sleep in it.
"""

# ruff: noqa: PT009  (asserts vanish under -O, and pytest explains none of a library's)

from __future__ import annotations

import asyncio
import secrets
import time
import unittest
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from tornado_sessions.errors import CodecError
from tornado_sessions.stores.base import Apply, Create, Delete, Meta, Outcome, Store

_Base = unittest.IsolatedAsyncioTestCase if TYPE_CHECKING else object
_APPLIED, _GONE, _CONFLICT = Outcome.APPLIED, Outcome.GONE, Outcome.CONFLICT
_DAY = 86400.0
_ALL_BYTES = bytes(range(256))
_KEYS = ("", "a.b", "$set", "__proto__", "\0", "\0flash:", "😀", "\ud800", " '\"\\\n%")
_PRINCIPALS = ("al", "alice", "Alice", "alice*", "a.b/../c", "\0", "😀", "%", "'")


class FakeClock:
    """A clock that stands still until it is told to move::

    clock = FakeClock()
    SessionManager.of(application).store.clock = clock
    clock.advance(timedelta(days=15))  # every session is over now

    Args:
        start: Where it stands first, in epoch seconds; now by default, since a
            database may delete by a clock of its own.
    """

    def __init__(self, start: float | None = None) -> None:
        self.now = time.time() if start is None else start

    def __call__(self) -> float:
        """Return the time in epoch seconds."""
        return self.now

    def advance(self, by: float | timedelta) -> None:
        """Move forward *by* seconds or a `timedelta`."""
        self.now += by.total_seconds() if isinstance(by, timedelta) else by


class StoreConformance(_Base):
    """Proves that a store keeps its contract (R, C1 to C4). A mixin, so that importing
    it collects nothing::

    class TestMyStore(StoreConformance, unittest.IsolatedAsyncioTestCase):
        async def make_store(self, clock, namespace):
            return MyStore(URL, namespace=namespace, clock=clock)

    Each test works in a namespace of its own, and clears it in the end.
    """

    clock: FakeClock
    namespace: str
    store: Store
    peer: Store

    async def make_store(self, clock: FakeClock, namespace: str) -> Store:
        """Return a store, not opened, that keeps to *clock* and *namespace*."""
        raise NotImplementedError

    async def make_peer(self, clock: FakeClock, namespace: str) -> Store:
        """Return what another process would have: a second store on the same data."""
        shared = self.store.shared
        return await self.make_store(clock, namespace) if shared else self.store

    async def corrupt(self, store: Store, handle: str) -> None:
        """Damage what *store* keeps for *handle*, so that it cannot be read."""
        self.skipTest(f"{type(self).__name__} does not say how to corrupt a record")

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.clock, self.namespace = FakeClock(), f"test_{secrets.token_hex(8)}"
        self.store = await self._opened(self.make_store, self.namespace)
        self.peer = await self._opened(self.make_peer, self.namespace)

    async def _opened(self, make: Any, namespace: str) -> Store:
        store: Store = await make(self.clock, namespace)
        await store.open()
        self.addAsyncCleanup(store.close)
        self.addAsyncCleanup(store.clear)
        return store

    def _meta(self, ttl: float = _DAY, **fields: Any) -> Meta:
        now = self.clock()
        given = {"token": b"t" * 32, "created_at": now, "last_seen_at": now}
        given.update(expires_at=now + ttl, epoch_at=now, rotated_at=now)
        return Meta(**{**given, **fields})

    def _new(self, handle: str = "h", ttl: float = _DAY, **meta: Any) -> Create:
        return Create(handle, self._meta(ttl, **meta), {"k": b"v", "other": b"o"})

    def _many(self, count: int, prefix: str = "h", ttl: float = _DAY) -> list[Create]:
        return [self._new(f"{prefix}{number}", ttl) for number in range(count)]

    async def _do(self, *changes: Any, expect: Any = _APPLIED) -> None:
        """Commit *changes* and demand that each has the outcome *expect*."""
        outcomes = await self.store.commit(changes)
        self.assertEqual(outcomes, [expect] * len(changes))

    async def _record(self, handle: str = "h", store: Store | None = None) -> Any:
        (record,) = await (store or self.store).load([handle])
        return record

    async def _values(self, handle: str = "h", store: Store | None = None) -> Any:
        record = await self._record(handle, store)
        return record if record is None else dict(record.values)

    async def _found(self, principal: str) -> list[str]:
        return sorted(one.handle for one in await self.store.find(principal))

    async def _iterated(self, batch: int = 3) -> list[str]:
        return sorted([one.handle async for one in self.store.iterate(batch)])

    # -- what goes in comes out ----------------------------------------------------

    async def test_round_trip(self) -> None:
        """R1: values come back byte for byte, in the order of the handles asked for."""
        values = {"all": _ALL_BYTES, "empty": b"", "large": _ALL_BYTES * 4096}
        await self._do(self._new("a"), Create("b", self._meta(), values))
        loaded = await self.store.load(["b", "nobody", "a", "b"])
        self.assertEqual(
            [one and dict(one.values) for one in loaded if not _failed(one)],
            [values, None, {"k": b"v", "other": b"o"}, values],
        )

    async def test_keys(self) -> None:
        """S5: any str is a key, to create, set, expect and unset."""
        values = {key: str(number).encode() for number, key in enumerate(_KEYS)}
        await self._do(Create("h", self._meta(), values))
        self.assertEqual(await self._values(), values)
        changed = {key: raw + b"+" for key, raw in values.items()}
        await self._do(Apply(handle="h", set=changed, expect=values))
        self.assertEqual(await self._values(), changed)
        await self._do(Apply(handle="h", unset=_KEYS[1:]))
        self.assertEqual(await self._values(), {"": b"0+"})

    async def test_meta(self) -> None:
        """R1: each field of the meta comes back as it was, None included."""
        full = self._meta(
            **{"epoch": 3, "principal": "\ud800😀", "persistent": False, "ip": "::1"},
            **{"user_agent": "é", "previous": _ALL_BYTES, "salt": b""},
            confirmed_at=self.clock() + 0.123456,
        )
        await self._do(Create("full", full, {}), Create("bare", self._meta(), {}))
        self.assertEqual((await self._record("full")).meta, full)
        self.assertEqual((await self._record("bare")).meta, self._meta())

    async def test_empty_batches(self) -> None:
        """R1: nothing asked, nothing answered, nothing raised."""
        self.assertEqual(await self.store.load([]), [])
        self.assertEqual(await self.store.commit([]), [])

    async def test_many_at_once(self) -> None:
        """R1: a batch has no largest size that the manager could run into."""
        await self._do(*self._many(300))
        loaded = await self.store.load([f"h{number}" for number in range(300)])
        handles = [getattr(one, "handle", None) for one in loaded]
        self.assertEqual(handles, [f"h{number}" for number in range(300)])

    # -- create, apply, delete -----------------------------------------------------

    async def test_create_refuses_a_live_handle(self) -> None:
        """R2: CONFLICT, and the record stays as it was."""
        await self._do(self._new())
        before = await self._record()
        other = Create("h", self._meta(principal="eve"), {"k": b"evil"})
        await self._do(other, expect=_CONFLICT)
        self.assertEqual(await self._record(), before)
        self.assertEqual(await self._found("eve"), [])

    async def test_create_over_an_expired_record(self) -> None:
        """R2, R3: allowed, and nothing of the old record shows in the new one."""
        await self._do(self._new(ttl=10, principal="old", previous=b"p"))
        self.clock.advance(10)
        meta = self._meta(_DAY)
        await self._do(Create("h", meta, {"new": b"n"}))
        self.assertEqual((await self._record()).meta, meta)
        self.assertEqual(await self._values(), {"new": b"n"})
        self.assertEqual(await self._found("old"), [])
        await self.store.sweep(10)
        self.assertEqual(await self._values(), {"new": b"n"})

    async def test_apply_never_creates(self) -> None:
        """R2, C3: what never was, was deleted or has expired is GONE and stays gone."""
        await self._do(self._new("deleted"), self._new("expired", 10))
        await self._do(Delete("deleted"))
        self.clock.advance(10)
        late = {"expires_at": self.clock() + _DAY, "principal": "eve"}
        for handle in ("never", "deleted", "expired"):
            for change in ({"set": {"k": b"x"}}, {"meta": late}, {}):
                change = Apply(handle=handle, **change)  # type: ignore[arg-type]
                await self._do(change, expect=_GONE)
            self.assertIsNone(await self._record(handle))
        self.assertEqual(await self._found("eve"), [])
        self.assertEqual(await self.store.count(), 0)

    async def test_apply_touches_what_it_names(self) -> None:
        """C1: set and unset leave the other keys and the meta alone."""
        await self._do(self._new(epoch=7))
        await self._do(Apply(handle="h", set={"new": b"", "k": b"2"}, unset=["none"]))
        self.assertEqual(await self._values(), {"k": b"2", "other": b"o", "new": b""})
        await self._do(Apply(handle="h", unset=["k", "new"]))
        self.assertEqual(await self._values(), {"other": b"o"})
        self.assertEqual((await self._record()).meta, self._meta(epoch=7))

    async def test_expect(self) -> None:
        """C2: unless keys and token are as expected, CONFLICT and nothing changed."""
        await self._do(self._new())
        before = await self._record()
        for wrong in _WRONG:
            change = Apply(
                handle="h", set={"k": b"x"}, unset=["other"], meta={"epoch": 9}, **wrong
            )
            await self._do(change, expect=_CONFLICT)
            self.assertEqual(await self._record(), before, wrong)
        right: Mapping[str, Any] = {"k": b"v", "absent": None}
        changed = Apply(
            handle="h", set={"k": b"2"}, expect=right, expect_token=b"t" * 32
        )
        await self._do(changed)
        self.assertEqual(await self._values(), {"k": b"2", "other": b"o"})

    async def test_meta_changes(self) -> None:
        """R2: an apply changes the fields that it names, to None as well."""
        await self._do(self._new(previous=b"p", principal="alice", ip="::1"))
        changes: dict[str, Any] = {"previous": None, "token": b"2", "epoch": 1}
        await self._do(Apply(handle="h", meta=changes))
        expected = msgspec.structs.replace(
            self._meta(principal="alice", ip="::1"), **changes
        )
        self.assertEqual((await self._record()).meta, expected)
        self.assertEqual(await self._values(), {"k": b"v", "other": b"o"})

    async def test_expiry_only_moves_forward(self) -> None:
        """C4: a slow request that knows an earlier expiry does not shorten a life."""
        await self._do(self._new(ttl=100))
        now = self.clock()
        later = {"last_seen_at": now + 50, "expires_at": now + 200}
        earlier = {"last_seen_at": now + 1, "expires_at": now + 1, "epoch": 1}
        await self._do(
            Apply(handle="h", meta=later), Apply(handle="h", meta=earlier)
        )
        meta = (await self._record()).meta
        self.assertEqual((meta.last_seen_at, meta.expires_at), (now + 50, now + 200))
        self.assertEqual(meta.epoch, 1)
        self.clock.advance(199)
        self.assertEqual(await self.store.sweep(10), 0)
        self.assertIsNotNone(await self._record())
        self.clock.advance(1)
        self.assertEqual(await self.store.sweep(10), 1)

    async def test_delete(self) -> None:
        """R2: the first delete says APPLIED, every other one GONE."""
        await self._do(self._new("h"), self._new("stays"), self._new("expired", 10))
        self.clock.advance(10)
        await self._do(Delete("h", "any reason"))
        await self._do(Delete("h"), Delete("never"), Delete("expired"), expect=_GONE)
        self.assertEqual(await self._iterated(), ["stays"])
