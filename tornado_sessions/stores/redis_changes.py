"""Changes, as the operations that the script in Redis carries out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tornado_sessions.stores.base import (
    META_FIELDS,
    MONOTONIC_FIELDS,
    Apply,
    Change,
    Create,
    Delete,
)
from tornado_sessions.stores.redis_ends import end_message
from tornado_sessions.stores.redis_layout import (
    Layout,
    meta_field,
    raw_value,
    value_field,
)

_NO_CLOCKS = dict.fromkeys(MONOTONIC_FIELDS, b"")
_NONE = (b"0",)
SLACK = 3600.0
"""Seconds for which an index keeps what is over, at least: clocks of servers differ."""


class Operation(msgspec.Struct):
    """One thing that the script in `COMMIT` does.

    Args:
        kind: Which one; the script describes the keys and arguments of each.
        slot: What is equal for operations that may share a call in a cluster.
        keys: The keys that it touches.
        args: The rest.
        index: In a cluster, the operation on the index by principal, which is elsewhere.
        index_first: True if the index has to have it before the record (R4).
    """

    kind: bytes
    slot: int | bytes
    keys: list[bytes]
    args: list[bytes]
    index: Operation | None = None
    index_first: bool = False

    def words(self) -> list[bytes]:
        """Return it as the script reads it."""
        return [self.kind, b"%d" % len(self.keys), b"%d" % len(self.args), *self.args]


class Operations:
    """Makes operations.

    Args:
        layout: Where things are.
        by_slot: True in a cluster, where the index by principal is on another server
            than the record: each has an operation of its own then.
    """

    def __init__(self, layout: Layout, *, by_slot: bool) -> None:
        self._layout = layout
        self._by_slot = by_slot

    def of(self, change: Change, now: float) -> Operation:
        """Return the operation for *change*; an error if it cannot be stored."""
        if isinstance(change, Create):
            return self._create(change)
        if isinstance(change, Apply):
            return self._apply(change, now)
        return self._delete(change)

    def index(self, principal: str, handle: bytes, expires: bytes) -> Operation:
        """Put *handle* into the index of *principal*."""
        key = self._layout.principal(principal)
        return Operation(b"index", key, [key], [handle, expires])

    def unindex(self, principal: str, handle: bytes, score: bytes = b"") -> Operation:
        """Take *handle* out of it, unless it was moved since it had *score*."""
        key = self._layout.principal(principal)
        return Operation(b"unindex", key, [key], [handle, score])

    def sweep(self, handle: str) -> Operation:
        """Delete a record that is over, and take it out of the index of the live."""
        return self._on_record(b"sweep", handle)

    def _create(self, change: Create) -> Operation:
        meta = change.meta
        written: list[bytes] = []
        for name in META_FIELDS:
            value = getattr(meta, name)
            if value is not None:
                written += (name.encode(), meta_field(name, value))
        expires = meta_field("expires_at", meta.expires_at)
        _put_values(written, change.values)
        operation = self._on_record(b"create", change.handle, expires, *written)
        self._keep_index(operation, meta.principal, expires, first=True)
        return operation

    def _apply(self, change: Apply, now: float) -> Operation:
        clocks, written, removed = _meta_changes(change.meta)
        token, expires = change.expect_token, clocks["expires_at"]
        expected = b"" if token is None else meta_field("token", token)
        number, key, raw = self._layout.place(change.handle)
        args = [raw, expires, clocks["last_seen_at"], expected, b""]
        keys = [key, self._layout.live[number]]
        operation = Operation(b"apply", number, keys, args)
        principal = change.meta.get("principal", change.principal)
        if principal is not None:
            if expires or not self._by_slot:
                args[4] = meta_field("principal", principal)
            # Without an expiry a place is kept until the script tells the one there is.
            until, first = expires or b"%r" % (now + SLACK), "principal" in change.meta
            self._keep_index(operation, principal, until, first=first)
        if change.unset:
            gone = [name for name in change.unset if name not in change.set]
            removed += map(value_field, gone)
        _put_values(written, change.set)
        args += _expectations(change.expect) if change.expect else _NONE
        args += (b"%d" % len(removed), *removed, *written)
        return operation

    def _delete(self, change: Delete) -> Operation:
        message = end_message(change.handle, change.reason)
        token = change.expect_token
        expected = b"" if token is None else meta_field("token", token)
        operation = self._on_record(b"delete", change.handle, b"", message, expected)
        if change.principal is not None and not self._by_slot:
            operation.keys.append(self._layout.principal(change.principal))
            operation.args[1] = meta_field("principal", change.principal)
        return operation

    def _on_record(self, kind: bytes, handle: str, *args: bytes) -> Operation:
        number, key, raw = self._layout.place(handle)
        keys = [key, self._layout.live[number]]
        return Operation(kind, number, keys, [raw, *args])

    def _keep_index(
        self,
        operation: Operation,
        principal: str | None,
        expires: bytes,
        *,
        first: bool,
    ) -> None:
        """Have the index of *principal* hold what *operation* writes."""
        if principal is None:
            return
        if not self._by_slot:
            operation.keys.append(self._layout.principal(principal))
        else:
            operation.index = self.index(principal, operation.args[0], expires)
            operation.index_first = first


def _put_values(written: list[bytes], values: Mapping[str, bytes]) -> None:
    for name, value in values.items():
        written += (value_field(name), raw_value(value))


def _expectations(expect: Mapping[str, bytes | None]) -> list[bytes]:
    packed = [b"%d" % len(expect)]
    for name, raw in expect.items():
        held = (b"0", b"") if raw is None else (b"1", raw_value(raw))
        packed += (value_field(name), *held)
    return packed


def _meta_changes(
    changes: Mapping[str, Any],
) -> tuple[dict[str, bytes], list[bytes], list[bytes]]:
    """Return the clocks, fields and values to set, and the fields to remove.

    The clocks only move forward: the script compares them first.
    """
    clocks = dict(_NO_CLOCKS)
    written: list[bytes] = []
    removed: list[bytes] = []
    for name, value in changes.items():
        raw = meta_field(name, value)
        if name in clocks:
            clocks[name] = raw
        elif value is None:
            removed.append(name.encode())
        else:
            written += (name.encode(), raw)
    return clocks, written, removed
