"""The contract between the manager and a store.

A store keeps one **record** for each handle: a `Meta` that this library understands
and a mapping of encoded values that it does not. It works on batches, knows neither
cookies nor codecs nor timeouts, and promises five things:

* an expired record is absent, on every read, whether or not it was swept (R3);
* `Create` refuses a live handle, `Apply` changes a live record and never creates one,
  `Delete` is idempotent (R2), so what has ended cannot come back;
* each change is atomic, and only the keys it names are touched, so parallel changes to
  different keys all survive (C1);
* one bad item never fails its neighbours (R1): trouble with an item takes the item's
  place in the result, trouble with the whole database is raised as `StoreError`;
* missing, expired and already deleted are ordinary answers, not exceptions.

`tornado_sessions.testing.StoreConformance` proves all of it for any store.
"""

from __future__ import annotations

import asyncio
import enum
import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeAlias

import msgspec

from tornado_sessions.errors import CodecError, ConfigurationError, StoreError

if TYPE_CHECKING:
    from typing_extensions import Self

Clock: TypeAlias = Callable[[], float]
"""Returns the time in seconds since the epoch, as `time.time` does."""

DEFAULT_NAMESPACE = "tornado_sessions"
LOOK_EVERY = 0.5
"""Seconds between two looks, where a database has to be asked what ended (W1: it is
known within a second, so once a second would be too late)."""
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LATEST = 250_000_000_000
"""In the year 9892. With the longest timeout added, 100 years, it is still a date."""
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=_LATEST)]
"""Epoch seconds. A database may hold others, NaN too; such a record is malformed."""
Epoch: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**24 - 2)]
"""The cookie has three bytes for it, and a login adds one."""


