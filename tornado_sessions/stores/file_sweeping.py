"""Removes the files of expired sessions, folder by folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from tornado_sessions.errors import CodecError, StoreError
from tornado_sessions.stores.base import Record
from tornado_sessions.stores.file_index import PrincipalIndex
from tornado_sessions.stores.file_locks import lock_of
from tornado_sessions.stores.file_records import PARTIAL, SHARDS, RecordFiles

log = logging.getLogger("tornado_sessions")


class Sweeping:
    """Goes through all folders, a slice at a time.

    Args:
        files: With the records.
        principals: Who has which.
        locked: Returns a context that holds the lock of that name.
    """

    def __init__(
        self,
        files: RecordFiles,
        principals: PrincipalIndex,
        locked: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._files = files
        self._principals = principals
        self._locked = locked
        self._shard = 0
        # A folder is listed once, not for each slice. If a call was given up and goes
        # on in its thread, both go through the same listing, and neither sees it all.
        self._listed: Iterator[os.DirEntry[str]] = iter(())

    def sweep(self, limit: int, now: float) -> int:
        """Go on where the last call stopped, and then once around at the most.

        Returns:
            How many records were removed, at most *limit*.
        """
        swept = self._sweep_listed(limit, now)
        for _ in range(SHARDS):
            if swept >= limit:
                break
            self._listed = iter(self._files.entries(self._shard))
            self._shard = (self._shard + 1) % SHARDS
            swept += self._sweep_listed(limit - swept, now)
        return swept

    def _sweep_listed(self, limit: int, now: float) -> int:
        swept = 0
        for entry in self._listed:
            try:
                swept += self._sweep_one(entry, now)
            except FileNotFoundError:
                continue
            except (OSError, StoreError) as error:
                log.warning("left a session for the next sweep: %s", error)
            if swept >= limit:
                break
        return swept

    def _sweep_one(self, entry: os.DirEntry[str], now: float) -> bool:
        name = entry.name.removesuffix(PARTIAL)
        if entry.name != name:
            with self._locked(lock_of(name)):
                os.unlink(entry.path)
            return False
        if entry.stat().st_mtime > now:
            return False
        with self._locked(lock_of(name)):
            return self._remove(entry, name, now)

    def _remove(self, entry: os.DirEntry[str], name: str, now: float) -> bool:
        record = self._files.read(name)
        if isinstance(record, StoreError):
            raise record
        if record is None or self._lives(entry, record, now):
            return False
        # Not waiting for the disk: what a loss of power brings back is still over.
        self._files.unlink(name)
        if isinstance(record, Record) and record.meta.principal is not None:
            self._principals.discard(record.meta.principal, name)
        return True

    def _lives(
        self, entry: os.DirEntry[str], record: Record | CodecError, now: float
    ) -> bool:
        """Tell whether the session is yet to expire, by its record if that can be read."""
        if not isinstance(record, Record):
            return os.stat(entry.path).st_mtime > now
        expires_at = record.meta.expires_at
        if expires_at <= now:
            return False
        # The file was copied by something that does not keep times.
        os.utime(entry.path, (expires_at, expires_at))
        return True
