"""What ends in one process is heard of in the others: SQLite and files, in detail."""

import asyncio
import contextlib
import math
import os
import sqlite3
import threading
import time
from contextlib import AsyncExitStack, closing
from itertools import chain, pairwise
from types import SimpleNamespace

import pytest

from backends import backend_url
from diskkit import NOBODY, foreign_folder, tiny_disk
from endkit import Heard, create, listening
from httpkit_stores import until
from tornado_sessions.errors import StoreError
from tornado_sessions.stores import file_ends, polling, sqlite_ends
from tornado_sessions.stores.base import LOOK_EVERY, Apply, Delete, Outcome
from tornado_sessions.stores.file import FileStore
from tornado_sessions.stores.file_ends import EndNotes
from tornado_sessions.stores.polling import LOOK_AGAIN, RETENTION
from tornado_sessions.stores.sqlite import SQLiteStore
from tornado_sessions.stores.sqlite_schema import MIGRATIONS, tables
from tornado_sessions.stores.url import store_from_url
from tornado_sessions.testing import FakeClock

APPLIED = Outcome.APPLIED
TEXTS = ("", "two words", "ünï: %s", "\0", "😀", "'\"\\\n", "x" * 5000)
ENDS = "tornado_sessions/ends"


@pytest.fixture(params=["sqlite", "file"])
async def opened(request, tmp_path):
    """A way to open one more store on the same place."""
    url = backend_url(request.param, tmp_path)
    async with AsyncExitStack() as stack:

        async def another():
            return await stack.enter_async_context(store_from_url(url))

        yield another


@pytest.fixture
def wall(monkeypatch):
    """The wall clock, for those who keep ends."""
    clock = FakeClock(time.time())
    both = SimpleNamespace(time=clock, monotonic=time.monotonic)
    for module in (sqlite_ends, file_ends):
        monkeypatch.setattr(module, "time", both)
    return clock


class Watched:
    """Counts the looks for ends at *store*, fails them, and holds them up."""

    def __init__(self, store):
        self.times = []
        self.error = None
        self._open = threading.Event()
        self._open.set()
        self._arrived = threading.Event()
        self._news, store._ends.news = store._ends.news, self._look

    def _look(self, *arguments):
        self.times.append(time.monotonic())
        self._arrived.set()
        assert self._open.wait(20)
        if self.error is not None:
            raise self.error
        return self._news(*arguments)

    async def pause(self):
        """Return when the next look has begun; it goes no further."""
        self._arrived.clear()
        self._open.clear()
        assert await asyncio.to_thread(self._arrived.wait, 20)

    def go_on(self):
        self._open.set()


def kept(store):
    """Return how many ends are on record."""
    if isinstance(store, SQLiteStore):
        with closing(sqlite3.connect(store._pair._path)) as db:
            table = store._tables["ends"]
            return db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
    return len([*store._ends._folder.iterdir()])


async def end(store, handle, reason):
    """Store the session *handle*, and end it."""
    await store.commit([create(handle)])
    assert await store.commit([Delete(handle, reason)]) == [APPLIED]


async def test_the_exact_reason(opened):
    """W1, E6: another store object hears of each end, with its reason."""
    one, other = await opened(), await opened()
    async with listening(other) as (heard, _):
        for number, reason in enumerate(TEXTS):
            await one.commit([create(f"h{number}")])
            await one.commit([Delete(f"h{number}", reason)])
            await until(lambda: len(heard.ends) > number)  # noqa: B023
        await end(one, "stays itself", "first")
        await end(one, "x\0y", "odd handle")
        await until(lambda: len(heard.ends) == len(TEXTS) + 2)
        expected = [(f"h{number}", reason) for number, reason in enumerate(TEXTS)]
        assert heard.ends[: len(TEXTS)] == expected
        assert heard.ends[-1] == ("x\0y", "odd handle")
        assert heard.connections == 1


async def test_reasons_that_are_no_text(opened):
    """W1, R1: a lone surrogate in a reason fails no logout; it may be replaced."""
    one, other = await opened(), await opened()
    async with listening(other) as (heard, _):
        await end(one, "h", "half \ud83d of it")
        await until(lambda: heard.ends)
        ((handle, reason),) = heard.ends
        assert handle == "h"
        assert reason in ("half ? of it", "half \ud83d of it")


