"""FileStore when a single file, lock or folder is bad: its neighbours do not notice."""

import hashlib
import os
import stat
from pathlib import Path

import msgspec
import pytest

from tornado_sessions import SessionManager
from tornado_sessions.errors import StoreError
from tornado_sessions.stores.base import Apply, Create, Delete, Meta, Outcome, Record
from tornado_sessions.stores.file import FileStore
from tornado_sessions.stores.file_format import _Stored
from tornado_sessions.stores.memory import _Kept
from tornado_sessions.testing import FakeClock

APPLIED = Outcome.APPLIED
NOW = 1_000_000_000.0
NEIGHBOURS = [f"h{number}" for number in range(8)]


@pytest.fixture
def root(tmp_path):
    return tmp_path / "sessions" / "tornado_sessions"


@pytest.fixture
async def store(root):
    async with FileStore(root.parent, clock=FakeClock(NOW)) as opened:
        yield opened


def meta(principal=None, ttl=1000.0):
    times = dict.fromkeys(("created_at", "last_seen_at", "epoch_at", "rotated_at"), NOW)
    return Meta(token=b"t", expires_at=NOW + ttl, principal=principal, **times)


def create(handle, principal=None, ttl=1000.0):
    return Create(handle, meta(principal, ttl), {"k": b"v"})


def name_of(text):
    return hashlib.sha256(text.encode()).hexdigest()


def record_file(root, handle):
    name = name_of(handle)
    return root / "records" / name[:2] / name


def lock_file(root, handle):
    return root / "locks" / f"{int(name_of(handle)[:2], 16) % 64:02x}"


def shares_its_lock(root, one, other):
    return lock_file(root, one) == lock_file(root, other)


def in_its_place(path):
    """Put a directory, with something in it, where a file belongs."""
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)
    (path / "something").touch()


def denied(path, monkeypatch):
    """Have every read of a file fail, as it does if it is another user's."""
    read = Path.read_bytes

    def refuse(self):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)


FAULTS = {
    "a directory": lambda path, _: in_its_place(path),
    "another user's": denied,
}


@pytest.fixture(params=FAULTS)
async def bad(request, store, root, monkeypatch):
    """Nine sessions of alice; the file of the one called bad cannot be read."""
    await store.commit([create(h, "alice") for h in [*NEIGHBOURS, "bad"]])
    FAULTS[request.param](record_file(root, "bad"), monkeypatch)
    return request.param


async def test_a_bad_file_is_one_items_own_when_read(store, bad):
    """R1, F3: `load` has a `StoreError` in its place; `iterate` goes on.

    `find` fails: some of somebody's sessions, taken for all, would be all that is ended.
    """
    first, failed, *others = await store.load(["h0", "bad", *NEIGHBOURS[1:], "none"])
    assert isinstance(failed, StoreError)
    assert isinstance(failed.__cause__, OSError)
    assert others.pop() is None
    assert [record.handle for record in (first, *others)] == NEIGHBOURS
    with pytest.raises(StoreError) as raised:
        await store.find("alice")
    assert isinstance(raised.value.__cause__, OSError)
    listed = [record.handle async for record in store.iterate()]
    assert sorted(listed) == NEIGHBOURS


async def test_a_file_that_fails_for_a_while_is_not_forgotten(store, root, monkeypatch):
    """R4, F3: once it can be read again, its principal is found to have it."""
    await store.commit([create("h", "alice")])
    with monkeypatch.context() as patch:
        denied(record_file(root, "h"), patch)
        with pytest.raises(StoreError):
            await store.find("alice")
    assert [record.handle for record in await store.find("alice")] == ["h"]


async def test_what_cannot_be_read_is_not_taken_for_ended(root, monkeypatch):
    """R4, S7: `revoke_all` says that it failed, and can be called again."""
    async with SessionManager(FileStore(root.parent)) as manager:
        session = manager.new_session()
        session.login("alice")
        await session.save()
        with monkeypatch.context() as patch:
            denied(record_file(root, session.handle), patch)
            with pytest.raises(StoreError, match="let this process write to it"):
                await manager.revoke_all("alice")
        assert await manager.count() == 1
        assert await manager.revoke_all("alice") == 1


async def test_a_number_that_no_file_can_hold(store):
    """R1: it is an error of its own, in whatever way it comes up."""
    large = msgspec.structs.replace(meta(), epoch=2**64)
    late = meta(ttl=1e300)
    changes = [create("a"), Create("b", large, {}), Create("c", late, {}), create("d")]
    first, *bad, last = await store.commit(changes)
    assert (first, last) == (APPLIED, APPLIED)
    assert [type(one) for one in bad] == [StoreError, StoreError]
    assert await store.count() == 2


async def test_a_bad_file_is_one_changes_own(store, bad):
    """R1, F3: each kind of change to it is a `StoreError`; the others are applied."""
    for change in (create("bad"), Apply(handle="bad", set={"k": b"2"}), Delete("bad")):
        neighbours = [Apply(handle=h, set={"k": b"2"}) for h in NEIGHBOURS]
        failed, *others = await store.commit([change, *neighbours])
        assert isinstance(failed, StoreError)
        assert others == [APPLIED] * len(NEIGHBOURS)


async def test_a_bad_file_does_not_stop_a_sweep(store, root, bad, caplog):
    """R1, R4, F3: what has expired beside it goes; the log says what was left."""
    os.utime(record_file(root, "bad"), (NOW, NOW))
    store.clock.advance(2000)
    assert await store.sweep(100) == len(NEIGHBOURS)
    assert "next sweep" in caplog.text
    assert record_file(root, "bad").exists()
    assert await store.count() == 0


