"""What a run was measured on."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import tornado

from benchmarks.databases import MONGO, REDIS, NotThereError

_DRIVERS = ("redis", "hiredis", "pymongo")
_VERSION = re.compile(r"v=?(\d+(?:\.\d+)+)")


@dataclass(frozen=True)
class Machine:
    """The machine, what ran on it, and when."""

    processor: str
    cores: int
    system: str
    python: str
    tornado: str
    sqlite: str
    databases: str
    date: str
    busy: float
    """Processes that wanted a core when the run began (load average)."""

    @property
    def sentence(self) -> str:
        return (
            f"Measured on {self.date}: {self.processor}, {self.cores} cores, "
            f"{self.system}, Python {self.python}, Tornado {self.tornado}, "
            f"SQLite {self.sqlite}, {self.databases}load average {self.busy:.1f} at the start."
        )


def this_machine() -> Machine:
    """Describe the machine that runs this."""
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        tornado=tornado.version,
        sqlite=sqlite3.sqlite_version,
        databases="".join(f"{one}, " for one in _databases()),
        date=datetime.now(timezone.utc).date().isoformat(),
        busy=os.getloadavg()[0],
    )


def _databases() -> list[str]:
    """Return the versions of the database servers, and of what speaks to them."""
    found = []
    for database in (REDIS, MONGO):
        with suppress(NotThereError):
            text = subprocess.run(
                [database.found(), "--version"],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            number = _VERSION.search(text)
            found.append(f"{database.name} {number[1] if number else '?'}")
    for package in _DRIVERS:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{package} {metadata.version(package)}")
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    models = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return models[0] if models else platform.machine()