async def test_a_burst(opened):
    """W1: of 200 ends at once, by two writers, none is lost, and none made up."""
    one, other = await opened(), await opened()
    handles = [f"h{number}" for number in range(200)]
    await one.commit([create(handle) for handle in [*handles, "stays"]])
    async with listening(one) as (heard, _), listening(other) as (heard_too, _):
        ends = [Delete(handle, f"reason of {handle}") for handle in handles]
        both = (one, other)
        parts = [both[n % 2].commit(ends[n::20]) for n in range(20)]
        await asyncio.gather(*parts)
        expected = {(one.handle, one.reason) for one in ends}
        for listener in (heard, heard_too):
            await until(lambda: len(set(listener.ends)) == 200)  # noqa: B023
            assert set(listener.ends) == expected
            assert listener.connections == 1


async def test_more_than_one_look_takes(opened, monkeypatch):
    """W1, F4: a long list is told in parts, one right after the other, nothing lost."""
    for module in (sqlite_ends, file_ends):
        monkeypatch.setattr(module, "AT_ONCE", 10)
    one, other = await opened(), await opened()
    handles = [f"h{number}" for number in range(95)]
    await one.commit([create(handle) for handle in handles])
    watched = Watched(other)
    async with listening(other) as (heard, _):
        await watched.pause()
        await one.commit([Delete(handle, "all") for handle in handles])
        watched.times.clear()
        watched.go_on()
        await until(lambda: len(heard.ends) == 95)
        assert len(watched.times) == 9
        assert watched.times[-1] - watched.times[0] < 9 * LOOK_EVERY / 2
        assert sorted(heard.ends) == sorted((handle, "all") for handle in handles)
        assert heard.connections == 1


async def test_the_pace(opened):
    """W2: after the second, and while nothing happens, one look every LOOK_EVERY seconds."""
    store = await opened()
    watched = Watched(store)
    async with listening(store):
        await until(lambda: len(watched.times) >= 4)
    first, *gaps = [b - a for a, b in pairwise(watched.times)]
    assert first >= LOOK_AGAIN * 0.98
    assert min(gaps) >= LOOK_EVERY * 0.98


async def test_nobody_looks_without_listeners(opened, monkeypatch):
    """W2: without listeners there are no looks, and who stops leaves nothing behind."""
    monkeypatch.setattr(polling, "LOOK_EVERY", 0.01)
    store = await opened()
    watched = Watched(store)
    tasks = asyncio.all_tasks()
    await end(store, "h", "why")
    assert watched.times == []
    async with listening(store):
        await until(lambda: len(watched.times) >= 3)
        await watched.pause()  # and stops in the middle of it
    watched.go_on()
    assert asyncio.all_tasks() == tasks
    looks = len(watched.times)
    for _ in range(20):
        await store.count()
        await asyncio.sleep(0.005)
    assert len(watched.times) == looks


@pytest.mark.parametrize("failures", [1, 3])
async def test_a_look_that_fails(opened, failures):
    """W4, F1: it is a StoreError; who then listens again hears what ended meanwhile."""
    one, other = await opened(), await opened()
    watched = Watched(other)
    async with listening(other) as (heard, task):
        watched.error = sqlite3.OperationalError("disk I/O error")
        if isinstance(other, FileStore):
            watched.error = OSError(5, "Input/output error")
        with pytest.raises(StoreError):
            await task
    await end(one, "h", "while nobody could hear")
    for _ in range(failures - 1):
        with pytest.raises(StoreError):
            await other.listen(heard)
    watched.error = None
    someone_else = Heard()
    async with listening(other, someone_else), listening(other, heard):
        assert heard.ends == [("h", "while nobody could hear")]
        assert heard.connections == 2
        assert someone_else.ends == []


def is_closed(store):
    pair = getattr(store, "_pair", None)
    return (store._readers if pair is None else pair.reader) is None


async def test_a_store_that_is_closed(opened):
    """W4: who listens is told so, and does not open it again."""
    store = await opened()
    async with listening(store) as (_, task):
        await store.close()
        with pytest.raises(StoreError, match="was closed"):
            await task
    assert is_closed(store)


async def test_a_long_pause(opened, wall):
    """W4: who was paused until ends were removed unseen says that some were missed."""
    one, other, third = [await opened() for _ in range(3)]
    watched = Watched(other)
    async with listening(other) as (heard, _):
        await end(one, "known", "before")
        await until(lambda: heard.ends)
        await watched.pause()
        await end(one, "unseen", "lost")
        wall.advance(RETENTION + 1)
        await end(third, "late", "heard")
        assert kept(other) == 1
        watched.go_on()
        await until(lambda: heard.connections == 2)
        assert heard.ends == [("known", "before"), ("late", "heard")]


