"""The locks that processes share which change the same sessions (POSIX only).

A process that was stopped while it held one goes on holding it. So nobody waits for long,
and for a lock that was waited for in vain nobody waits for more than a moment until it is
free.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 4.0
"""Seconds to wait for a lock; as long as SQLite waits here for one of its own."""
_LOCKS = 64
_MOMENT = 0.1
"""Seconds to wait for one that was waited for in vain."""
_PAUSE = 0.001


def lock_of(name: str) -> str:
    """Return the name of the lock that the file *name* shares with others."""
    return f"{int(name[:2], 16) % _LOCKS:02x}"


class Locks:
    """The lock files in *folder*; held against all threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stuck: set[str] = set()

    @contextlib.contextmanager
    def held(self, lock: str, *, patience: float | None = None) -> Iterator[None]:
        """Hold *lock*.

        Args:
            lock: Its name; see `lock_of`.
            patience: Seconds to wait for it; `PATIENCE` unless given.

        Raises:
            TimeoutError: Somebody else holds it.
        """
        path = self._folder / lock
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            self._take(handle, lock, PATIENCE if patience is None else patience)
            yield
        finally:
            # Closing is not enough if a process was forked meanwhile: it has it open.
            fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)

    def _take(self, handle: int, lock: str, patience: float) -> None:
        began = time.monotonic()
        # One that is busy may have seemed stuck, so it is tried for a moment.
        until = began + min(patience, _MOMENT if lock in self._stuck else patience)
        while not _taken(handle):
            if time.monotonic() >= until:
                if patience:
                    self._stuck.add(lock)
                text = "another process holds a lock for too long"
                raise TimeoutError(errno.ETIMEDOUT, text, str(self._folder / lock))
            time.sleep(_PAUSE)
        self._stuck.discard(lock)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
