"""What a store promises of one record: the first half of `StoreConformance`.

The suite talks to a store through the contract in `tornado_sessions.stores.base` and
nothing else. Time is a `FakeClock`, and there is no sleep in it.
"""

# ruff: noqa: PT009  (asserts vanish under -O, and pytest explains none of a library's)

from __future__ import annotations

import secrets
import time
import unittest
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from tornado_sessions.stores.base import (
    Apply,
    Create,
    Delete,
    Meta,
    Outcome,
    Record,
    Store,
)

if TYPE_CHECKING:
    _TestCase = unittest.IsolatedAsyncioTestCase
else:
    _TestCase = object  # a mixin: what is not a TestCase is not collected

APPLIED, GONE, CONFLICT = Outcome.APPLIED, Outcome.GONE, Outcome.CONFLICT
DAY = 86400.0
TOKEN = b"t" * 32
_ALL_BYTES = bytes(range(256))
_KEYS = ("", "a.b", "$set", "__proto__", "\0", "\0flash:", "😀", "\ud800", " '\"\\\n%")
_WRONG: tuple[dict[str, Any], ...] = (
    {"expect": {"k": b"V"}},
    {"expect": {"k": b""}},
    {"expect": {"k": None}},
    {"expect": {"absent": b""}},
    {"expect": {"k": b"v", "other": b"x"}},
    {"expect_token": b"x" * 32},
    {"expect": {"k": b"v"}, "expect_token": b""},
)


