"""Who is compared: the servers, and the contestants that they serve."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.databases import MONGO, REDIS, Database
from benchmarks.peers.installation import Environment, NodeFolder

ROOT = Path(__file__).parents[2]
_REDIS_PY = "redis==8.1.0"
_UVICORN = "uvicorn[standard]==0.54.0"
_OURS = ("msgspec", "pymongo", "redis", "tornado")
"""What the library needs: in another environment, the very same versions of it."""


@dataclass(frozen=True)
class Contestant:
    """A way to keep sessions, and the paths of a server that use it."""

    name: str
    read: str = "/read"
    write: str = "/write"
    ours: bool = False


@dataclass(frozen=True)
class Peer:
    """A server: a framework, where it is installed, and who runs in it."""

    framework: str
    contestants: tuple[Contestant, ...]
    database: Database | str
    """A database server, or the URL of what needs none; {folder} is a directory."""
    module: str = "benchmarks.server"
    environment: Environment | NodeFolder | None = None
    """None: that of the benchmarks."""
    more: tuple[str, ...] = ()
    """Further arguments for the server; {url} is the URL of the database."""

    @property
    def name(self) -> str:
        return self.contestants[0].name

    @property
    def keeps(self) -> str:
        """Return the name of what keeps the sessions."""
        if isinstance(self.database, Database):
            return self.database.name
        return "SQLite" if self.database.startswith("sqlite") else "memory"

    def command(self, url: str, folder: Path) -> list[str]:
        """Return what starts the server on the database at *url*."""
        more = (one.format(url=url, folder=folder) for one in self.more)
        return [*self._program(), "--store", url, *more]

    def _program(self) -> Iterable[str]:
        if isinstance(self.environment, NodeFolder):
            node = shutil.which("node") or "node"
            return (node, str(self.environment.directory / "express_server.mjs"))
        python = self.environment.python if self.environment else sys.executable
        return (str(python), "-m", self.module)

    def surroundings(self) -> dict[str, str]:
        """Return the environment variables of the server: those of production."""
        return {**os.environ, "NODE_ENV": "production", "PYTHONPATH": str(ROOT)}


def _python(name: str, *requirements: str) -> Environment:
    return Environment(name, requirements)


def _uvloop() -> Environment:
    ours = (f"{name}=={metadata.version(name)}" for name in _OURS if _installed(name))
    return _python("uvloop", "uvloop==0.23.0", *ours)


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


_LITESTAR = _python("litestar", "litestar==2.25.0", _REDIS_PY, _UVICORN)
_STARLETTE = _python(
    "starlette", "starsessions==2.2.1", "starlette==1.10.0", _REDIS_PY, _UVICORN
)
_AIOHTTP = _python("aiohttp", "aiohttp==3.14.5", "aiohttp-session==2.12.1", _REDIS_PY)
_FLASK = _python(
    *("flask", "flask==3.1.3", "flask-session==0.8.0", "waitress==3.0.2", _REDIS_PY)
)
_BY_HAND = ("--handwritten", "{url}")


def _ours(name: str) -> Contestant:
    return Contestant(f"tornado_sessions, {name}", ours=True)


def _by_hand(driver: str) -> Contestant:
    return Contestant(f"Tornado, {driver} by hand", "/handwritten-read", "/handwritten")


def _tornado() -> list[Peer]:
    """Return our own store on each database, beside what one writes by hand."""
    sqlite = (_ours("SQLite"), _by_hand("sqlite3"))
    file = "sqlite:///{folder}/ours.db"
    other_file = ("--handwritten", "{folder}/by-hand.db")
    return [
        Peer("Tornado", (_ours("memory"),), "memory://"),
        Peer("Tornado", sqlite, file, more=other_file),
        Peer("Tornado", (_ours("Redis"), _by_hand("redis-py")), REDIS, more=_BY_HAND),
        Peer("Tornado", (_ours("MongoDB"), _by_hand("PyMongo")), MONGO, more=_BY_HAND),
        Peer(
            "Tornado on uvloop",
            (_ours("Redis, uvloop"),),
            REDIS,
            environment=_uvloop(),
            more=("--uvloop",),
        ),
    ]


def _express() -> list[Peer]:
    def peer(store: str, database: Database | str) -> Peer:
        contestant = Contestant(f"express-session, {store}")
        return Peer("Express", (contestant,), database, environment=NodeFolder())

    return [
        peer("memory", "memory://"),
        peer("connect-redis", REDIS),
        peer("connect-mongo", MONGO),
    ]


def _others() -> list[Peer]:
    """Return the peers in Python."""
    litestar, starlette = (
        f"benchmarks.peers.{name}_server" for name in ("litestar", "starlette")
    )
    below = Contestant("aiohttp-session, Redis", "/sessions/read", "/sessions/write")
    flask = (Contestant("Flask-Session, Redis"),)
    return [
        Peer(
            "Starlette",
            (Contestant("starsessions, memory"),),
            "memory://",
            starlette,
            _STARLETTE,
        ),
        Peer(
            "Starlette",
            (Contestant("starsessions, Redis"),),
            REDIS,
            starlette,
            _STARLETTE,
        ),
        Peer(
            "Litestar",
            (Contestant("Litestar, memory"),),
            "memory://",
            litestar,
            _LITESTAR,
        ),
        Peer("Litestar", (Contestant("Litestar, Redis"),), REDIS, litestar, _LITESTAR),
        Peer("aiohttp", (below,), REDIS, "benchmarks.peers.aiohttp_server", _AIOHTTP),
        Peer("Flask", flask, REDIS, "benchmarks.peers.flask_server", _FLASK),
    ]


def peers(only: Iterable[str] = ()) -> list[Peer]:
    """Return all peers, or those whose framework's name has a part of *only* in it."""
    everyone = [*_tornado(), *_express(), *_others()]
    wanted = [part.casefold() for part in only]
    if not wanted:
        return everyone
    return [
        one
        for one in everyone
        if any(part in f"{one.framework} {one.name}".casefold() for part in wanted)
    ]
