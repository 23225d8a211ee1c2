"""Where things are in Redis, and how a record is written there.

One hash for each session: a field for each field of `Meta`, as JSON, so that the
script can put them together and one C decoder reads the lot; and a field for each value,
its name with a colon before it.

A record, and the index of the live records beside it, have a **tag** in their names,
one of 256. A cluster keeps what has the same tag in one slot, so a script may touch both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias
from zlib import crc32

import msgspec

from tornado_sessions.errors import CodecError
from tornado_sessions.stores.base import META_FIELDS, Meta, Record

TAGS = tuple(b"{%02x}" % number for number in range(256))
"""Enough to spread evenly over the masters of a cluster, few enough to ask each."""

_Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_Entry: TypeAlias = tuple[Meta, list[_Size]] | str | None
_entries = msgspec.json.Decoder(list[_Entry])
"""What the script returns for a batch. Made here: msgspec must not be asked to set up
a type in two threads at once."""
_encoder = msgspec.json.Encoder()
_KNOWN = frozenset(META_FIELDS)
_OURS = (*TAGS, b"of:")
"""How keys go on after the namespace."""


def raw_text(text: str) -> bytes:
    """Return any str as bytes, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def text_of(raw: bytes) -> str:
    """Undo `raw_text`."""
    return raw.decode("utf-8", "surrogatepass")


class Layout:
    """The names of the keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._start = namespace.encode() + b":"
        self.channel = self._start + b"ended"
        """Where the end of each session is published; see `redis_ends`."""
        self.everything = self._start + b"*"
        """The pattern of all keys."""
        self.live = tuple(self._start + tag for tag in TAGS)
        """The indexes of the live records: handles by expiry."""
        self._records = tuple(name + b":" for name in self.live)

    def owns(self, key: bytes) -> bool:
        """Tell whether *key*, which begins like ours, is one: ``app:users`` is not."""
        return key.startswith(self._start) and key[len(self._start) :].startswith(_OURS)

    def place(self, handle: str) -> tuple[int, bytes, bytes]:
        """Return the number of its tag, the key of its record, and *handle* as bytes."""
        raw = handle.encode("utf-8", "surrogatepass")
        number = crc32(raw) & 0xFF
        return number, self._records[number] + raw, raw

    def principal(self, principal: str) -> bytes:
        """Return the key of the index of the records of *principal*."""
        return self._start + b"of:" + raw_text(principal)


def meta_field(name: str, value: object) -> bytes:
    """Return what a field of the meta holds; ValueError if there is no such field."""
    if name not in _KNOWN:
        raise ValueError(f"unknown meta field {name!r}")
    return _encoder.encode(value)


def principal_of(raw: bytes) -> str | None:
    """Return the principal that a field of the meta holds, or None if it is malformed."""
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def value_field(name: str) -> bytes:
    """Return the name of the field that holds the value of the key *name*."""
    return (":" + name).encode("utf-8", "surrogatepass")


def raw_value(value: bytes) -> bytes:
    """Return *value*; TypeError if it is none that a store may keep."""
    if not isinstance(value, bytes):
        raise TypeError(f"a stored value must be bytes, not {type(value).__name__}")
    return value


def records_of(handles: Sequence[str], reply: bytes) -> list[Record | str | None]:
    """Return the record of each handle, None, or the error that Redis has with it.

    Raises:
        CodecError: One of them is malformed.
    """
    size, _, rest = reply.partition(b" ")
    try:
        packed, blob = rest[: int(size)], rest[int(size) :]
        entries = _entries.decode(packed)
        records: list[Record | str | None] = []
        at = 0
        for handle, entry in zip(handles, entries, strict=True):
            if entry is None or isinstance(entry, str):
                records.append(entry)
                continue
            meta, sizes = entry
            values, at = _values(sizes, blob, at)
            records.append(Record(handle, meta, values))
    except (ValueError, RecursionError) as error:
        raise CodecError(f"its hash in Redis is malformed: {error}") from error
    if at != len(blob):
        raise CodecError("its hash in Redis is malformed: values are of another size")
    return records


def _values(sizes: list[int], blob: bytes, at: int) -> tuple[dict[str, bytes], int]:
    """Return names and values of these sizes from *blob*, and where they end."""
    values: dict[str, bytes] = {}
    for name_size, value_size in zip(sizes[::2], sizes[1::2], strict=True):
        middle = at + name_size
        end = middle + value_size
        name = blob[at:middle].decode("utf-8", "surrogatepass")
        values[name] = blob[middle:end]
        at = end
    return values, at
