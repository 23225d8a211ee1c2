"""FileStore, against the contract and against what disks do."""

import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from unittest import IsolatedAsyncioTestCase

import pytest

from diskkit import foreign_folder, tiny_disk
from tornado_sessions.errors import CodecError, ConfigurationError, StoreError
from tornado_sessions.stores import file_records
from tornado_sessions.stores.base import Apply, Create, Delete, Meta, Outcome
from tornado_sessions.stores.file import FileStore
from tornado_sessions.stores.file_format import MAGIC
from tornado_sessions.stores.sqlite import SQLiteStore
from tornado_sessions.testing import FakeClock, StoreConformance

APPLIED = Outcome.APPLIED


def record_file(folder, handle, namespace="tornado_sessions"):
    name = hashlib.sha256(handle.encode()).hexdigest()
    return Path(folder) / namespace / "records" / name[:2] / name


class TestFileStore(StoreConformance, IsolatedAsyncioTestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    async def make_store(self, clock, namespace):
        return FileStore(self.folder, namespace=namespace, clock=clock)

    async def corrupt(self, store, handle):
        path = record_file(self.folder, handle, self.namespace)
        path.write_bytes(path.read_bytes()[:-3])


def create(handle, size=1, principal=None, ttl=1000.0):
    now = FakeClock()()
    times = dict.fromkeys(("created_at", "last_seen_at", "epoch_at", "rotated_at"), now)
    meta = Meta(token=b"t", expires_at=now + ttl, principal=principal, **times)
    return Create(handle, meta, {"k": b"v" * size})


def files(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


@pytest.fixture
async def store(tmp_path):
    async with FileStore(tmp_path / "sessions") as opened:
        yield opened


async def test_only_the_owner_can_read(store, tmp_path):
    """S9: whatever the umask, files are 0600 and the folders above them 0700."""
    before = os.umask(0)
    try:
        await store.commit([create("h", principal="alice")])
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in files(tmp_path)}
    assert modes == {0o600}
    root = tmp_path / "sessions" / "tornado_sessions"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


async def test_names_are_hashes(store, tmp_path):
    """R5, S9: neither a handle nor a principal becomes part of a path."""
    odd = "../../../etc/passwd"
    assert await store.commit([create(odd, principal="../alice")]) == [APPLIED]
    assert record_file(tmp_path / "sessions", odd).exists()
    below = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}
    assert not any("etc" in name or "alice" in name for name in below)
    assert not (tmp_path.parent / "etc").exists()


async def test_files_do_not_pile_up(store, tmp_path):
    """R4: after 500 sessions came and went, 64 locks are left, and notes for a minute."""
    handles = [f"h{number}" for number in range(500)]
    await store.commit([create(h, principal=f"user {h}") for h in handles])
    assert len(files(tmp_path)) > 1000
    await store.commit([Delete(handle) for handle in handles])
    left = Counter(path.parent.name for path in files(tmp_path))
    assert left.pop("locks") <= 64
    assert left == {"ends": 500}
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert len(folders) <= 256 + 6


async def test_a_sweep_takes_what_a_crash_left(store, tmp_path):
    """R4: half-written files and expired sessions go; live ones stay."""
    store.clock = FakeClock()
    await store.commit([create("live"), create("old", ttl=10, principal="p")])
    for handle in ("live", "crashed"):
        path = record_file(tmp_path / "sessions", handle)
        path.parent.mkdir(exist_ok=True)
        path.with_name(path.name + ".partial").write_bytes(b"half")
    store.clock.advance(20)
    assert await store.sweep(100) == 1
    kept = [path for path in files(tmp_path) if path.parent.name != "locks"]
    assert kept == [record_file(tmp_path / "sessions", "live")]


