"""The mapping that a handler sees, with per-key change tracking.

A `Session` does no I/O on access and knows no store: it decodes a key when it is first
touched, and can say afterwards which keys hold other bytes than those loaded. What only
the manager can do (`save`, `refresh`, `mutate`) it passes to its `SessionOwner`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from tornado_sessions.attempts import NO_ATTEMPTS
from tornado_sessions.clocked import Clock, ClockedMapping
from tornado_sessions.codecs import Codec
from tornado_sessions.cookie import CookieDue, Ticket
from tornado_sessions.encrypted_values import EncryptedValues
from tornado_sessions.errors import CodecError, ResponseStarted
from tornado_sessions.principal import checked_principal
from tornado_sessions.stale import NOT_STALE, stale_by
from tornado_sessions.stores.base import Delete, Meta, Record
from tornado_sessions.tokens import random_id
from tornado_sessions.values import Values
from tornado_sessions.visit import Visit

if TYPE_CHECKING:
    from tornado_sessions.encryption import Keyring

Intents: TypeAlias = "tuple[str | None, bool, Delete | None]"
"""Who is to be logged in, whether the token is to be new, and what is to be ended."""
NO_INTENTS: Intents = (None, False, None)


class SessionOwner(Clock, Protocol):
    """What a session asks of its manager."""

    def undecodable(self, session: Session, error: CodecError) -> None: ...

    async def save(self, session: Session) -> None: ...

    async def refresh(self, session: Session) -> None: ...

    async def mutate(
        self, session: Session, key: str, fn: Callable[[Any], Any], default: Any
    ) -> Any: ...


class Session(ClockedMapping):
    """The session of the current visitor: a dict with str keys, and its life cycle.

    Values may be str, int, float, bool, None, list, dict, datetime, date, timedelta,
    Decimal, UUID, bytes, set, frozenset and tuple, nested at will. They are written
    with the response, and only the keys whose value changed, in place or otherwise.

    Sessions are made by the manager; handlers find theirs in ``self.session``.
    """

    __slots__ = (
        "_codec",
        "_first",
        "_handle",
        "_keyring",
        "_persistent",
        "attempts",
        "cookie_due",
        "doomed",
        "doomed_epoch",
        "ended",
        "generation",
        "held",
        "outlives_request",
        "presented",
        "renewal_pending",
        "stale",
        "ticket",
        "visit",
        "waited_in_vain",
    )

    _owner: SessionOwner
    ticket: Ticket | None
    presented: Ticket | None
    _first: Ticket | None
    _handle: str | None
    _persistent: bool | None

    def __init__(
        self,
        owner: SessionOwner,
        codec: Codec,
        visit: Callable[[], Visit] = Visit,
        record: Record | None = None,
        ticket: Ticket | None = None,
        *,
        keyring: Keyring | None = None,
    ) -> None:
        self._owner = owner
        self._codec = codec
        self._keyring = keyring
        self.visit = visit
        self.doomed: Delete | None = None
        self.doomed_epoch = 0
        self.attempts = NO_ATTEMPTS
        self.sealed = None
        self.stale = NOT_STALE
        self.generation = 0
        self.ended = False
        self.waited_in_vain = False
        self.outlives_request = False
        self.held: Callable[[], Awaitable[None]] | None = None
        """Waits until the response is out that stores it, once one does."""
        self.cookie_due = CookieDue.KEEP
        self.presented = ticket
        self.adopt(record, ticket)

    def __repr__(self) -> str:
        state = "new" if self.is_new else f"handle={self.handle!r}"
        return f"<Session {state} keys={sorted(self)!r}>"

    def undecodable(self, error: CodecError) -> None:
        """Become a new session: the record of this one cannot be read (S6)."""
        self._owner.undecodable(self, error)

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
            changed, removed = self.stored.changes()
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
        self.check_open()
        self._persistent = value

    @property
    def persistence_changed(self) -> bool:
        """True if `persistent` was set to another value than the record holds."""
        record = self.record
        return record is not None and self._persistent != record.meta.persistent

    # -- intents: recorded here, performed by the commit -------------------------

    def login(self, principal: str) -> None:
        """Attach *principal*: a new token goes out with the response, data stay.

        Args:
            principal: The application's id of the user, 1 to 1024 characters.

        Raises:
            TypeError: It is not a str.
            ValueError: It is too short or too long.
            ResponseStarted: This is an open WebSocket: no cookie can be sent.
        """
        principal = checked_principal(principal)
        self.check_open()
        self._check_cookie_can_leave("log in")
        self._principal = principal
        self.login_pending = True
        self.waited_in_vain = False

    def regenerate_id(self) -> None:
        """Send a new token with the response; data and principal stay.

        Raises:
            ResponseStarted: This is an open WebSocket: no cookie can be sent.
        """
        self.check_open()
        self._check_cookie_can_leave("call regenerate_id()")
        self.renewal_pending = True
        self.waited_in_vain = False

    def destroy(self) -> None:
        """End the session. What is written afterwards begins a new, unrelated one."""
        self.check_open()
        known = self.record
        if known is not None:
            self.doomed = Delete(known.handle, principal=known.meta.principal)
            self.doomed_epoch = known.meta.epoch
        if not self.outlives_request:
            self.ended = False  # by somebody else; this is the end that was asked for
        self.waited_in_vain = False
        self.adopt(None, None)

    def _check_cookie_can_leave(self, what: str) -> None:
        if self.outlives_request:
            raise ResponseStarted(
                f"cannot {what} in an open WebSocket, since no cookie can be sent; "
                "do it in an ordinary request, then open a new socket"
            )

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

    @property
    def touched(self) -> bool:
        """True if anything was read, written or asked for since the last plan."""
        return self.asked or self.persistence_changed or self.stored.touched

    @property
    def asked(self) -> bool:
        """True if a login, a new token or an end was asked for since the last plan."""
        return self.login_pending or self.renewal_pending or self.doomed is not None

    @property
    def intents(self) -> Intents:
        """What was asked for. A plan that has it sets `NO_INTENTS` instead."""
        login = self._principal if self.login_pending else None
        return login, self.renewal_pending, self.doomed

    @intents.setter
    def intents(self, value: Intents) -> None:
        login, self.renewal_pending, self.doomed = value
        self.login_pending = login is not None

    def resume(self, intents: Intents, generation: int) -> None:
        """Ask again for *intents*, which failed, beside what was asked for since then.

        Args:
            intents: What was asked for.
            generation: When; another life of the session wants no login of an earlier one.
        """
        login, renewal, doomed = intents
        self.doomed = self.doomed or doomed
        if self.generation == generation:
            self.renewal_pending |= renewal
            if login is not None and not self.login_pending:
                self._principal, self.login_pending = login, True

    def first_ticket(self) -> Ticket:
        """Return what a new session begins with, the same each time it is tried."""
        if self._first is None:
            self._first = Ticket(self.handle, random_id(), 0, handed_out=True)
        return self._first

    @property
    def began_here(self) -> bool:
        """True if this request stored the session for the first time, or will."""
        return self._first is not None

    def adopt(self, record: Record | None, ticket: Ticket | None) -> None:
        """Become what *record* says (None = a new session); changes are dropped."""
        self.generation += 1
        self.login_pending = False
        self.renewal_pending = False
        self._first = None
        self.record = record
        self.ticket = ticket
        if record is None:
            self._handle = self._principal = self._persistent = None
        else:
            self._handle = record.handle
            self._principal = record.meta.principal
            self._persistent = record.meta.persistent
        loaded = record.values if record else {}
        if self._keyring is None:
            self.stored = Values(self._codec, loaded)
        else:
            cipher = self._keyring.cipher(self.handle)
            self.stored = EncryptedValues(self._codec, loaded, cipher)

    def begin_apart(self, stored: Mapping[str, bytes]) -> None:
        """Become a new session with the same principal, and the values in *stored*."""
        known, principal, persistent = self.stored, self._principal, self._persistent
        known.loaded = stored
        values = {name: known.get(name) for name in known}
        self.adopt(None, None)
        self._principal, self._persistent = principal, persistent
        for name, value in values.items():
            self.stored.set(name, value)

    def begin_without(self) -> None:
        """Become a new session with what this request knows: its record is broken (S6).

        Where no cookie can be sent any more it knows nothing: then it could not begin, and
        the record would stay.
        """
        if self.outlives_request or self.visit().started:
            self.adopt(None, None)
            return
        login = self._principal if self.login_pending else None
        persistent = self._persistent if self.persistence_changed else None
        assigned = self.stored.assigned()
        self.adopt(None, None)
        self._persistent = persistent
        if login is not None:
            self._principal, self.login_pending = login, True
        for name, value in assigned.items():
            self.stored.set(name, value)

    def step_aside(self, record: Record) -> None:
        """Become a new session: by *record*, somebody logged in on this one (C6)."""
        self.adopt(None, None)
        self.stale = stale_by(record)

    def admits(self, record: Record) -> bool:
        """Tell whether *record* is still of the epoch that this request is in (C6)."""
        return self.record is None or self.record.meta.epoch == record.meta.epoch

    def fresh(self, name: str, default: Any) -> Any:
        """Return a copy of what is stored under *name*, or of *default*."""
        try:
            return self.stored.fresh(name, default)
        except CodecError as error:
            self.undecodable(error)
            return self.stored.fresh(name, default)

    def rebase(
        self, record: Record, ticket: Ticket | None, *, dropped: bool = False
    ) -> None:
        """Take *record* as what the store holds, now that the changes are in it.

        What was asked for since they were planned is still to come. If data were
        *dropped*, so is how long the cookie was to live.
        """
        self.record = record
        self.ticket = ticket
        self.stored.loaded = record.values
        self._handle = record.handle
        if not self.login_pending:
            self._principal = record.meta.principal
        if dropped:
            self._persistent = record.meta.persistent

    def rebase_meta(self, meta: Meta) -> None:
        """Take *meta* as what the store holds; the values stay as they were loaded."""
        assert self.record is not None
        if not self.persistence_changed:
            self._persistent = meta.persistent
        self.record = Record(self.record.handle, meta, self.record.values)

    def note_cookie(self, due: CookieDue, ticket: Ticket | None) -> None:
        """Remember what the response has to do, until a newer token or an end is met."""
        if due is not CookieDue.KEEP:
            self.cookie_due = due
            self.ticket = ticket
