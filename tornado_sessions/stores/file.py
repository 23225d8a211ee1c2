"""Sessions in a directory, for many processes on one machine (POSIX only).

::

    <directory>/<namespace>/records/3f/3fb2…    one file a session, named by a hash
    <directory>/<namespace>/principals/9a…/3fb2…  who has which; checked on read
    <directory>/<namespace>/locks/00 … 3f       a fixed set, so that none pile up

A file is replaced as a whole, with ``fsync``, and its modification time is the expiry:
sweeping need not read what has not expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from tornado_sessions.errors import CodecError, ConfigurationError
from tornado_sessions.stores.base import (
    DEFAULT_NAMESPACE,
    Change,
    Clock,
    Create,
    Delete,
    Outcome,
    Record,
    Store,
    checked_namespace,
    merged_record,
    unusable,
)
from tornado_sessions.stores.file_format import (
    decoded,
    encoded,
    explained,
    locked,
    make_folder,
    sync_directory,
    write_durably,
)
from tornado_sessions.stores.file_index import PrincipalIndex, file_name
from tornado_sessions.stores.url import path_from

T = TypeVar("T")
_LOCKS = 64
_THREADS = 8
_PARTIAL = ".partial"
_NAME_LENGTH = 64


class FileStore(Store):
    """Keeps each session in a file of its own.

    What was acknowledged survives a crash. Reads take no lock; a change takes one of
    64 that all processes share.

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
        self._root = Path(path) / checked_namespace(namespace)
        self._principals = PrincipalIndex(self._root / "principals")
        self._threads: ThreadPoolExecutor | None = None
        self._shard = 0

    async def open(self) -> None:
        if self._threads is None:
            threads = ThreadPoolExecutor(_THREADS, "tornado-sessions-file")
            await self._in(threads, self._prepare)
            self._threads = threads

    async def close(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            await self._in(None, threads.shutdown)

    async def load(self, handles: Sequence[str]) -> list[Record | CodecError | None]:
        return await self._run(lambda: [self._live(file_name(h)) for h in handles])

    async def commit(self, changes: Sequence[Change]) -> list[Outcome | Exception]:
        by_lock: dict[str, list[int]] = {}
        for index, change in enumerate(changes):
            by_lock.setdefault(_lock_of(file_name(change.handle)), []).append(index)
        outcomes: dict[int, Outcome | Exception] = {}
        work = [
            self._run(partial(self._commit_some, changes, group))
            for group in by_lock.values()
        ]
        for done in await asyncio.gather(*work):
            outcomes.update(done)
        return [outcomes[index] for index in range(len(changes))]

    async def find(self, principal: str) -> list[Record]:
        return await self._run(lambda: self._find(principal))

    async def sweep(self, limit: int) -> int:
        return await self._run(lambda: self._sweep(limit))

    async def iterate(self, batch: int = 256) -> AsyncIterator[Record]:
        for shard in range(256):
            names = await self._run(lambda: list(self._names(shard)))  # noqa: B023
            for start in range(0, len(names), batch):
                some = names[start : start + batch]
                for record in await self._run(lambda: [*map(self._live, some)]):  # noqa: B023
                    if isinstance(record, Record):
                        yield record

    async def count(self) -> int:
        return await self._run(self._count)

    async def clear(self) -> None:
        await self._run(self._clear)

    # -- in the threads ----------------------------------------------------------

    async def _run(self, work: Callable[[], T]) -> T:
        await self.open()
        return await self._in(self._threads, work)

    async def _in(self, threads: ThreadPoolExecutor | None, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work)
        except OSError as error:
            raise explained(error, self._root) from error

    def _prepare(self) -> None:
        for folder in ("records", "principals", "locks"):
            (self._root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._root.chmod(0o700)

    def _path(self, name: str) -> Path:
        return self._root / "records" / name[:2] / name

    def _read(self, name: str) -> Record | CodecError | None:
        try:
            raw = self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        return decoded(raw)

    def _live(self, name: str) -> Record | CodecError | None:
        record = self._read(name)
        if isinstance(record, Record) and record.meta.expires_at <= self.clock():
            return None
        return record

    def _commit_some(
        self, changes: Sequence[Change], group: Sequence[int]
    ) -> dict[int, Outcome | Exception]:
        """Carry out changes that share a lock, in order."""
        lock = _lock_of(file_name(changes[group[0]].handle))
        with self._locked(lock):
            return {index: self._commit_one(changes[index]) for index in group}

    def _commit_one(self, change: Change) -> Outcome | Exception:
        try:
            return self._carry_out(change)
        except OSError as error:
            return explained(error, self._root)
        except (TypeError, ValueError, AttributeError) as error:
            return unusable(error)

    def _carry_out(self, change: Change) -> Outcome:
        name = file_name(change.handle)
        record = self._live(name)
        if isinstance(change, Create):
            if isinstance(record, Record):
                return Outcome.CONFLICT
            self._write(name, Record(change.handle, change.meta, dict(change.values)))
            return Outcome.APPLIED
        if record is not None and isinstance(change, Delete):
            self._remove(name, record)
            return Outcome.APPLIED
        if not isinstance(record, Record) or isinstance(change, Delete):
            return Outcome.GONE
        merged = merged_record(record, change)
        if merged is None:
            return Outcome.CONFLICT
        self._write(name, merged)
        return Outcome.APPLIED

    def _write(self, name: str, record: Record) -> None:
        path = self._path(name)
        make_folder(path.parent)
        # Under the lock nobody else writes this name, and what a crash left behind
        # is overwritten, or swept.
        unfinished = path.with_name(name + _PARTIAL)
        if record.meta.principal is not None:
            self._principals.add(record.meta.principal, name)
        try:
            write_durably(unfinished, encoded(record), record.meta.expires_at)
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)

    def _remove(self, name: str, record: Record | CodecError | None) -> None:
        path = self._path(name)
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
        if isinstance(record, Record) and record.meta.principal is not None:
            self._principals.discard(record.meta.principal, name)

    def _locked(self, lock: str) -> contextlib.AbstractContextManager[None]:
        return locked(self._root / "locks" / lock)

    def _find(self, principal: str) -> list[Record]:
        found = []
        for name in self._principals.names(principal):
            record = self._live(name)
            if isinstance(record, Record) and record.meta.principal == principal:
                found.append(record)
            else:
                self._prune(principal, name)
        return found

    def _prune(self, principal: str, name: str) -> None:
        with self._locked(_lock_of(name)):
            record = self._live(name)
            if not isinstance(record, Record) or record.meta.principal != principal:
                self._principals.discard(principal, name)

    def _entries(self, shard: int) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self._root / "records" / f"{shard:02x}") as entries:
                yield from entries
        except FileNotFoundError:
            return

    def _names(self, shard: int) -> Iterator[str]:
        return (e.name for e in self._entries(shard) if len(e.name) == _NAME_LENGTH)

    def _count(self) -> int:
        now, total = self.clock(), 0
        for shard in range(256):
            for entry in self._entries(shard):
                with contextlib.suppress(FileNotFoundError):
                    total += (
                        len(entry.name) == _NAME_LENGTH and entry.stat().st_mtime > now
                    )
        return total

    def _sweep(self, limit: int) -> int:
        """Go on where the last call stopped, once around at the most."""
        swept = 0
        for _ in range(256):
            for entry in list(self._entries(self._shard)):
                swept += self._sweep_one(entry)
                if swept == limit:
                    return swept
            self._shard = (self._shard + 1) % 256
        return swept

    def _sweep_one(self, entry: os.DirEntry[str]) -> bool:
        now, name = self.clock(), entry.name[:_NAME_LENGTH]
        with contextlib.suppress(FileNotFoundError):
            if entry.name.endswith(_PARTIAL):
                with self._locked(_lock_of(name)):
                    os.unlink(entry.path)
            elif entry.stat().st_mtime <= now:
                with self._locked(_lock_of(name)):
                    record = self._read(name)
                    if record is None or os.stat(entry.path).st_mtime > now:
                        return False
                    self._remove(name, record)
                    return True
        return False

    def _clear(self) -> None:
        for shard in range(256):
            for name in list(self._names(shard)):
                with self._locked(_lock_of(name)):
                    self._remove(name, self._read(name))


def _lock_of(name: str) -> str:
    return f"{int(name[:2], 16) % _LOCKS:02x}"