class Meta(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What is known of a session apart from its values. Times are epoch seconds."""

    epoch: Epoch = 0
    """+1 at each login and ``regenerate_id``."""
    token: bytes
    """SHA-256 of the token that the cookie carries now."""
    created_at: Seconds
    last_seen_at: Seconds
    expires_at: Seconds
    epoch_at: Seconds
    """When the current epoch began."""
    principal: str | None = None
    persistent: bool | None = None
    """Whether the cookie outlives the browser; None = as configured."""
    user_agent: str = ""
    ip: str = ""
    rotated_at: Seconds
    """When the current token came into use."""
    previous: bytes | None = None
    """SHA-256 of the token before the last rotation by age."""
    salt: bytes | None = None
    """Makes the current token from the previous one; see ``tokens.successor``."""
    confirmed_at: Seconds | None = None
    """When the current token was first presented, if it came by rotation."""
    authenticated_at: Seconds | None = None
    """When the principal last logged in; None in records from before this was kept."""

    def __repr__(self) -> str:
        return f"<Meta epoch={self.epoch} principal={self.principal!r}>"


META_FIELDS: tuple[str, ...] = Meta.__struct_fields__
MONOTONIC_FIELDS = frozenset({"last_seen_at", "expires_at"})
"""Fields that only ever move forward, whoever commits last (C4)."""


class _ForHandle(msgspec.Struct, frozen=True, gc=False):
    """What concerns one handle. Its repr shows no values and no digests (S9)."""

    handle: str

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.handle!r}>"


class Record(_ForHandle, frozen=True, gc=False):
    """What a store keeps for one handle."""

    meta: Meta
    values: dict[str, bytes]


class Create(_ForHandle, frozen=True, gc=False):
    """Store a new record; CONFLICT if the handle is live."""

    meta: Meta
    values: Mapping[str, bytes]


class Apply(_ForHandle, frozen=True, gc=False):
    """Change a live record; GONE if there is none, CONFLICT if it is not as expected.

    ``expect`` names the bytes that keys must still hold (None = absent), and
    ``expect_token`` the token digest. ``meta`` holds the changed fields only;
    `MONOTONIC_FIELDS` never move back. ``principal`` is a hint: whose session it was
    when the caller read it. A store whose index by principal lives elsewhere keeps it
    up to date by that, without asking first; it must not depend on it.
    """

    set: Mapping[str, bytes] = {}
    unset: Collection[str] = ()
    expect: Mapping[str, bytes | None] = {}
    expect_token: bytes | None = None
    meta: Mapping[str, Any] = {}
    principal: str | None = None


class Delete(_ForHandle, frozen=True, gc=False):
    """End a record; APPLIED if a live one was there, else GONE.

    ``principal`` is a hint, as with `Apply`. With ``expect_token``, a live record that
    has another token stays, and that is a CONFLICT. A store that ends it all the same
    breaks no other promise; only sessions on which somebody logs in, while it is found
    out which ones are to be ended, end as well.
    """

    reason: str = "destroyed"
    principal: str | None = None
    expect_token: bytes | None = None


Change: TypeAlias = Create | Apply | Delete
Loaded: TypeAlias = Record | CodecError | StoreError | None
"""A live record, or why there is none: it cannot be read, or not now, or is missing."""


class Outcome(enum.Enum):
    """What became of one change."""

    APPLIED = "applied"
    GONE = "gone"
    CONFLICT = "conflict"


class EndListener(Protocol):
    """Who wants to know which sessions end; all methods return at once."""

    def ended(self, handle: str, reason: str) -> None:
        """Hear that the session *handle* ended; hearing it twice does no harm."""

    def connected(self) -> None:
        """Hear that from now on no end is missed. Before, some may have been."""


def merged_meta(meta: Meta, changes: Mapping[str, Any]) -> Meta:
    """Return *meta* with *changes*, where the monotonic fields never move back."""
    if not changes:
        return meta
    for name in MONOTONIC_FIELDS:
        if name in changes and changes[name] < getattr(meta, name):
            changes = {**changes, name: getattr(meta, name)}
    return msgspec.structs.replace(meta, **changes)


def merged_record(record: Record, change: Apply) -> Record | None:
    """Return *record* with *change* applied, or None if it is not as expected."""
    if change.expect_token is not None and change.expect_token != record.meta.token:
        return None
    values = record.values
    if any(values.get(key) != raw for key, raw in change.expect.items()):
        return None
    unset = frozenset(change.unset)  # a list would make this quadratic
    kept = {key: raw for key, raw in values.items() if key not in unset}
    meta = merged_meta(record.meta, change.meta)
    return Record(record.handle, meta, {**kept, **change.set})


def unusable(error: Exception) -> StoreError:
    """Return the answer to a change that no store can keep, for *error* (R1)."""
    failure = StoreError(f"this change cannot be stored: {error}")
    failure.__cause__ = error
    return failure


def checked_namespace(namespace: str) -> str:
    """Return *namespace* if it can be part of every database's names (R5)."""
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        raise ConfigurationError(
            f"the namespace is {namespace!r}; use 1 to 64 letters, digits, _ and -"
        )
    return namespace


class Store(ABC):
    """Keeps records, in batches.

    Args:
        clock: Where the store takes the time from; `time.time` by default. The
            manager uses the same clock, so that expiry has one source.
    """

    immediate: ClassVar[bool] = False
    """True if no method ever suspends: calls are then made without batching."""
    parallel: ClassVar[int] = 1
    """How many batches of one kind may be under way at once."""
    expires_natively: bool = False
    """True if the database deletes expired records itself: no sweeper is started."""
    shared: ClassVar[bool] = True
    """True if several processes see the same records."""

    def __init__(self, *, clock: Clock = time.time) -> None:
        self.clock = clock

    async def open(self) -> None:
        """Get ready; called before the first use in each event loop. Idempotent."""

    async def close(self) -> None:
        """Release what `open` took, and nothing that was handed in. Idempotent."""

    @abstractmethod
    async def load(self, handles: Sequence[str]) -> list[Loaded]:
        """Return the live record of each handle, in order.

        None is a record that is missing or expired. A record that is there but cannot
        be read (truncated, written by another version) is a `CodecError` in its place,
        and one that the database fails to give, unlike its neighbours, a `StoreError`.

        Raises:
            StoreError: The database failed.
        """

    @abstractmethod
    async def commit(self, changes: Sequence[Change]) -> list[Outcome | Exception]:
        """Carry out each change atomically and return what became of it, in order.

        Raises:
            StoreError: The database failed; whether changes were carried out is open.
        """

    @abstractmethod
    async def find(self, principal: str) -> list[Record]:
        """Return the live records of *principal*, in no particular order."""

    @abstractmethod
    async def sweep(self, limit: int) -> int:
        """Delete at most *limit* expired records and return how many it were.

        Fewer than *limit* means that none is left for now.
        """

    @abstractmethod
    def iterate(self, batch: int = 256) -> AsyncIterator[Record]:
        """Yield the live records, reading *batch* of them at a time.

        What is created or ended meanwhile may or may not be among them. Unreadable
        records are left out.
        """

    @abstractmethod
    async def count(self) -> int:
        """Return the number of live records."""

    @abstractmethod
    async def clear(self) -> None:
        """Delete every record of this store's namespace, and nothing else."""

    async def listen(self, listener: EndListener) -> None:
        """Tell *listener* of every `Delete` that is applied, by whichever process (W1).

        Runs until it is cancelled. It calls ``connected`` as soon as nothing is missed
        any more, and again whenever something may have been.

        What is here knows no way to hear of ends: twice a second it says that some may
        have been missed, and each session that somebody waits for is looked at.

        Raises:
            StoreError: The database failed; it is called again then.
        """
        while True:
            listener.connected()
            await asyncio.sleep(LOOK_EVERY)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