async def test_a_sweep_lists_a_folder_once_and_waits_for_no_disk(store, monkeypatch):
    """P6: however small its slices, and what a crash brings back is still expired."""
    await store.commit([create(f"h{n}", ttl=10) for n in range(50)])
    store.clock = FakeClock()
    store.clock.advance(20)
    listed, entries = [], store._files.entries

    def noted(shard):
        listed.append(shard)
        return entries(shard)

    def forbidden(directory):
        raise AssertionError(directory)

    monkeypatch.setattr(store._files, "entries", noted)
    monkeypatch.setattr(file_records, "sync_directory", forbidden)
    swept = [await store.sweep(3) for _ in range(17)]
    assert swept == [*[3] * 16, 2]
    most = Counter(listed).most_common(1)[0][1]
    assert most <= 2  # the last slice goes once around
    assert await store.count() == 0


async def test_a_copied_file_is_not_swept_while_its_session_lives(store, tmp_path):
    """R4: what copied it need not have kept its time, by which it is looked at first."""
    store.clock = FakeClock()
    await store.commit([create("h", ttl=100)])
    (path,) = [one for one in files(tmp_path) if one.parent.parent.name == "records"]
    os.utime(path, (store.clock() - 1, store.clock() - 1))
    assert await store.sweep(100) == 0
    assert (await store.load(["h"]))[0].handle == "h"
    assert await store.count() == 1  # which goes by the time of the file
    store.clock.advance(101)
    assert await store.sweep(100) == 1


class Raced(FileStore):
    """Lets something happen between the first look at a file and its lock."""

    race = None

    def _locked(self, lock):
        race, self.race = self.race, None
        if race is not None:
            race()
        return super()._locked(lock)


async def test_a_sweep_looks_again_under_the_lock(store, tmp_path):
    """C1, C4, R4: a life that is extended at the last moment is not swept."""
    await store.commit([create("h", ttl=10)])
    clock = FakeClock()
    sweeping = Raced(tmp_path / "sessions", clock=clock)
    clock.advance(20)
    later = Apply(handle="h", meta={"expires_at": clock() + 100})
    sweeping.race = lambda: store._commit_one(later)
    assert await sweeping.sweep(10) == 0
    assert [record.handle for record in await store.load(["h"])] == ["h"]
    clock.advance(200)
    assert await sweeping.sweep(10) == 1
    await sweeping.close()