async def test_a_short_pause(opened, wall):
    """W4: who was paused for less hears all of it, and nothing was missed."""
    one, other, third = [await opened() for _ in range(3)]
    watched = Watched(other)
    async with listening(other) as (heard, _):
        await watched.pause()
        await end(one, "a", "first")
        wall.advance(RETENTION / 3)
        await end(third, "b", "second")
        watched.go_on()
        await until(lambda: len(heard.ends) == 2)
        looks = len(watched.times)
        await until(lambda: len(watched.times) > looks)
        assert heard.ends == [("a", "first"), ("b", "second")]
        assert heard.connections == 1


@pytest.mark.parametrize("jump", [RETENTION + 1, -RETENTION - 1])
async def test_old_ends_are_removed(opened, wall, jump):
    """W2: by who adds the next one, wherever the clock has gone, and not every time."""
    one, other, third = [await opened() for _ in range(3)]
    for number in range(5):
        await end(one, f"h{number}", "old")
    await end(other, "h", "not old enough")
    assert kept(one) == 6
    wall.advance(jump)
    await end(one, "h", "too soon after the last time")
    assert kept(one) == 7
    await end(third, "h", "new")
    assert kept(one) == 2


async def test_what_is_no_end_costs_nothing(opened):
    """W1, P7: only an end that was applied is put on record, not what has expired."""
    store = await opened()
    store.clock = clock = FakeClock(time.time())
    await store.commit([create("h"), create("old")])
    await store.commit([Apply(handle="h", set={"k": b"2"}), Delete("none")])
    clock.advance(7200)
    assert await store.commit([Delete("h")]) == [Outcome.GONE]
    assert await store.sweep(1) == 1
    await store.clear()
    assert kept(store) == 0


async def test_ends_disturb_nobody(opened):
    """R3, R4: what is on record is no session, and outlives `clear`, to be heard of."""
    one, other = await opened(), await opened()
    await one.commit([create("stays")])
    async with listening(other) as (heard, _):
        await end(one, "h", "why")
        assert await one.count() == 1
        assert [record.handle async for record in one.iterate()] == ["stays"]
        assert await one.sweep(10) == 0
        await one.clear()
        assert await one.count() == 0
        await until(lambda: heard.ends == [("h", "why")])


# -- SQLite ----------------------------------------------------------------------


async def test_one_insert_for_an_end(tmp_path):
    """P7: a delete inserts one row, in its own transaction; other changes none."""
    async with SQLiteStore(tmp_path / "s.db") as store:
        await end(store, "first", "which also removes what is old")
        statements = []
        await store._pair.write(lambda db: db.set_trace_callback(statements.append))
        await store.commit([create("h")])
        await store.commit([Apply(handle="h", set={"k": b"2"})])
        assert not [one for one in statements if ENDS in one]
        statements.clear()
        await store.commit([Delete("h", "why")])
        (insert,) = [one for one in statements if ENDS in one]
        assert insert.startswith("INSERT")
        assert (statements[0], statements[-1]) == ("BEGIN IMMEDIATE", "COMMIT")


async def test_a_batch_that_is_rolled_back(tmp_path):
    """W1, R1: of a batch with an item that is at fault, each end is told once."""
    async with SQLiteStore(tmp_path / "s.db") as store:
        await store.commit([create("h")])
        async with listening(store) as (heard, _):
            bad = Apply(handle="h", meta={"unknown": 1})
            failed, outcome = await store.commit([bad, Delete("h", "why")])
            assert isinstance(failed, StoreError)
            assert outcome is APPLIED
            await end(store, "last", "last")
            await until(lambda: ("last", "last") in heard.ends)
            assert heard.ends == [("h", "why"), ("last", "last")]


