"""Records as documents.

A document has

* ``_id``: the handle;
* a field for each field of `Meta` that is not None;
* ``values``: an object with the encoded values, under escaped keys;
* ``ttl``: a date by the server's clock, for the TTL index and nothing else.
"""

from __future__ import annotations

import math
import re
import time
import typing
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from tornado_sessions.errors import CodecError
from tornado_sessions.stores.base import META_FIELDS, Clock, Create, Meta, Record
from tornado_sessions.stores.mongo_driver import DatetimeMS, encode

_ESCAPED = re.compile("[%.$\0\ud800-\udfff]")
_ESCAPE = re.compile("%([0-9a-f]{4})?")
_EMPTY = "%"


def _accepted(kind: Any) -> tuple[Any, ...]:
    kinds = typing.get_args(kind) or (kind,)
    return (*kinds, int) if float in kinds else kinds


_KINDS = {name: _accepted(kind) for name, kind in typing.get_type_hints(Meta).items()}
_INT_BITS = 63
_MAX_HANDLE = 1 << 10
_LARGE = 1 << 20
_WRAPPING = 128
"""Bytes around a value in an update, at most."""
_MAX_DOCUMENT = 16 << 20
_END_OF_TIME = 253402300799.0
_TTL_STEP = 60.0


def is_text(name: str) -> bool:
    """Tell whether BSON can hold *name* as text: not if it has lone surrogates."""
    return name.isascii() or not any("\ud800" <= char <= "\udfff" for char in name)


def is_handle(name: str) -> bool:
    """Tell whether *name* can be a handle: text of at most 1 KiB."""
    return is_text(name) and len(name.encode()) <= _MAX_HANDLE


def escaped(key: str) -> str:
    """Return a field name for *key*: any str, while names know no dot and no NUL."""
    return _ESCAPED.sub(lambda m: f"%{ord(m[0]):04x}", key) if key else _EMPTY


def unescaped(name: str) -> str:
    """Return the key that was `escaped`; ValueError if none was."""
    if "%" not in name:
        return name
    if name == _EMPTY:
        return ""
    return _ESCAPE.sub(lambda m: chr(int(m[1] or "", 16)), name)


def raw_value(value: bytes) -> bytes:
    """Return *value*; TypeError if it is none that a store may keep."""
    if not isinstance(value, bytes):
        raise TypeError(f"a stored value must be bytes, not {type(value).__name__}")
    return bytes(value)


def meta_value(name: str, value: Any) -> Any:
    """Return the field *name* of a `Meta`; an error says that BSON cannot hold it."""
    if name not in _KINDS:
        raise ValueError(f"unknown meta field {name!r}")
    if not isinstance(value, _KINDS[name]):
        raise TypeError(f"{name} cannot be of the type {type(value).__name__}")
    if isinstance(value, str) and not is_text(value):
        raise ValueError(f"{name} has lone surrogates")
    if isinstance(value, int) and value.bit_length() > _INT_BITS:
        raise ValueError(f"{name} is too large")
    return value


def ttl_date(expires_at: float, clock: Clock) -> DatetimeMS:
    """Return when the server may delete what expires at *expires_at*, by its own clock.

    In whole minutes, rounded up: the TTL monitor looks once a minute, and what a
    visitor does within the same minute then leaves the index alone.
    """
    real = min(time.time() + (expires_at - clock()), _END_OF_TIME)
    return DatetimeMS(int(math.ceil(real / _TTL_STEP) * _TTL_STEP * 1000))


def document_of(change: Create, clock: Clock) -> dict[str, Any]:
    """Return the document that *change* stores; an error says that it cannot be."""
    if not is_handle(change.handle):
        raise ValueError("a handle is a text of at most 1 KiB")
    fields = {
        name: meta_value(name, getattr(change.meta, name)) for name in META_FIELDS
    }
    document = {
        "_id": change.handle,
        **{name: value for name, value in fields.items() if value is not None},
        "ttl": ttl_date(change.meta.expires_at, clock),
        "values": {escaped(key): raw_value(raw) for key, raw in change.values.items()},
    }
    check_size([*change.values.items(), *fields.items()], document)
    return document


def check_size(items: Collection[tuple[str, Any]], document: Mapping[str, Any]) -> None:
    """Refuse a *document* of these items if the driver would, and the batch with it."""
    size = _WRAPPING * len(items)
    for name, value in items:
        size += len(name) + (len(value) if isinstance(value, (bytes, str)) else 0)
    # Encoding twice is for those that could be too large at all.
    if size > _LARGE and len(encode(document)) > _MAX_DOCUMENT:
        raise ValueError(f"it has about {size} bytes; a document may hold 16 MiB")


def record_of(document: Mapping[str, Any], now: float) -> Record | CodecError | None:
    """Return the record in *document*; None if it has expired, or why there is none."""
    handle, expires_at = document.get("_id"), document.get("expires_at")
    if isinstance(expires_at, (int, float)) and not expires_at > now:
        return None
    try:
        # Whoever has the password may write anything: what is there is checked here.
        meta = msgspec.convert(document, Meta, builtin_types=(bytes,))
        values = {
            unescaped(name): raw_value(raw) for name, raw in document["values"].items()
        }
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        return CodecError(f"its document in the database is malformed: {error}")
    if type(handle) is not str:
        return CodecError("its document in the database has no text as its _id")
    return Record(handle, meta, values)