class FakeClock:
    """A clock that stands still until it is told to move.

    ::

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


class StoreCase(_TestCase):
    """What a suite asks of those who use it, and short words for its tests."""

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
        kind = type(store).__name__
        self.skipTest(f"{kind}: corrupt() is not overridden; {handle!r} stays whole")

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

    def _meta(self, ttl: float = DAY, **fields: Any) -> Meta:
        now = self.clock()
        given = {"token": TOKEN, "created_at": now, "last_seen_at": now}
        given.update(expires_at=now + ttl, epoch_at=now, rotated_at=now)
        return Meta(**{**given, **fields})

    def _new(self, handle: str = "h", ttl: float = DAY, **meta: Any) -> Create:
        return Create(handle, self._meta(ttl, **meta), {"k": b"v", "other": b"o"})

    def _many(self, count: int, prefix: str = "h", ttl: float = DAY) -> list[Create]:
        return [self._new(f"{prefix}{number}", ttl) for number in range(count)]

    async def _do(self, *changes: Any, expect: Any = APPLIED) -> None:
        """Commit *changes* and demand that each has the outcome *expect*."""
        outcomes = await self.store.commit(changes)
        self.assertEqual(outcomes, [expect] * len(changes))

    async def _record(self, handle: str = "h", store: Store | None = None) -> Any:
        (record,) = await (store or self.store).load([handle])
        return record

    async def _values(self, handle: str = "h", store: Store | None = None) -> Any:
        return _values(await self._record(handle, store))

    async def _found(self, principal: str) -> list[str]:
        return sorted(one.handle for one in await self.store.find(principal))

    async def _iterated(self, batch: int = 3) -> list[str]:
        return sorted([one.handle async for one in self.store.iterate(batch)])


class RecordConformance(StoreCase):
    """Proves what a store promises of one record."""

    async def test_round_trip(self) -> None:
        """R1: values come back byte for byte, in the order of the handles asked for."""
        values = {"all": _ALL_BYTES, "empty": b"", "large": _ALL_BYTES * 4096}
        await self._do(self._new("a"), Create("b", self._meta(), values))
        first, none, second, again = await self.store.load(["b", "nobody", "a", "b"])
        self.assertIsNone(none)
        self.assertEqual(_values(second), {"k": b"v", "other": b"o"})
        for found in (_values(first), _values(again)):
            differing = [key for key, raw in values.items() if found.get(key) != raw]
            self.assertEqual((differing, len(found)), ([], 3))

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
        """R1: each field of the meta comes back as it was, None and whole times too."""
        full = self._meta(
            epoch=3,
            principal="\0😀",
            persistent=False,
            user_agent="é",
            ip="::1",
            previous=_ALL_BYTES,
            salt=b"",
            confirmed_at=self.clock() + 0.123456,
            authenticated_at=self.clock() - 0.654321,
        )
        whole = self._meta(confirmed_at=1, authenticated_at=int(self.clock()))
        await self._do(Create("full", full, {}), Create("bare", self._meta(), {}))
        await self._do(Create("whole", whole, {}))
        self.assertEqual((await self._record("full")).meta, full)
        self.assertEqual((await self._record("whole")).meta, whole)
        self.assertEqual((await self._record("bare")).meta, self._meta())

    async def test_any_str_is_asked_for(self) -> None:
        """R1, K2: a handle that nobody could have made is absent, not an error."""
        await self._do(self._new("h"))
        odd = ["", "H", "h ", "../h", "h/../h", ".", "*", "\0", "\ud800", "h" * 9999]
        self.assertEqual(await self.store.load(odd), [None] * len(odd))
        await self._do(*map(Delete, odd), expect=GONE)
        self.assertIsNotNone(await self._record("h"))

    async def test_many_at_once(self) -> None:
        """R1: a batch has no largest size that the manager could run into."""
        await self._do(*self._many(300))
        handles = [f"h{number}" for number in range(300)]
        loaded = await self.store.load(handles)
        self.assertEqual([getattr(one, "handle", None) for one in loaded], handles)
        meta = {"principal": "everybody"}
        await self._do(*[Apply(one, meta=meta) for one in handles])
        self.assertEqual(await self._found("everybody"), sorted(handles))
        self.assertEqual(await self.store.count(), 300)

    async def test_create_refuses_a_live_handle(self) -> None:
        """R2: CONFLICT, and the record stays as it was."""
        await self._do(self._new())
        before = await self._record()
        other = Create("h", self._meta(principal="eve"), {"k": b"evil"})
        await self._do(other, expect=CONFLICT)
        self.assertEqual(await self._record(), before)
        self.assertEqual(await self._found("eve"), [])

    async def test_create_over_an_expired_record(self) -> None:
        """R2, R3: allowed, and nothing of the old record shows in the new one."""
        await self._do(self._new(ttl=10, principal="old", previous=b"p"))
        self.clock.advance(10)
        meta = self._meta()
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
        late = {"expires_at": self.clock() + DAY, "principal": "eve"}
        for handle in ("never", "deleted", "expired"):
            await self._do(
                Apply(handle=handle),
                Apply(handle=handle, set={"k": b"x"}, expect={"k": None}),
                Apply(handle=handle, meta=late),
                expect=GONE,
            )
            self.assertIsNone(await self._record(handle))
        self.assertEqual(await self._found("eve"), [])
        self.assertEqual(await self.store.count(), 0)

    async def test_delete_expects_a_token(self) -> None:
        """E7, C6: of a session that was renewed meanwhile, it is told that it stayed.

        A store that ends it all the same is allowed, but has to say so.
        """
        await self._do(self._new("h"), self._new("other"))
        await self._do(Delete("h", "evicted", None, TOKEN))
        await self._do(Delete("none", "evicted", None, TOKEN), expect=GONE)
        self.assertIsNone(await self._record("h"))
        wrong = Delete("other", "evicted", None, b"another token")
        (outcome,) = await self.store.commit([wrong])
        self.assertIn(outcome, (APPLIED, CONFLICT))
        lives = await self._record("other") is not None
        self.assertEqual(lives, outcome is CONFLICT)

    async def test_hints_are_no_more_than_that(self) -> None:
        """R4: whose session somebody took it for decides nothing."""
        await self._do(
            self._new("h", principal="alice"), self._new("d", principal="al")
        )
        before = (await self._record("h")).meta
        await self._do(Apply("h", set={"k": b"2"}, principal="eve"))
        self.assertEqual((await self._record("h")).meta, before)
        await self._do(Delete("d", "why", "eve"))
        self.assertEqual(await self._found("eve"), [])
        self.assertEqual(await self._found("alice"), ["h"])
        self.assertEqual(await self._found("al"), [])

    async def test_apply_touches_what_it_names(self) -> None:
        """C1: set and unset leave the other keys and the meta alone."""
        await self._do(self._new(epoch=7))
        await self._do(Apply(handle="h", set={"new": b"", "k": b"2"}, unset=["none"]))
        self.assertEqual(await self._values(), {"k": b"2", "other": b"o", "new": b""})
        await self._do(Apply(handle="h", unset=["k", "new"]))
        self.assertEqual(await self._values(), {"other": b"o"})
        await self._do(Apply(handle="h", set={"other": b"2"}, unset=["other"]))
        self.assertEqual(await self._values(), {"other": b"2"})
        self.assertEqual((await self._record()).meta, self._meta(epoch=7))

    async def test_expect(self) -> None:
        """C2: unless keys and token are as expected, CONFLICT and nothing changed."""
        await self._do(self._new())
        before = await self._record()
        for wrong in _WRONG:
            change = Apply(
                handle="h", set={"k": b"x"}, unset=["other"], meta={"epoch": 9}, **wrong
            )
            await self._do(change, expect=CONFLICT)
            self.assertEqual(await self._record(), before, wrong)
        right: Mapping[str, Any] = {"k": b"v", "absent": None}
        changed = Apply(handle="h", set={"k": b"2"}, expect=right, expect_token=TOKEN)
        await self._do(changed)
        self.assertEqual(await self._values(), {"k": b"2", "other": b"o"})

    async def test_meta_changes(self) -> None:
        """R2: an apply changes the fields that it names, to None as well."""
        await self._do(self._new(previous=b"p", principal="alice", ip="::1"))
        changes: dict[str, Any] = {"previous": None, "token": b"2", "epoch": 1}
        changes["authenticated_at"] = self.clock() + 0.5
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
        await self._do(Apply(handle="h", meta=later), Apply(handle="h", meta=earlier))
        held: Mapping[str, bytes | None] = {"k": b"v"}
        await self._do(Apply("h", expect=held, expect_token=TOKEN, meta=earlier))
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
        await self._do(Delete("h"), Delete("never"), Delete("expired"), expect=GONE)
        self.assertEqual(await self._iterated(), ["stays"])


def _values(loaded: Any) -> Any:
    return dict(loaded.values) if isinstance(loaded, Record) else loaded