DAMAGES = {
    "truncated": lambda raw: raw[:-1],
    "empty": lambda raw: b"",
    "only the magic": lambda raw: raw[:4],
    "garbage": lambda raw: os.urandom(len(raw)),
    "one bit": lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    "another version": lambda raw: b"TSF9" + raw[len(MAGIC) :],
    "text": lambda raw: b'{"visits": 1}',
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file(store, tmp_path, damage):
    """S6, F3: it is a `CodecError` in its place, and its neighbours are untouched."""
    await store.commit([create(handle, principal="p") for handle in "abc"])
    path = record_file(tmp_path / "sessions", "b")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    first, broken, last = await store.load(["a", "b", "c"])
    assert isinstance(broken, CodecError)
    assert (first.values, last.values) == ({"k": b"v"}, {"k": b"v"})
    assert sorted(record.handle for record in await store.find("p")) == ["a", "c"]
    outcomes = await store.commit([Apply(handle=h, set={"x": b"1"}) for h in "abc"])
    assert [outcomes[0], outcomes[2]] == [APPLIED, APPLIED]


async def test_a_full_disk():
    """F3: a `StoreError` that says so; the old record and its neighbours are whole."""
    with tiny_disk() as folder:
        async with FileStore(folder) as store:
            await store.commit([create("old", 100), create("other", 100)])
            change = Apply(handle="old", set={"k": os.urandom(200_000)})
            (outcome,) = await store.commit([change])
            assert isinstance(outcome, StoreError)
            assert "free space" in str(outcome)
            assert isinstance(outcome.__cause__, OSError)
            old, other = await store.load(["old", "other"])
            assert old.values == other.values == {"k": b"v" * 100}
            assert not [path for path in files(folder) if path.suffix == ".partial"]
            assert await store.commit([Delete("old")]) == [APPLIED]


async def test_a_read_only_directory():
    """F3: reading goes on; a change is a `StoreError` that names the directory."""
    with foreign_folder() as (folder, read_only):
        async with FileStore(folder) as store:
            await store.commit([create("h")])
            with read_only():
                (record,) = await store.load(["h"])
                (failed,) = await store.commit([Apply(handle="h", set={"k": b"2"})])
            assert isinstance(failed, StoreError)
            assert f"{folder}" in str(failed)
            assert "let this process write" in str(failed)
            assert record.values == {"k": b"v"}
            assert await store.commit([Apply(handle="h", set={"k": b"2"})]) == [APPLIED]


async def test_a_file_in_place_of_the_directory(tmp_path):
    """F3: opening says that a directory is needed."""
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(StoreError, match="name a directory"):
        await FileStore(tmp_path / "taken").open()


def test_a_directory_is_needed():
    """F3: no directory, or an impossible namespace, is refused at once."""
    for bad in (lambda: FileStore(""), lambda: FileStore("x", namespace="../x")):
        with pytest.raises(ConfigurationError):
            bad()


KILLED_AT_FSYNC = """
import asyncio, os, signal, sys

sys.path.append(sys.argv[3])  # the working tree, unless it is installed

from tornado_sessions.stores.base import Apply
from tornado_sessions.stores.file import FileStore

left = int(sys.argv[2])

def fsync(handle):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

os.fsync = fsync
change = Apply(handle="h", set={"k": b"new"})
asyncio.run(FileStore(sys.argv[1]).commit([change]))
"""


@pytest.mark.parametrize(("fsync", "expected"), [(1, b"v"), (2, b"new")])
async def test_killed_while_replacing(store, tmp_path, fsync, expected):
    """F2: before the file is replaced the old record is there, and then the new one."""
    await store.commit([create("h")])
    folder = str(tmp_path / "sessions")
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", KILLED_AT_FSYNC, folder, str(fsync), str(root)]
    killed = subprocess.run(command, cwd=tmp_path, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (record,) = await store.load(["h"])
    assert record.values == {"k": expected}
    assert await store.commit([Apply(handle="h", set={"k": b"more"})]) == [APPLIED]
    assert not [path for path in files(tmp_path) if path.suffix == ".partial"]


FIRST_READS = """
import asyncio, sys

sys.path.append(sys.argv[2])  # the working tree, unless it is installed

from tornado_sessions.stores.file import FileStore

async def main():
    async with FileStore(sys.argv[1]) as store:
        sys.setswitchinterval(1e-6)
        found = await asyncio.gather(*(store.load(["h"]) for _ in range(400)))
        assert all(record.values == {"k": b"v"} for (record,) in found)

asyncio.run(main())
"""


@pytest.mark.parametrize("time", range(4))
async def test_the_first_reads_of_a_process(store, tmp_path, time):
    """F2, R1: threads that read at once, before any other read, do not crash it."""
    await store.commit([create("h")])
    root, folder = Path(__file__).parent.parent, str(tmp_path / "sessions")
    command = [sys.executable, "-c", FIRST_READS, folder, str(root)]
    assert (
        subprocess.run(command, cwd=tmp_path, check=False, timeout=60).returncode == 0
    )


async def test_a_clock_that_is_set_back_hides_nobody(tmp_path):
    """R4: who is looked for while the clock is ahead is found again afterwards."""
    clock = FakeClock()
    async with FileStore(tmp_path, clock=clock) as store:
        await store.commit([create("h", principal="alice")])
        clock.advance(5000)
        assert await store.find("alice") == []
        clock.advance(-5000)
        assert [record.handle for record in await store.find("alice")] == ["h"]
        clock.advance(5000)
        assert await store.sweep(10) == 1
        assert not any((tmp_path / "tornado_sessions" / "principals").iterdir())


@pytest.mark.parametrize("kind", [FileStore, SQLiteStore])
async def test_a_relative_path_stays_where_it_was(kind, tmp_path, monkeypatch):
    """R5: a process that changes its directory keeps its sessions."""
    monkeypatch.chdir(tmp_path)
    early, late = kind("early"), kind("late")
    await early.commit([create("h")])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    await late.commit([create("h")])
    for store in (early, late):
        assert await store.load(["h"]) != [None]
        await store.close()
    assert {"early", "late"} <= {path.name for path in tmp_path.iterdir()}
    assert not any((tmp_path / "elsewhere").iterdir())
