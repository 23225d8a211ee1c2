"""The tables of a SQLite database, and how older ones become the present ones."""

from __future__ import annotations

from tornado_sessions.errors import StoreError
from tornado_sessions.stores.sqlite_connection import Database, Transaction

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE {records} (
            handle TEXT PRIMARY KEY, epoch INTEGER NOT NULL, token BLOB NOT NULL,
            created_at REAL NOT NULL, last_seen_at REAL NOT NULL,
            expires_at REAL NOT NULL, epoch_at REAL NOT NULL, principal TEXT,
            persistent INTEGER, user_agent TEXT NOT NULL, ip TEXT NOT NULL,
            rotated_at REAL NOT NULL, previous BLOB, salt BLOB, confirmed_at REAL
        ) WITHOUT ROWID""",
        """CREATE TABLE {values} (
            handle TEXT NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL,
            PRIMARY KEY (handle, name)
        ) WITHOUT ROWID""",
    ),
    (
        "CREATE INDEX {by_expiry} ON {records} (expires_at)",
        """CREATE INDEX {by_principal} ON {records} (principal)
            WHERE principal IS NOT NULL""",
    ),
    (
        """CREATE TABLE {ends} (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, handle TEXT NOT NULL,
            reason TEXT NOT NULL, at REAL NOT NULL
        )""",
    ),
    ("ALTER TABLE {records} ADD COLUMN authenticated_at REAL",),
)
"""What takes the schema from version n to n + 1. Only ever appended to."""

_VERSIONS = """CREATE TABLE IF NOT EXISTS "tornado_sessions/schema"
    (namespace TEXT PRIMARY KEY, version INTEGER NOT NULL)"""


def tables(namespace: str) -> dict[str, str]:
    """Return the quoted names of what belongs to *namespace*, which holds no quote."""
    names = ("records", "values", "by_expiry", "by_principal", "ends")
    return {name: f'"{namespace}/{name}"' for name in names}


def migrate(namespace: str, db: Database) -> None:
    """Bring what *namespace* has in *db* to the present version.

    Raises:
        StoreError: A newer release wrote it, or a namespace has nearly the same name.
    """
    with Transaction(db):
        db.execute(_VERSIONS)
        _refuse_twin(namespace, db)
        version = _version(namespace, db)
        if version > len(MIGRATIONS):
            raise StoreError(
                f"the database has schema version {version}, and this release knows "
                f"{len(MIGRATIONS)}: use the release that wrote it, or another file"
            )
        for step in MIGRATIONS[version:]:
            for statement in step:
                db.execute(statement.format(**tables(namespace)))
        db.execute(
            'INSERT OR REPLACE INTO "tornado_sessions/schema" VALUES (?, ?)',
            (namespace, len(MIGRATIONS)),
        )


def _refuse_twin(namespace: str, db: Database) -> None:
    """Refuse a name that differs only in case: SQLite takes its tables for the same."""
    query = """SELECT namespace FROM "tornado_sessions/schema"
        WHERE namespace = ? COLLATE NOCASE AND namespace <> ?"""
    for (other,) in db.execute(query, (namespace, namespace)):
        raise StoreError(
            f"the database has the namespace {other!r}, from which {namespace!r} differs "
            "in upper and lower case only: choose another name, or another file"
        )


def _version(namespace: str, db: Database) -> int:
    query = 'SELECT version FROM "tornado_sessions/schema" WHERE namespace = ?'
    found = db.execute(query, (namespace,)).fetchone()
    return int(found[0]) if found else 0
