"""Values to bytes and back, one key at a time.

`JSONCodec` writes plain JSON for JSON types, and tags the other types it knows as an
object with one ``$`` key, so that what comes back has the type that went in::

    {"when": datetime(2026, 1, 2)}   ->   {"when":{"$datetime":"2026-01-02T00:00:00"}}

A dict that looks like a tag itself is written as ``{"$dict": [[key, value], ...]}``.
Nothing here can run code from stored bytes: there is no pickle, not even to read.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

import msgspec

from tornado_sessions.errors import CodecError, ConfigurationError

MAX_DEPTH = 100
"""Nesting beyond this is refused: it is either circular or a mistake."""
_INT64 = range(-(2**63), 2**63)
_INFINITE = {"nan", "inf", "-inf"}
_COLLECTIONS = {list, tuple, set, frozenset}
_MALFORMED = (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)


class Codec(Protocol):
    """What ``session_codec`` takes: two pure functions.

    Equal values must give equal bytes, since a change is found by comparing them.
    Both raise `CodecError` for what they cannot do.
    """

    def encode(self, value: Any, /) -> bytes: ...

    def decode(self, raw: bytes, /) -> Any: ...


class JSONCodec:
    """Tagged JSON, for JSON types and a few more.

    It takes str, int, float, bool, None, list and dict with str keys, and datetime,
    date, timedelta, Decimal, UUID, bytes, set, frozenset and tuple.

    Types are exact: a subclass would not come back as what it was, so it is refused. A
    datetime with a named time zone comes back with the same instant and UTC offset.
    """

    def encode(self, value: Any, /) -> bytes:
        """Return *value* as bytes; `CodecError` if it holds another type."""
        return _to_json(_pack(value, 0))

    def decode(self, raw: bytes, /) -> Any:
        """Return the value that `encode` was given; `CodecError` if *raw* is none."""
        try:
            plain = _from_json(raw)
            value = _unpack(plain) if b'"$' in raw else plain
            # What could not be written again would be an error in every request.
            if len(raw) > MAX_DEPTH and raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
                _check_depth(value)
            return value
        except CodecError:
            raise
        except _MALFORMED:
            # The cause is left out: its message may quote the value (S9).
            message = "the stored bytes are not a value that this version wrote"
            raise CodecError(message) from None


_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder().decode


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for one in level for item in _items(one)]
    if level:
        raise CodecError(f"the stored value is nested deeper than {MAX_DEPTH} levels")


def _items(value: Any) -> Iterable[Any]:
    if type(value) is dict:
        return value.values()
    return value if type(value) in _COLLECTIONS else ()


def _pack(value: Any, depth: int) -> Any:
    pack = _PACKERS.get(type(value))
    if pack is None:
        raise CodecError(
            f"cannot store a {type(value).__module__}.{type(value).__qualname__}; "
            "store plain data (str, int, float, bool, None, list, dict, datetime, date, "
            "timedelta, Decimal, UUID, bytes, set, frozenset, tuple) instead"
        )
    if depth > MAX_DEPTH:
        raise CodecError(f"nested deeper than {MAX_DEPTH} levels, or circular")
    return pack(value, depth)


def _pack_str(value: str, _depth: int) -> Any:
    if value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value):
        return value
    return {"$str": _base64(value.encode("utf-8", "surrogatepass"))}


def _pack_int(value: int, _depth: int) -> Any:
    return value if value in _INT64 else {"$int": hex(value)}


def _pack_float(value: float, _depth: int) -> Any:
    return value if math.isfinite(value) else {"$float": repr(value)}


def _pack_datetime(value: datetime, _depth: int) -> Any:
    return {"$datetime": value.isoformat() + ("~" if value.fold else "")}


def _pack_timedelta(value: timedelta, _depth: int) -> Any:
    return {"$timedelta": [value.days, value.seconds, value.microseconds]}


def _pack_list(value: list[Any], depth: int) -> Any:
    return [_pack(item, depth + 1) for item in value]


def _pack_tuple(value: tuple[Any, ...], depth: int) -> Any:
    return {"$tuple": [_pack(item, depth + 1) for item in value]}


def _pack_set(value: set[Any] | frozenset[Any], depth: int) -> Any:
    items = [_pack(item, depth + 1) for item in value]
    return {f"${type(value).__name__}": sorted(items, key=_to_json)}


def _pack_dict(value: dict[Any, Any], depth: int) -> Any:
    for key in value:
        if type(key) is not str:
            kind = type(key).__name__
            raise CodecError(f"dict keys must be str, not {kind}: JSON has no other")
    if any(_unsafe(key) for key in value):
        pairs = [
            [_pack_str(key, depth), _pack(item, depth + 1)]
            for key, item in value.items()
        ]
        return {"$dict": pairs}
    return {key: _pack(item, depth + 1) for key, item in value.items()}


def _unsafe(key: str) -> bool:
    """Tell a key that reads as a tag, or that UTF-8 cannot express."""
    return key[:1] == "$" or type(_pack_str(key, 0)) is dict


def _base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode()


_PACKERS: dict[type, Callable[[Any, int], Any]] = {
    str: _pack_str,
    int: _pack_int,
    float: _pack_float,
    bool: lambda value, _depth: value,
    type(None): lambda value, _depth: value,
    list: _pack_list,
    dict: _pack_dict,
    tuple: _pack_tuple,
    set: _pack_set,
    frozenset: _pack_set,
    datetime: _pack_datetime,
    date: lambda value, _depth: {"$date": value.isoformat()},
    timedelta: _pack_timedelta,
    Decimal: lambda value, _depth: {"$decimal": str(value)},
    UUID: lambda value, _depth: {"$uuid": value.hex},
    bytes: lambda value, _depth: {"$bytes": _base64(value)},
}


def _unpack(plain: Any) -> Any:
    if type(plain) is list:
        return [_unpack(item) for item in plain]
    if type(plain) is not dict:
        return plain
    if len(plain) == 1:
        ((tag, content),) = plain.items()
        if tag[:1] == "$":
            return _unpack_tagged(tag, content)
    return {key: _unpack(item) for key, item in plain.items()}


def _unpack_tagged(tag: str, content: Any) -> Any:
    unpack = _UNPACKERS.get(tag)
    if unpack is None:
        raise CodecError(f"the stored tag {tag!r} is unknown to this version")
    return unpack(content)


def _unpack_datetime(text: str) -> datetime:
    return datetime.fromisoformat(text.rstrip("~")).replace(fold=text.endswith("~"))


def _unpack_float(text: str) -> float:
    if text not in _INFINITE:
        raise CodecError("the stored float is malformed")
    return float(text)


def _unpack_dict(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    value = {_unpack(key): _unpack(item) for key, item in pairs}
    if any(type(key) is not str for key in value):
        raise CodecError("a key of the stored dict is no str")
    return value


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_UNPACKERS: dict[str, Callable[[Any], Any]] = {
    "$str": lambda text: _unbase64(text).decode("utf-8", "surrogatepass"),
    "$int": lambda text: int(text, 16),
    "$float": _unpack_float,
    "$tuple": lambda items: tuple(_unpack(items)),
    "$set": lambda items: set(_unpack(items)),
    "$frozenset": lambda items: frozenset(_unpack(items)),
    "$dict": _unpack_dict,
    "$datetime": _unpack_datetime,
    "$date": date.fromisoformat,
    "$timedelta": lambda parts: timedelta(*parts),
    "$decimal": Decimal,
    "$uuid": lambda text: UUID(hex=text),
    "$bytes": _unbase64,
}

CODECS: dict[str, Codec] = {"json": JSONCodec()}
"""The codecs that ``session_codec`` knows by name."""


def codec_from(setting: object) -> Codec:
    """Return the codec that *setting* names or is."""
    if isinstance(setting, str) and setting in CODECS:
        return CODECS[setting]
    methods = (getattr(setting, name, None) for name in ("encode", "decode"))
    if not isinstance(setting, str) and all(map(callable, methods)):
        return setting  # type: ignore[return-value]  # checked just above
    raise ConfigurationError(
        f"session_codec is {setting!r}; use one of {sorted(CODECS)} "
        "or an object with encode(value) and decode(bytes)"
    )
