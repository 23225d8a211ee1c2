"""The ends of the last minute, as small files: what the other processes hear of.

::

    ends/00000001795430400123456-4f1c…          a session that has ended, and why
    ends/00000001795430400123456-4f1c….ending   one that is about to be removed

**The order.** The note is written first, as *ending*; then the record is removed; then
the note is renamed. Whoever is killed or held up in between leaves an *ending* one, of a
session that may be gone or not: listeners see whether its record is there, and tell of it
as soon as it is not. Nothing is synchronised with the disk, since a loss of power ends
those who listen as well.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import msgspec

from tornado_sessions.stores.file_format import explained
from tornado_sessions.stores.polling import AT_ONCE, PRUNE_EVERY, RETENTION, News

log = logging.getLogger("tornado_sessions")

_ENDING = ".ending"
_NAME = re.compile(rf"(\d{{20}})-[0-9a-f]{{16}}(?:{re.escape(_ENDING)})?")
_PER_SECOND = 1_000_000
Note: TypeAlias = tuple[str, str]
"""A handle, and the reason why that session ended."""
# Made once and here: msgspec crashes if threads work out the same type at once.
_decode = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode


def note_in(raw: bytes) -> Note:
    """Return the handle and the reason in a note.

    Raises:
        ValueError: That is none of ours.
    """
    handle, reason = _decode(raw)
    return (
        handle.decode("utf-8", "surrogatepass"),
        reason.decode("utf-8", "surrogatepass"),
    )


@dataclass(frozen=True)
class Seen:
    """What is known from the last look, and when that was: no more than is kept."""

    names: frozenset[str]
    at: float


class EndNotes:
    """The notes in *folder*.

    Args:
        folder: Where they are.
        exists: Tells whether the record of a handle is there.
    """

    def __init__(self, folder: Path, exists: Callable[[str], bool]) -> None:
        self._folder = folder
        self._exists = exists
        self._prune_at = -math.inf

    def begin(self, handle: str, reason: str) -> Path | None:
        """Note that the session *handle* is about to be removed.

        Returns:
            What `settle` needs; None if there is no note, since the disk refused it.
            The session ends nevertheless, and the log says who does not hear of it.
        """
        texts = [text.encode("utf-8", "surrogatepass") for text in (handle, reason)]
        stamp = f"{int(time.time() * _PER_SECOND):020d}"
        note = self._folder / f"{stamp}-{secrets.token_hex(8)}{_ENDING}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        try:
            with open(os.open(note, flags, 0o600), "wb") as file:
                file.write(msgspec.msgpack.encode(texts))
        except OSError as error:
            self._warn(note, error)
            with contextlib.suppress(OSError):  # it may not even have been made
                note.unlink()
            return None
        return note

    def settle(self, note: Path | None, *, ended: bool) -> None:
        """Say of a note that the session has ended, or take the note back."""
        if note is None:
            return
        try:
            if ended:
                note.rename(note.with_suffix(""))
            else:
                note.unlink()
        except OSError as error:
            self._warn(note, error)
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + PRUNE_EVERY
            self._prune()

    def news(self, place: Seen | None) -> News[Seen]:
        """Return what has ended since the look at *place*.

        Raises:
            OSError: The directory cannot be listed.
        """
        now, names = time.time(), self._names()
        if place is None:
            settled = (name for name in names if not name.endswith(_ENDING))
            return News(Seen(frozenset(settled), now), [])
        unseen = (name for name in names if _settled(name) not in place.names)
        gone = [*islice(self._gone(unseen), AT_ONCE + 1)]
        notes = dict(gone[:AT_ONCE])
        ends = [note for note in notes.values() if note is not None]
        # What is pruned is decided by the wall clock, and so is whether it was unseen.
        paused = abs(now - place.at) > RETENTION / 2
        seen = (place.names & {*map(_settled, names)}) | notes.keys()
        missed = paused or len(ends) < len(notes)
        return News(Seen(seen, now), ends, missed, len(gone) > AT_ONCE)

    def _gone(self, names: Iterable[str]) -> Iterator[tuple[str, Note | None]]:
        """Yield the notes of sessions that are gone, the oldest first.

        With each comes its settled name; None is one that cannot be read.
        """
        for name in sorted(names):
            note = self._read(name)
            if not name.endswith(_ENDING):
                yield name, note
            elif note is not None and not self._exists(note[0]):
                yield _settled(name), note

    def _names(self) -> frozenset[str]:
        return frozenset(filter(_NAME.fullmatch, os.listdir(self._folder)))

    def _read(self, name: str) -> Note | None:
        try:
            return note_in((self._folder / name).read_bytes())
        except (OSError, ValueError):
            return None

    def _prune(self) -> None:
        """Remove what everybody has seen, some of it: others wait for the lock."""
        with contextlib.suppress(OSError):  # the next time, then
            now = time.time()
            old = (name for name in self._names() if _age(name, now) > RETENTION)
            for number, name in enumerate(islice(old, AT_ONCE), 1):
                (self._folder / name).unlink(missing_ok=True)
                if number == AT_ONCE:
                    self._prune_at = -math.inf  # the next end goes on

    def _warn(self, note: Path, error: OSError) -> None:
        log.warning(
            "other processes may not hear that a session ended: %s",
            explained(error, note.parent),
        )


def _settled(name: str) -> str:
    """Return the name that a note has once its session is known to have ended."""
    return name.removesuffix(_ENDING)


def _age(name: str, now: float) -> float:
    """Return how many seconds lie between *now* and the time of a note, either way."""
    return abs(now - int(name[:20]) / _PER_SECOND)