DAMAGES = {
    "a row": f"UPDATE \"{ENDS}\" SET reason = CAST(x'ff' AS TEXT) WHERE handle = 'bad'",
    "the first": f"DELETE FROM \"{ENDS}\" WHERE handle = 'first'",
    "all": f'DELETE FROM "{ENDS}"',
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_table_that_was_tampered_with(tmp_path, damage):
    """W4, S6: whatever is missing or cannot be read, it is said that ends were missed."""
    path = tmp_path / "s.db"
    async with SQLiteStore(path) as store:
        await end(store, "before", "so that the table is not empty")
        watched = Watched(store)
        async with listening(store) as (heard, _):
            await watched.pause()
            ends = [("first", "1"), ("bad", "2"), ("last", "3")]
            for one in ends:
                await end(store, *one)
            with closing(sqlite3.connect(path)) as db, db:
                db.execute(f"DELETE FROM \"{ENDS}\" WHERE handle = 'before'")
                db.execute(DAMAGES[damage])
            watched.go_on()
            await until(lambda: heard.connections == 2)
            left = {"a row": [ends[0], ends[2]], "the first": ends[1:], "all": []}
            assert heard.ends == left[damage]
            await end(store, "h", "goes on")
            await until(lambda: ("h", "goes on") in heard.ends)


async def test_an_older_database(tmp_path):
    """W2, R4: one without a table of ends gets it, and then tells of them."""
    path, names = tmp_path / "s.db", tables("tornado_sessions")
    assert names["ends"] == f'"{ENDS}"'
    versions = '"tornado_sessions/schema"'
    with closing(sqlite3.connect(path)) as db, db:
        for statement in chain.from_iterable(MIGRATIONS[:2]):
            db.execute(statement.format(**names))
        db.execute(f"CREATE TABLE {versions} (namespace PRIMARY KEY, version)")
        db.execute(f"INSERT INTO {versions} VALUES ('tornado_sessions', 2)")
    async with SQLiteStore(path) as store, listening(store) as (heard, _):
        await store.commit([create("h")])
        assert await store.commit([Delete("h", "after all")]) == [APPLIED]
        await until(lambda: heard.ends == [("h", "after all")])


# -- files -----------------------------------------------------------------------


@pytest.fixture
async def files(tmp_path):
    async with FileStore(tmp_path / "sessions") as store:
        yield store


@pytest.fixture
def there():
    """The handles whose records are there."""
    return {"h"}


@pytest.fixture
def notes(tmp_path, there):
    return EndNotes(tmp_path, there.__contains__)


def fill_up(folder):
    """Write until the disk is full."""
    with (folder / "filler").open("wb", 0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 512):
            pass


async def test_a_full_disk(caplog):
    """W1, F3: without room for a note the session ends all the same; the log says so."""
    with tiny_disk() as folder:
        if not os.path.ismount(folder):
            pytest.skip("no small disk can be mounted here")
        async with FileStore(folder) as store:
            await store.commit([create("h")])
            fill_up(folder)
            assert await store.commit([Delete("h")]) == [APPLIED]
            assert await store.load(["h"]) == [None]
            assert "may not hear that a session ended" in caplog.text
            assert "free space" in caplog.text
            assert kept(store) == 0


async def test_a_folder_that_cannot_be_written_to(caplog):
    """W1, F3: neither can a folder of another user keep a session from ending."""
    with foreign_folder() as (folder, _):
        folder.chmod(0o777)
        user = os.geteuid()
        if user == 0:
            os.seteuid(NOBODY)  # whom permissions concern
        try:
            async with FileStore(folder) as store:
                await store.commit([create("h")])
                store._ends._folder.chmod(0o500)
                assert await store.commit([Delete("h")]) == [APPLIED]
                assert await store.load(["h"]) == [None]
        finally:
            os.seteuid(user)
        assert "let this process write to it" in caplog.text


async def test_a_folder_that_is_gone(files):
    """W4, F3: who listens gets a StoreError, and hears again when it is back."""
    async with listening(files) as (heard, task):
        files._ends._folder.rmdir()
        with pytest.raises(StoreError, match="No such file"):
            await task
        files._ends._folder.mkdir()
    async with listening(files, heard):
        await end(files, "h", "why")
        await until(lambda: heard.ends == [("h", "why")])


async def test_a_session_that_cannot_be_removed(files, monkeypatch):
    """W1, F3: it has not ended, so the note is taken back, and nobody is told."""
    await files.commit([create("h")])

    def refuse(name):
        raise PermissionError(13, "Permission denied")

    async with listening(files) as (heard, _):
        with monkeypatch.context() as patch:
            patch.setattr(files._files, "unlink", refuse)
            (failed,) = await files.commit([Delete("h", "in vain")])
        assert isinstance(failed, StoreError)
        assert kept(files) == 0
        await end(files, "other", "why")
        await until(lambda: ("other", "why") in heard.ends)
        assert heard.ends == [("other", "why")]


async def test_a_session_whose_removal_is_not_confirmed(files, monkeypatch):
    """W1, F3: if it is gone though the disk reports an error, others are told."""
    await files.commit([create("h")])

    def refuse(name):
        raise OSError(5, "Input/output error")

    async with listening(files) as (heard, _):
        monkeypatch.setattr(files._files, "remove", refuse)
        (failed,) = await files.commit([Delete("h", "perhaps")])
        assert isinstance(failed, StoreError)
        await until(lambda: heard.ends == [("h", "perhaps")])


async def test_files_of_others(files):
    """W2: other files among the notes are neither told of nor removed."""
    folder = files._ends._folder
    strays = [
        ".DS_Store",
        "0" * 20,
        f"{'0' * 20}-{'g' * 16}",
        f"{'0' * 20}-{'0' * 16}~",
    ]
    for stray in strays:
        (folder / stray).write_text("mine")
    async with listening(files) as (heard, _):
        await end(files, "h", "why")
        await until(lambda: heard.ends == [("h", "why")])
        assert heard.connections == 1
    assert {path.name for path in folder.iterdir()} >= set(strays)


def test_who_comes_while_a_session_is_being_removed(notes, there):
    """W1: an end is told once the session is removed, whoever saw that it was about to be."""
    begun = notes.news(None).place
    note = notes.begin("h", "why")
    late = notes.news(None).place
    first = notes.news(begun)
    assert (first.ends, first.missed) == ([], False)
    there.clear()
    notes.settle(note, ended=True)
    second = notes.news(first.place)
    assert second.ends == notes.news(late).ends == [("h", "why")]
    assert not second.missed
    assert notes.news(second.place).ends == []
    assert notes.news(notes.news(None).place).ends == []


def test_a_note_that_is_half_written(notes, there):
    """W1: while it is written it is no news; one that never will be whole is an end missed."""
    place = notes.news(None).place
    note = notes.begin("h", "why")
    note.write_bytes(note.read_bytes()[:-1])
    there.clear()
    for _ in range(2):
        news = notes.news(place)
        assert (news.ends, news.missed) == ([], False)
        place = news.place
    notes.settle(note, ended=True)
    news = notes.news(place)
    assert (news.ends, news.missed) == ([], True)
    assert not notes.news(news.place).missed


@pytest.mark.parametrize("settles", [True, False])
def test_a_note_that_is_settled_late_or_never(notes, there, settles):
    """W1, W2: what has ended is told by its record, once, with its exact reason."""
    places = [notes.news(None).place]
    note = notes.begin("h", "why")
    places += [notes.news(places[0]).place, notes.news(None).place]
    for place in places * 2:
        assert notes.news(place).ends == []
    there.clear()
    for place in places:
        news = notes.news(place)
        if settles and note.exists():
            notes.settle(note, ended=True)
        assert (news.ends, news.missed) == ([("h", "why")], False)
        assert notes.news(news.place).ends == []


def test_more_notes_than_one_look_takes(notes, there, monkeypatch):
    """F4: those of sessions that are there are none of them, however many there are."""
    monkeypatch.setattr(file_ends, "AT_ONCE", 2)
    place = notes.news(None).place
    for handle in "hhhabc":
        notes.begin(handle, "why")
    first = notes.news(place)
    second = notes.news(first.place)
    assert [first.more, second.more] == [True, False]
    assert [*first.ends, *second.ends] == [(handle, "why") for handle in "abc"]


def test_what_was_seen_is_forgotten(notes, wall):
    """W2: who listens remembers no more notes than there are."""
    place = notes.news(None).place
    for number in range(3):
        notes.settle(notes.begin(f"h{number}", "why"), ended=True)
    place = notes.news(place).place
    assert len(place.names) == 3
    wall.advance(RETENTION + 1)
    notes._prune()
    assert notes.news(place).place.names == frozenset()


def test_old_notes_are_removed_some_at_a_time(tmp_path, wall, monkeypatch):
    """W2, F1: whoever ends a session holds a lock meanwhile; the next one goes on."""
    monkeypatch.setattr(file_ends, "AT_ONCE", 3)
    notes = EndNotes(tmp_path, lambda handle: False)
    for number in range(7):
        notes.settle(notes.begin(f"h{number}", "destroyed"), ended=True)
    wall.advance(RETENTION + 1)
    notes._prune_at = -math.inf
    left = []
    for number in range(3):
        notes.settle(notes.begin(f"more {number}", "destroyed"), ended=True)
        left.append(len([*tmp_path.iterdir()]))
    assert left == [5, 3, 3]
