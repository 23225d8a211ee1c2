"""FileStore while another process holds a lock and does not go on."""

import asyncio
import fcntl
import os
import threading
from contextlib import contextmanager

import pytest

from test_store_file_faults import (
    APPLIED,
    NOW,
    create,
    lock_file,
    record_file,
    shares_its_lock,
)
from tornado_sessions.errors import StoreError
from tornado_sessions.stores import file_locks
from tornado_sessions.stores.base import Apply, Delete
from tornado_sessions.stores.file import FileStore
from tornado_sessions.testing import FakeClock

CHANGE = {"k": b"2"}
BOUND = 30.0


@pytest.fixture
def root(tmp_path):
    return tmp_path / "sessions" / "tornado_sessions"


@pytest.fixture
async def store(root):
    """Two sessions, a and b, whose locks are not the same."""
    assert not shares_its_lock(root, "a", "b")
    async with FileStore(root.parent, clock=FakeClock(NOW)) as opened:
        await opened.commit([create("a", "alice"), create("b")])
        yield opened


@contextmanager
def held(root, handle):
    """Hold the lock of a session as another process does, which was stopped."""
    descriptor = os.open(lock_file(root, handle), os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.fixture
def hurried(monkeypatch):
    """Have nobody wait for a lock for longer than a moment."""
    monkeypatch.setattr(file_locks, "PATIENCE", 0.05)


@pytest.fixture
def waits(monkeypatch):
    """Is set as soon as somebody tries to take a lock."""
    tried, taken = threading.Event(), file_locks._taken

    def take(handle):
        tried.set()
        return taken(handle)

    monkeypatch.setattr(file_locks, "_taken", take)
    return tried


async def bounded(call):
    return await asyncio.wait_for(call, BOUND)


async def test_a_held_lock_is_its_sessions_own(store, root, hurried):
    """R1, F1: what needs it is a `StoreError` that says so; neighbours are changed."""
    with held(root, "a"):
        failed, other = await bounded(
            store.commit([Apply("a", set=CHANGE), Apply("b", set=CHANGE)])
        )
    assert isinstance(failed, StoreError)
    assert "another process holds a lock for too long; find" in str(failed)
    assert other == APPLIED
    assert await store.commit([Apply("a", set=CHANGE)]) == [APPLIED]


async def test_reading_needs_no_lock(store, root):
    """R1, F1: even if more changes wait for one than there are threads."""
    with held(root, "a"):
        waiting = [
            asyncio.ensure_future(store.commit([Apply("a", set=CHANGE)]))
            for _ in range(20)
        ]
        (record,) = await bounded(store.load(["a"]))
        assert record.values == {"k": b"v"}
        assert [one.handle for one in await bounded(store.find("alice"))] == ["a"]
        assert await bounded(store.count()) == 2
    await bounded(asyncio.gather(*waiting))


async def test_nobody_waits_again_for_what_was_waited_for_in_vain(
    store, root, monkeypatch
):
    """F1: until it is free; then it is waited for as before."""
    monkeypatch.setattr(file_locks, "PATIENCE", 0.05)
    with held(root, "a"):
        await bounded(store.commit([Apply("a", set=CHANGE)]))
        monkeypatch.setattr(file_locks, "PATIENCE", 10 * BOUND)
        (failed,) = await bounded(store.commit([Delete("a")]))
        assert isinstance(failed, StoreError)
    assert await store.commit([Apply("a", set=CHANGE)]) == [APPLIED]
    with held(root, "a"):
        waits = asyncio.ensure_future(store.commit([Delete("a")]))
        assert await store.commit([Delete("b")]) == [APPLIED]
        assert not waits.done()
    assert await bounded(waits) == [APPLIED]


async def test_a_store_closes_while_a_lock_is_held(store, root, hurried, waits):
    """F4: closing waits for what has begun, which has an end."""
    with held(root, "a"):
        change = asyncio.ensure_future(store.commit([Apply("a", set=CHANGE)]))
        assert await asyncio.to_thread(waits.wait, BOUND)
        await bounded(store.close())
        assert isinstance((await change)[0], StoreError)


async def test_a_sweep_leaves_what_is_locked(store, root, hurried, caplog):
    """R1, R4: it goes with the next one, and the others at once."""
    store.clock.advance(2000)
    with held(root, "a"):
        assert await bounded(store.sweep(100)) == 1
    assert "next sweep" in caplog.text
    assert record_file(root, "a").exists()
    assert await store.sweep(100) == 1


def test_a_copy_of_the_descriptor_keeps_no_lock(tmp_path, monkeypatch):
    """F1: as a process has one that was forked meanwhile, and lives on."""
    locks, copies, taken = file_locks.Locks(tmp_path), [], file_locks._taken

    def copied(handle):
        copies.append(os.dup(handle))
        return taken(handle)

    monkeypatch.setattr(file_locks, "_taken", copied)
    with locks.held("00"):
        pass
    monkeypatch.undo()
    try:
        with locks.held("00", patience=0):
            pass
    finally:
        for copy in copies:
            os.close(copy)


async def test_what_was_given_up_begins_no_more(store, root, waits):
    """C1, F1: a change that waits for a lock when its time is over is not carried out."""
    with held(root, "a"):
        change = asyncio.ensure_future(store.commit([Apply("a", set=CHANGE)]))
        assert await asyncio.to_thread(waits.wait, BOUND)
        change.cancel()
        with pytest.raises(asyncio.CancelledError):
            await change
    await bounded(store.close())  # which waits for the threads
    (record,) = await store.load(["a"])
    assert record.values == {"k": b"v"}
