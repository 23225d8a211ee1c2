"""What is said, in which room, and who is there: a SQLite file of the chat's own.

Sessions are not in it; who somebody is, the session says. Several servers may share one
file: each writes what its own sockets do, and looks a few times a second what others did.
All methods block, so the `Hub` calls them in a thread.
"""

import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from examples.shared.secret import ExampleError

FIRST_ROOMS = ("Harbour", "Galley", "Lighthouse")
MOST_ROOMS = 30
HISTORY = 50
"""How many lines somebody sees who enters a room."""
KEPT = 500
"""How many lines of a room the file keeps."""
LAPSE = 6.0
"""Seconds after which somebody is gone whose server says nothing of them any more."""

SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS rooms (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE);
CREATE TABLE IF NOT EXISTS lines (
    id INTEGER PRIMARY KEY AUTOINCREMENT, room INTEGER NOT NULL, name TEXT NOT NULL,
    text TEXT NOT NULL, nonce TEXT NOT NULL, at REAL NOT NULL, UNIQUE (name, nonce));
CREATE INDEX IF NOT EXISTS lines_of_rooms ON lines (room, id);
CREATE TABLE IF NOT EXISTS present (
    socket TEXT PRIMARY KEY, handle TEXT NOT NULL, name TEXT NOT NULL,
    room INTEGER NOT NULL, seen REAL NOT NULL);
"""


class MessagesError(ExampleError):
    """The file cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Line:
    """One thing somebody said."""

    id: int
    room: int
    name: str
    text: str
    nonce: str
    """Made up by the browser that sent it, which recognises its own line by it."""
    at: float


@dataclass(frozen=True)
class Presence:
    """One open socket: whose, of which session, in which room."""

    socket: str
    handle: str
    name: str
    room: int


@dataclass
class News:
    """What was found in the file at one look."""

    lines: list[Line] = field(default_factory=list)
    history: dict[int, list[Line]] = field(default_factory=dict)
    rooms: dict[int, str] = field(default_factory=dict)
    present: list[Presence] = field(default_factory=list)


class Messages:
    """The file, open from `open` to `close`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self) -> None:
        """Open the file, with tables and the first rooms in it if it is new."""
        try:
            self._db = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False
            )
            self._db.executescript(SCHEMA)
            rows = [(name,) for name in FIRST_ROOMS]
            self._db.executemany("INSERT OR IGNORE INTO rooms (name) VALUES (?)", rows)
        except sqlite3.Error as error:
            raise MessagesError(
                f"--messages: cannot use {self.path}: {error}"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- rooms and lines -----------------------------------------------------------

    def rooms(self) -> dict[int, str]:
        """Return the names of all rooms by their numbers."""
        return dict(self._db.execute("SELECT id, name FROM rooms ORDER BY id"))

    def open_room(self, name: str) -> int | None:
        """Return the number of a room, new or not; None if there are too many."""
        self._db.execute(
            "INSERT OR IGNORE INTO rooms (name)"
            " SELECT ? WHERE (SELECT count(*) FROM rooms) < ?",
            (name, MOST_ROOMS),
        )
        found = self._db.execute("SELECT id FROM rooms WHERE name = ?", (name,))
        return next((number for (number,) in found), None)

    def say(self, room: int, name: str, text: str, nonce: str) -> bool:
        """Keep a line; False if it was kept before, and sent after a lost connection."""
        added = self._db.execute(
            "INSERT OR IGNORE INTO lines (room, name, text, nonce, at)"
            " VALUES (?, ?, ?, ?, ?)",
            (room, name, text, nonce, time.time()),
        )
        self._db.execute(
            "DELETE FROM lines WHERE room = ?1 AND id <= (SELECT id FROM lines"
            " WHERE room = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            (room, KEPT),
        )
        return added.rowcount == 1

    # -- who is there ----------------------------------------------------------------

    def beat(self, here: Iterable[Presence], gone: Iterable[str]) -> None:
        """Note who is here, again and again: who is not for a while has gone."""
        now = time.time()
        rows = [(one.socket, one.handle, one.name, one.room, now) for one in here]
        self._db.executemany("REPLACE INTO present VALUES (?, ?, ?, ?, ?)", rows)
        ended = [(socket,) for socket in gone]
        self._db.executemany("DELETE FROM present WHERE socket = ?", ended)
        self._db.execute("DELETE FROM present WHERE seen < ?", (now - LAPSE,))

    def present(self) -> list[Presence]:
        """Return who is in which room, at whichever server."""
        found = self._db.execute(
            "SELECT socket, handle, name, room FROM present WHERE seen > ?"
            " ORDER BY name COLLATE NOCASE",
            (time.time() - LAPSE,),
        )
        return [Presence(*row) for row in found]

    # -- a look at all of it -----------------------------------------------------------

    def look(self, after: int, entered: Iterable[int]) -> News:
        """Return what was said after a line, and the history of rooms just entered."""
        self._db.execute("BEGIN")  # so that the parts fit together
        try:
            return News(
                self._lines("id > ? ORDER BY id", after),
                {room: self._history(room) for room in entered},
                self.rooms(),
                self.present(),
            )
        finally:
            with suppress(sqlite3.Error):
                self._db.execute("COMMIT")

    def newest(self) -> int:
        """Return the number of the last line, 0 if there is none."""
        [(newest,)] = self._db.execute("SELECT coalesce(max(id), 0) FROM lines")
        return int(newest)

    def _history(self, room: int) -> list[Line]:
        return self._lines("room = ? ORDER BY id DESC LIMIT ?", room, HISTORY)[::-1]

    def _lines(self, which: str, *values: int) -> list[Line]:
        columns = "id, room, name, text, nonce, at"
        query = f"SELECT {columns} FROM lines WHERE {which}"  # noqa: S608  (ours)
        return [Line(*row) for row in self._db.execute(query, values)]
