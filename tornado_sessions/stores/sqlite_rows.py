"""What is in the rows of a SQLite database. Its column types are advice only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tornado_sessions.errors import CodecError
from tornado_sessions.stores.base import META_FIELDS, MONOTONIC_FIELDS, Meta, Record

AFTER = """\
SELECT handle FROM {records}
WHERE handle > CAST(? AS TEXT) AND typeof(handle) = 'text' AND expires_at > ?
ORDER BY handle LIMIT ?"""
"""The live handles behind one. What is no text comes behind all that is, again and again."""


def is_text(name: str) -> bool:
    """Tell whether SQLite can hold *name* as text: not if it has lone surrogates."""
    return name.isascii() or not any("\ud800" <= char <= "\udfff" for char in name)


def blob(name: str) -> bytes:
    """Return the column value for *name*, which may be any str."""
    return name.encode("utf-8", "surrogatepass")


def raw_value(value: bytes) -> bytes:
    """Return *value*; TypeError if it is none that a store may keep."""
    if not isinstance(value, bytes):
        raise TypeError(f"a stored value must be bytes, not {type(value).__name__}")
    return value


def marks(items: Sequence[object]) -> str:
    """Return the place holders for so many *items*."""
    return ", ".join("?" * len(items))


def assignments(meta: Iterable[str]) -> str:
    """Return how an UPDATE sets these fields; ValueError if there is no such field."""
    unknown = set(meta) - set(META_FIELDS)
    if unknown:
        raise ValueError(f"unknown meta fields {sorted(unknown)}")
    return ", ".join(
        f"{name} = MAX({name}, ?)" if name in MONOTONIC_FIELDS else f"{name} = ?"
        for name in meta
    )


def record_of(
    row: tuple[Any, ...], pairs: list[tuple[bytes, bytes]]
) -> Record | CodecError:
    """Return the record in its row and its (name, value) pairs, or why there is none."""
    fields = dict(zip(META_FIELDS, row[1:], strict=True))
    try:
        # SQLite types are advice: what a row really holds is checked here.
        meta = msgspec.convert(fields, Meta, strict=False)
        values = {
            name.decode("utf-8", "surrogatepass"): raw_value(value)
            for name, value in pairs
        }
    except (ValueError, TypeError, AttributeError) as error:
        return CodecError(f"its rows in the database are malformed: {error}")
    return Record(row[0], meta, values)
