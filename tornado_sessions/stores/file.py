"""Sessions in a directory, for many processes on one machine (POSIX only).

::

    <directory>/<namespace>/records/3f/3fb2…    one file a session, named by a hash
    <directory>/<namespace>/principals/9a…/3fb2…  who has which; checked on read
    <directory>/<namespace>/locks/00 … 3f       a fixed set, so that none pile up
    <directory>/<namespace>/ends/…              what ended in the last minute, and why

A file is replaced as a whole, with ``fsync``, and its modification time is the expiry:
sweeping need not read what has not expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from tornado_sessions.errors import ConfigurationError, StoreError
from tornado_sessions.stores.base import (
    DEFAULT_NAMESPACE,
    Apply,
    Change,
    Clock,
    Create,
    Delete,
    EndListener,
    Loaded,
    Outcome,
    Record,
    Store,
    checked_namespace,
    merged_record,
    unusable,
)
from tornado_sessions.stores.file_ends import EndNotes, Seen
from tornado_sessions.stores.file_format import explained
from tornado_sessions.stores.file_index import PrincipalIndex, file_name
from tornado_sessions.stores.file_locks import Locks, lock_of
from tornado_sessions.stores.file_records import PARTIAL, SHARDS, RecordFiles
from tornado_sessions.stores.file_sweeping import Sweeping
from tornado_sessions.stores.polling import EndPolling, News
from tornado_sessions.stores.url import path_from

T = TypeVar("T")
_THREADS = 8
"""For reading, and as many for what may have to wait for a lock."""


class FileStore(Store):
    """Keeps each session in a file of its own.

    What was acknowledged survives a crash. Reads take no lock; a change takes one of
    64 that all processes share.

    Who listens for ends lists a directory of them, twice a second; while nobody
    listens nobody does.

    Args:
        directory: Created if need be (0700), or a ``file:///`` URL.
        namespace: Keeps applications apart that share the directory.
        clock: See `Store`.
    """

    parallel = 2

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        clock: Clock = time.time,
    ) -> None:
        super().__init__(clock=clock)
        path = path_from(directory, "file")
        if not path:
            raise ConfigurationError("FileStore needs a directory: file:///path/to/it")
        self._root = Path(os.path.abspath(path)) / checked_namespace(namespace)
        self._files = RecordFiles(self._root)
        self._principals = PrincipalIndex(self._root / "principals")
        self._ends = EndNotes(self._root / "ends", self._exists)
        self._polling = EndPolling[Seen]()
        self._locks = Locks(self._root / "locks")
        self._readers: ThreadPoolExecutor | None = None
        self._writers: ThreadPoolExecutor | None = None
        self._process = os.getpid()
        self._sweeping = Sweeping(self._files, self._principals, self._locked)

    async def open(self) -> None:
        if self._process != os.getpid():  # forked, and threads do not come along
            self._readers = self._writers = None
            self._process = os.getpid()
        if self._writers is None:
            writers = ThreadPoolExecutor(_THREADS, "tornado-sessions-file")
            await self._in(writers, self._prepare)
            # Reads take no lock, so they need not wait for those who do.
            self._readers = ThreadPoolExecutor(_THREADS, "tornado-sessions-file-reader")
            self._writers = writers

    async def close(self) -> None:
        threads = (self._readers, self._writers)
        self._readers = self._writers = None
        for some in threads:
            if some is not None:
                await self._in(None, some.shutdown)

    async def load(self, handles: Sequence[str]) -> list[Loaded]:
        return await self._read(lambda: [self._live(file_name(h)) for h in handles])

    async def commit(self, changes: Sequence[Change]) -> list[Outcome | Exception]:
        by_lock: dict[str, list[int]] = {}
        for index, change in enumerate(changes):
            by_lock.setdefault(lock_of(file_name(change.handle)), []).append(index)
        outcomes: dict[int, Outcome | Exception] = {}
        given_up = threading.Event()
        work = [
            self._write(partial(self._commit_some, changes, group, given_up))
            for group in by_lock.values()
        ]
        try:
            for done in await asyncio.gather(*work):
                outcomes.update(done)
        except asyncio.CancelledError:
            given_up.set()  # a thread that waits for a lock hears of it in no other way
            raise
        return [outcomes[index] for index in range(len(changes))]

    async def find(self, principal: str) -> list[Record]:
        return await self._read(lambda: self._find(principal))

    async def sweep(self, limit: int) -> int:
        return await self._write(lambda: self._sweeping.sweep(limit, self.clock()))

    async def iterate(self, batch: int = 256) -> AsyncIterator[Record]:
        for shard in range(SHARDS):
            names = await self._read(lambda: self._files.names(shard))  # noqa: B023
            for start in range(0, len(names), batch):
                some = names[start : start + batch]
                for record in await self._read(lambda: [*map(self._live, some)]):  # noqa: B023
                    if isinstance(record, Record):
                        yield record

    async def count(self) -> int:
        return await self._read(self._count)

    async def clear(self) -> None:
        await self._write(self._clear)

    async def listen(self, listener: EndListener) -> None:
        await self.open()
        readers = self._readers

        async def look(place: Seen | None) -> News[Seen]:
            if readers is None or readers is not self._readers:
                raise StoreError("the store was closed; listen to it again")
            return await self._in(readers, partial(self._ends.news, place))

        await self._polling.tell(listener, look)

    # -- in the threads ----------------------------------------------------------

    async def _read(self, work: Callable[[], T]) -> T:
        await self.open()
        return await self._in(self._readers, work)

    async def _write(self, work: Callable[[], T]) -> T:
        await self.open()
        return await self._in(self._writers, work)

    async def _in(self, threads: ThreadPoolExecutor | None, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work)
        except OSError as error:
            raise explained(error, self._root) from error

    def _prepare(self) -> None:
        self._root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in ("", "records", "principals", "locks", "ends"):
            (self._root / folder).mkdir(mode=0o700, exist_ok=True)
        self._root.chmod(0o700)

    def _live(self, name: str) -> Loaded:
        now = self.clock()  # whoever lives then may be extended behind the read
        record = self._files.read(name)
        if isinstance(record, Record) and record.meta.expires_at <= now:
            return None
        return record

    def _commit_some(
        self, changes: Sequence[Change], group: Sequence[int], given_up: threading.Event
    ) -> dict[int, Outcome | Exception]:
        """Carry out changes that share a lock, in order.

        Once they are *given_up*, none begins any more: somebody may have stored, and been
        told so, what it would put back.
        """
        lock = lock_of(file_name(changes[group[0]].handle))
        try:
            with self._locked(lock):
                return {
                    index: self._commit_one(changes[index])
                    for index in group
                    if not given_up.is_set()
                }
        except OSError as error:  # the lock's; others have locks of their own
            return {index: explained(error, self._root) for index in group}

    def _commit_one(self, change: Change) -> Outcome | Exception:
        try:
            return self._carry_out(change)
        except OSError as error:
            return explained(error, self._root)
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            return unusable(error)

    def _carry_out(self, change: Change) -> Outcome | StoreError:
        name = file_name(change.handle)
        record = self._live(name)
        if isinstance(record, StoreError):
            return record
        if isinstance(change, Create):
            if isinstance(record, Record):
                return Outcome.CONFLICT
            self._put(name, Record(change.handle, change.meta, dict(change.values)))
            return Outcome.APPLIED
        if record is not None and isinstance(change, Delete):
            return self._end(name, record, change)
        if not isinstance(record, Record) or isinstance(change, Delete):
            return Outcome.GONE
        return self._apply(name, record, change)

    def _apply(self, name: str, record: Record, change: Apply) -> Outcome:
        merged = merged_record(record, change)
        if merged is None:
            return Outcome.CONFLICT
        self._put(name, merged)
        if record.meta.principal != merged.meta.principal:
            self._unindex(name, record)
        return Outcome.APPLIED

    def _put(self, name: str, record: Record) -> None:
        if record.meta.principal is not None:
            self._principals.add(record.meta.principal, name)
        self._files.write(name, record)

    def _end(self, name: str, record: Loaded, change: Delete) -> Outcome:
        token = record.meta.token if isinstance(record, Record) else None
        if token is not None and change.expect_token not in (None, token):
            return Outcome.CONFLICT
        note = self._ends.begin(change.handle, change.reason)
        try:
            self._files.unlink(name)
        finally:
            self._ends.settle(note, ended=not self._files.exists(name))
        # The disk is waited for at the end: each change to a directory after that
        # would wait for what others are having written.
        self._remove(name, record)
        return Outcome.APPLIED

    def _remove(self, name: str, record: Loaded) -> None:
        self._files.remove(name)
        self._unindex(name, record)

    def _unindex(self, name: str, record: Loaded) -> None:
        if isinstance(record, Record) and record.meta.principal is not None:
            self._principals.discard(record.meta.principal, name)

    def _locked(self, lock: str) -> contextlib.AbstractContextManager[None]:
        return self._locks.held(lock)

    def _find(self, principal: str) -> list[Record]:
        found: list[Record] = []
        for name in self._principals.names(principal):
            record = self._live(name)
            if isinstance(record, StoreError):
                # Who asks may be about to end them all: some are not all.
                raise record
            if isinstance(record, Record) and record.meta.principal == principal:
                found.append(record)
            else:
                with contextlib.suppress(OSError):  # the next time, then
                    self._prune(principal, name)
        return found

    def _prune(self, principal: str, name: str) -> None:
        with self._locks.held(lock_of(name), patience=0):
            record = self._files.read(name)  # over or not: a clock may be set back
            theirs = isinstance(record, Record) and record.meta.principal == principal
            if not theirs and not isinstance(record, StoreError):
                self._principals.discard(principal, name)

    def _exists(self, handle: str) -> bool:
        return self._files.exists(file_name(handle))

    def _count(self) -> int:
        now, total = self.clock(), 0
        for shard in range(SHARDS):
            for entry in self._files.entries(shard):
                with contextlib.suppress(OSError):
                    total += (
                        not entry.name.endswith(PARTIAL) and entry.stat().st_mtime > now
                    )
        return total

    def _clear(self) -> None:
        failure: OSError | None = None
        for shard in range(SHARDS):
            for name in self._files.names(shard):
                try:
                    with self._locked(lock_of(name)):
                        self._remove(name, self._files.read(name))
                except OSError as error:
                    failure = error
        if failure is not None:
            raise failure
