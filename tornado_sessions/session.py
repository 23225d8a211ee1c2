"""The mapping that a handler sees, with per-key change tracking.

A `Session` does no I/O on access and knows no store: it decodes a key when it is first
touched, and can say afterwards which keys hold other bytes than those loaded. What only
the manager can do (`save`, `refresh`, `mutate`) it passes to its `SessionOwner`.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple, Protocol

from tornado_sessions.codecs import Codec
from tornado_sessions.cookie import Ticket
from tornado_sessions.errors import CodecError, SessionError
from tornado_sessions.stores.base import Meta, Record
from tornado_sessions.tokens import random_id

MAX_PRINCIPAL = 1024
"""Characters that a principal may have."""
_SCALARS = frozenset({str, int, float, bool, type(None), bytes})
_FLASH = "\0flash:"


class CookieDue(enum.Enum):
    """What the response has to do with the cookie."""

    KEEP = "keep"
    SEND = "send"
    CLEAR = "clear"


class Visit(NamedTuple):
    """What the manager needs to know of a request. Without one, the defaults hold."""

    ip: str = ""
    user_agent: str = ""
    started: bool = False
    """The headers have left: no cookie can be sent any more."""
    insecure: bool = False
    """The cookie is for https only and this is plain http."""


@dataclass(frozen=True)
class Flash:
    """A message that is shown once."""

    message: Any
    category: str = "info"


class SessionOwner(Protocol):
    """What a session asks of its manager."""

    def now(self) -> float: ...

    def expiry(self, session: Session) -> float: ...

    def undecodable(self, session: Session, error: CodecError) -> None: ...

    async def save(self, session: Session) -> None: ...

    async def refresh(self, session: Session) -> None: ...

    async def mutate(
        self, session: Session, key: str, fn: Callable[[Any], Any], default: Any
    ) -> Any: ...


class Session(MutableMapping[str, Any]):
    """The session of the current visitor: a dict with str keys, and its life cycle.

    Values may be str, int, float, bool, None, list, dict, datetime, date, timedelta,
    Decimal, UUID, bytes, set, frozenset and tuple, nested at will. They are written
    with the response, and only the keys whose value changed, in place or otherwise.

    Sessions are made by the manager; handlers find theirs in ``self.session``.
    """

    __slots__ = (
        "_assigned",
        "_base",
        "_codec",
        "_handle",
        "_owner",
        "_persistent",
        "_principal",
        "_removed",
        "_values",
        "cookie_due",
        "doomed",
        "ended",
        "login_pending",
        "record",
        "renewal_pending",
        "sealed",
        "stale_until",
        "ticket",
        "visit",
    )

    record: Record | None
    ticket: Ticket | None
    _base: Mapping[str, bytes]
    _handle: str | None
    _principal: str | None
    _persistent: bool | None
    _values: dict[str, Any]
    _assigned: set[str]
    _removed: set[str]

    def __init__(
        self, owner: SessionOwner, codec: Codec, visit: Callable[[], Visit] = Visit
    ) -> None:
        self._owner = owner
        self._codec = codec
        self.visit = visit
        self.doomed: str | None = None
        self.sealed: SessionError | None = None
        self.stale_until = 0.0
        self.ended = False
        self.cookie_due = CookieDue.KEEP
        self.adopt(None, None)

    # -- the mapping -------------------------------------------------------------
    # Inside, everything goes by the stored name of a key.

    def __getitem__(self, key: str) -> Any:
        name = stored_name(key)
        try:
            return self._values[name]
        except KeyError:
            return self._decoded(name)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"session keys must be str, not {type(key).__name__}")
        self._check_open()
        name = stored_name(key)
        self._removed.discard(name)
        self._assigned.add(name)
        self._values[name] = value

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._check_open()
        self._forget(stored_name(key))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._holds(stored_name(key))

    def __iter__(self) -> Iterator[str]:
        names = [*self._base, *(n for n in self._values if n not in self._base)]
        for name in names:
            if not name.startswith(_FLASH) and self._holds(name):
                yield name[1:] if name[:1] == "\0" else name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        state = "new" if self.is_new else f"handle={self.handle!r}"
        return f"<Session {state} keys={sorted(self)!r}>"

    def clear(self) -> None:
        """Remove every key; the session, its principal and its flashes go on."""
        self._check_open()
        for key in list(self):
            self._forget(stored_name(key))

    def _holds(self, name: str) -> bool:
        return name in self._values or (
            name in self._base and name not in self._removed
        )

    def _forget(self, name: str) -> None:
        self._values.pop(name, None)
        self._assigned.discard(name)
        self._removed.add(name)

    def _decoded(self, name: str) -> Any:
        """Decode *name* from what was loaded; KeyError if it is absent or broken."""
        raw = None if name in self._removed else self._base.get(name)
        if raw is None:
            raise KeyError(shown(name))
        try:
            value = self._codec.decode(raw)
        except CodecError as error:
            message = f"{shown(name)}: {error}"
            self._owner.undecodable(self, CodecError(message, shown(name)))
            raise KeyError(shown(name)) from error
        self._values[name] = value
        return value

    def _check_open(self) -> None:
        if self.sealed is not None:
            raise self.sealed

    # -- what is known of it -----------------------------------------------------

    @property
    def handle(self) -> str:
        """The public name of this session: stable for life, and opens nothing."""
        if self._handle is None:
            self._handle = random_id()
        return self._handle

    @property
    def is_new(self) -> bool:
        """True as long as no store knows this session."""
        return self.record is None

    @property
    def modified(self) -> bool:
        """True if the commit will write something that the application changed."""
        if self.login_pending or self.renewal_pending or self.doomed:
            return True
        try:
            changed, removed = self.changes()
        except CodecError:
            return True
        return bool(changed or removed) or self.persistence_changed

    @property
    def principal(self) -> str | None:
        """The application's id of the logged-in user, or None."""
        return self._principal

    @property
    def persistent(self) -> bool | None:
        """Whether the cookie outlives the browser; None = as configured."""
        return self._persistent

    @persistent.setter
    def persistent(self, value: bool | None) -> None:
        if value is not None and not isinstance(value, bool):
            raise TypeError("session.persistent must be True, False or None")
        self._check_open()
        self._persistent = value

    @property
    def persistence_changed(self) -> bool:
        """True if `persistent` was set to another value than the record holds."""
        return self.record is not None and (
            self._persistent != self.record.meta.persistent
        )

    @property
    def created_at(self) -> datetime:
        """When the session began (aware, UTC); now, if it is new."""
        return aware(self.record.meta.created_at if self.record else self._now())

    @property
    def last_seen_at(self) -> datetime:
        """The last use that was recorded (aware, UTC): at most 5 % of the idle timeout
        before the real one."""
        return aware(self.record.meta.last_seen_at if self.record else self._now())

    @property
    def expires_at(self) -> datetime:
        """When the session ends if it is not used any more (aware, UTC)."""
        return aware(self._owner.expiry(self))

    @property
    def now_at(self) -> datetime:
        """The time by the manager's clock (aware, UTC)."""
        return aware(self._now())

    def _now(self) -> float:
        return self._owner.now()

    # -- intents: recorded here, performed by the commit -------------------------

    def login(self, principal: str) -> None:
        """Attach *principal*: a new token goes out with the response, data stay.

        Args:
            principal: The application's id of the user, 1 to 1024 characters.
        """
        if not isinstance(principal, str):  # callers need not be type-checked
            kind = type(principal).__name__
            raise TypeError(f"the principal must be a str, not {kind}; use str(id)")
        if not 0 < len(principal) <= MAX_PRINCIPAL:
            raise ValueError(f"the principal must have 1 to {MAX_PRINCIPAL} characters")
        self._check_open()
        self._principal = principal
        self.login_pending = True

    def regenerate_id(self) -> None:
        """Send a new token with the response; data and principal stay."""
        self._check_open()
        self.renewal_pending = True

    def destroy(self) -> None:
        """End the session. What is written afterwards begins a new, unrelated one."""
        self._check_open()
        if self.record is not None:
            self.doomed = self.record.handle
        self.adopt(None, None)

    def flash(self, message: Any, category: str = "info") -> None:
        """Queue a message to be shown once, on this page or the next."""
        self._check_open()
        name = f"{_FLASH}{time.time_ns():020d}{len(self._values):04d}{random_id()}"
        self._values[name] = [category, message]
        self._assigned.add(name)

    def flashes(self) -> list[Flash]:
        """Return the queued messages, oldest first, and forget them."""
        names = {n for n in (*self._base, *self._values) if n.startswith(_FLASH)}
        queued = [name for name in sorted(names) if self._holds(name)]
        return [self._taken(name) for name in queued if self._holds(name)]

    def _taken(self, name: str) -> Flash:
        pending = self._values.get(name)
        category, message = pending if pending else self._decoded(name)
        self._forget(name)
        return Flash(message, category)

    # -- done by the manager -----------------------------------------------------

    async def save(self) -> None:
        """Commit what changed now, instead of with the response.

        Raises:
            StoreError: The store failed; nothing is known to be saved.
            CodecError: A value cannot be stored.
            ResponseStarted: A new session or token needs a cookie, too late.
        """
        await self._owner.save(self)

    async def refresh(self) -> None:
        """Read the session again; changes that were not saved are dropped."""
        await self._owner.refresh(self)

    async def mutate(
        self, key: str, fn: Callable[[Any], Any], default: Any = None
    ) -> Any:
        """Read, change and write one key in one atomic step, now.

        Args:
            key: The session key.
            fn: Takes the value (*default* if there is none) and returns the new one.
                It may be called again if another request was faster: it must have no
                effects of its own.
            default: What *fn* gets if the key is absent.

        Returns:
            The new value.

        Raises:
            SessionConflict: Others were faster too many times in a row.
        """
        return await self._owner.mutate(self, key, fn, default)

    # -- for the manager ---------------------------------------------------------

    def adopt(self, record: Record | None, ticket: Ticket | None) -> None:
        """Become what *record* says (None = a new session); changes are dropped."""
        self.record = record
        self.ticket = ticket
        self._base = record.values if record else {}
        self._handle = record.handle if record else None
        self._principal = record.meta.principal if record else None
        self._persistent = record.meta.persistent if record else None
        self._values = {}
        self._assigned = set()
        self._removed = set()
        self.login_pending = False
        self.renewal_pending = False

    @property
    def touched(self) -> bool:
        """True if anything was read, written or asked for since `close_request`."""
        asked = self.login_pending or self.renewal_pending or self.doomed is not None
        return bool(self._values or self._removed) or asked

    def close_request(self) -> None:
        """Forget the decoded values: what is touched from now on comes too late."""
        self._values = {}
        self._assigned.clear()
        self._removed.clear()

    def changes(self) -> tuple[dict[str, bytes], list[str]]:
        """Return the stored names to set, with their bytes, and those to unset.

        Raises:
            CodecError: A value cannot be stored; ``key`` names it.
        """
        changed = {}
        for name, value in self._values.items():
            if type(value) in _SCALARS and name not in self._assigned:
                continue
            raw = self.encode(name, value)
            if self._base.get(name) != raw:
                changed[name] = raw
        return changed, [name for name in self._removed if name in self._base]

    def encode(self, name: str, value: Any) -> bytes:
        """Return *value* as bytes; the `CodecError` names the key."""
        try:
            return self._codec.encode(value)
        except CodecError as error:
            key = shown(name)
            raise CodecError(f"session key {key!r}: {error}", key) from error

    def pending(self, name: str) -> bool:
        """Tell whether the stored name *name* holds a change that was not saved."""
        return name in self._assigned or name in self._removed

    def stored(self, name: str) -> bytes | None:
        """Return the bytes that the store is known to hold under *name*."""
        return self._base.get(name)

    def fresh(self, name: str, default: Any) -> Any:
        """Return a new copy of the stored value, or of *default* if there is none."""
        self._values.pop(name, None)
        try:
            return self._decoded(name)
        except KeyError:
            return deepcopy(default)
        finally:
            self._values.pop(name, None)

    def restore(self, name: str, raw: bytes | None) -> None:
        """Take *raw* as what the store holds under *name*, and forget the value."""
        others = {key: old for key, old in self._base.items() if key != name}
        self._base = others if raw is None else {**others, name: raw}
        self._values.pop(name, None)
        self._assigned.discard(name)
        self._removed.discard(name)

    def rebase(self, record: Record, ticket: Ticket | None) -> None:
        """Take *record* as what the store holds, now that the changes are in it."""
        self.record = record
        self.ticket = ticket
        self._base = record.values
        self._handle = record.handle
        self._principal = record.meta.principal
        self._persistent = record.meta.persistent
        self.login_pending = False
        self.renewal_pending = False

    def rebase_meta(self, meta: Meta) -> None:
        """Take *meta* as what the store holds; the values stay as they were loaded."""
        assert self.record is not None
        self.record = Record(self.record.handle, meta, self.record.values)

    def note_cookie(self, due: CookieDue, ticket: Ticket | None) -> None:
        """Remember what the response has to do; nothing takes that back but an end."""
        if due is not CookieDue.KEEP:
            self.cookie_due = due
            self.ticket = ticket


def stored_name(key: str) -> str:
    """Return the name under which a store keeps *key*.

    Names that begin with exactly one NUL are this library's own (flashes), so a key of
    the application that begins with NUL gets one more. No key is reserved.
    """
    if not isinstance(key, str):
        raise KeyError(key)
    return "\0" + key if key[:1] == "\0" else key


def shown(name: str) -> str:
    """Return what an error calls *name*."""
    if name.startswith(_FLASH):
        return "flash message"
    return name[1:] if name[:1] == "\0" else name


def aware(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
