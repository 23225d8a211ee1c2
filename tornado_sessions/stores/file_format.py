"""What a session's file holds, and how it gets to the disk (POSIX only)."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import msgspec

from tornado_sessions.errors import CodecError, StoreError
from tornado_sessions.stores.base import Record

MAGIC = b"TSF1"
"""Begins each file: what it is, and the version of its format."""


class _Stored(msgspec.Struct, array_like=True):
    """What a file holds. Names are bytes: MessagePack has no lone surrogates."""

    record: Record
    names: list[bytes]
    values: list[bytes]

    def __repr__(self) -> str:
        return f"<_Stored {self.record.handle!r}>"


# Made once and here: msgspec crashes if threads work out the same type at once.
_decode = msgspec.msgpack.Decoder(_Stored).decode


def encoded(record: Record) -> bytes:
    """Return what the file of *record* holds."""
    names = [name.encode("utf-8", "surrogatepass") for name in record.values]
    values = list(record.values.values())
    if not all(isinstance(value, bytes) for value in values):
        raise TypeError("stored values must be bytes")
    bare = Record(record.handle, record.meta, {})
    body = msgspec.msgpack.encode(_Stored(bare, names, values))
    return MAGIC + zlib.crc32(body).to_bytes(4, "big") + body


def decoded(raw: bytes) -> Record | CodecError:
    """Return the record in *raw*, or why there is none."""
    body = raw[8:]
    if raw[:4] != MAGIC:
        return CodecError("its file was not written by this version")
    if zlib.crc32(body) != int.from_bytes(raw[4:8], "big"):
        return CodecError("its file is truncated or damaged")
    try:
        stored = _decode(body)
        names = (name.decode("utf-8", "surrogatepass") for name in stored.names)
        values = dict(zip(names, stored.values, strict=True))
    except (ValueError, RecursionError) as error:
        return CodecError(f"its file is malformed: {error}")
    return Record(stored.record.handle, stored.record.meta, values)


def write_durably(path: Path, content: bytes, expires_at: float) -> None:
    """Write *content* to the disk; the modification time says when it expires."""
    flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC
    handle = os.open(path, flags, 0o600)
    with open(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.utime(handle, (expires_at, expires_at))
        os.fsync(handle)


def make_folder(path: Path) -> None:
    """Make *path*, if it is not there, so that it survives a loss of power."""
    if not path.is_dir():
        path.mkdir(mode=0o700, exist_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Have the disk know which files are in *path*."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def explained(error: OSError, root: Path) -> StoreError:
    """Return what *error* means for the sessions in *root*, and what to do."""
    advice = {
        PermissionError: "let this process write to it",
        NotADirectoryError: "name a directory, not a file",
        FileExistsError: "name a directory, not a file",
        IsADirectoryError: "remove the directory that is in a file's place",
        TimeoutError: "find the process that holds it with fuser, and let it go on",
    }.get(type(error), "check the disk and its free space; nothing else was lost")
    failure = StoreError(f"sessions in {root}: {error.strerror}; {advice}")
    failure.__cause__ = error
    return failure