async def test_a_bad_lock_is_its_sessions_own(store, root):
    """R1, F3: changes that need it are a `StoreError` each, and the others applied."""
    in_its_place(lock_file(root, "h0"))
    handles = ["h0", *NEIGHBOURS, "h0"]
    outcomes = await store.commit([create(handle) for handle in handles])
    concerned = [shares_its_lock(root, handle, "h0") for handle in handles]
    assert False in concerned
    failed = [isinstance(outcome, StoreError) for outcome in outcomes]
    assert failed == concerned
    assert {one for one in outcomes if not isinstance(one, StoreError)} == {APPLIED}
    errors = [one for one in outcomes if isinstance(one, StoreError)]
    assert len(set(map(id, errors))) == len(errors)


async def test_a_bad_lock_does_not_stop_a_sweep(store, root):
    """R1, R4, F3: a sweep, a search and `clear` get past a lock that cannot be had."""
    same = next(h for n in range(9999) if shares_its_lock(root, h := f"x{n}", "h0"))
    await store.commit([create(h, "alice") for h in [*NEIGHBOURS, same]])
    in_its_place(lock_file(root, "h0"))
    record_file(root, "h0").unlink()  # so that the search wants to tidy up
    assert len(await store.find("alice")) == len(NEIGHBOURS)
    store.clock.advance(2000)
    stuck = [h for h in [*NEIGHBOURS[1:], same] if shares_its_lock(root, h, "h0")]
    assert await store.sweep(100) == len(NEIGHBOURS) - len(stuck)
    assert all(record_file(root, handle).exists() for handle in stuck)
    with pytest.raises(StoreError):
        await store.clear()


async def test_clear_goes_on_and_says_so(store, root):
    """R1, F3: `clear` deletes all that it can, and then says that something was left."""
    await store.commit([create(h) for h in [*NEIGHBOURS, "bad"]])
    in_its_place(record_file(root, "bad"))
    with pytest.raises(StoreError, match="remove the directory"):
        await store.clear()
    assert not any(record_file(root, h).exists() for h in NEIGHBOURS)


async def test_a_bad_folder(store, root, caplog):
    """R1, F3: a file in place of one of the 256 folders hides no other folder."""
    await store.commit([create(h) for h in NEIGHBOURS])
    taken = {record_file(root, h).parent for h in NEIGHBOURS}
    free = next(f for n in range(256) if (f := root / f"records/{n:02x}") not in taken)
    free.touch()
    assert await store.count() == len(NEIGHBOURS)
    store.clock.advance(2000)
    assert await store.sweep(100) == len(NEIGHBOURS)
    assert free.name in caplog.text


async def test_files_of_others(store, root):
    """R1, F3: files that others leave among the records and names are not touched."""
    await store.commit([create("h", "alice", ttl=10)])
    record, index = record_file(root, "h"), root / "principals" / name_of("alice")
    strays = [record.with_name(".DS_Store"), record.with_name("x" * 64), index / "zz"]
    for stray in strays:
        stray.touch()
        os.utime(stray, (NOW - 10, NOW - 10))
    assert [one.handle for one in await store.find("alice")] == ["h"]
    store.clock.advance(20)
    assert await store.sweep(100) == 1
    await store.clear()
    assert all(stray.exists() for stray in strays)


async def test_only_the_owner_can_list_the_directory(tmp_path):
    """S9: the directory is made with 0700; one that is there keeps its mode."""
    before = os.umask(0)
    try:
        async with FileStore(tmp_path / "deep" / "sessions") as store:
            await store.commit([create("h", "alice")])
        (tmp_path / "there").mkdir(mode=0o750)
        async with FileStore(tmp_path / "there") as store:
            await store.commit([create("h", "alice")])
    finally:
        os.umask(before)
    made = tmp_path / "deep" / "sessions"
    folders = [made, *(path for path in made.rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o750


async def test_a_principal_that_changes_leaves_nothing(store, root):
    """R4: after a record got another principal, or none, no index entry is left."""
    await store.commit([create("h", "alice"), create("other", "bob")])
    for principal in ("carol", "bob", "alice", None):
        change = Apply(handle="h", meta={"principal": principal})
        assert await store.commit([change]) == [APPLIED]
        expected = {name_of(one) for one in ("bob", principal) if one}
        folders = {path.name for path in (root / "principals").iterdir()}
        assert folders == expected
    (entry,) = (root / "principals").rglob("*/*")
    assert entry.name == name_of("other")


async def test_an_index_that_cannot_be_tidied(store, root):
    """R1, R4, F3: an entry that cannot be removed does not fail what was stored."""
    await store.commit([create("h", "alice"), create("gone", "alice")])
    for handle in ("h", "gone"):
        in_its_place(root / "principals" / name_of("alice") / name_of(handle))
    change = Apply(handle="h", meta={"principal": "bob"})
    assert await store.commit([change, Delete("gone")]) == [APPLIED, APPLIED]
    assert [record.handle for record in await store.find("bob")] == ["h"]
    assert await store.find("alice") == []


def test_what_is_kept_shows_no_values():
    """S9: the forms in which stores keep a record show its handle, and no values."""
    record = Record("h", meta("alice"), {"k": b"secret"})
    kept = _Kept("h", record.meta, ("k", b"secret"))
    stored = _Stored(record, [b"k"], [b"secret"])
    assert [repr(kept), repr(stored)] == ["<_Kept 'h'>", "<_Stored 'h'>"]
