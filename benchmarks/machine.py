"""What a run was measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import tornado


@dataclass(frozen=True)
class Machine:
    """The machine, what ran on it, and when."""

    processor: str
    cores: int
    system: str
    python: str
    tornado: str
    sqlite: str
    date: str
    busy: float
    """Processes that wanted a core when the run began (load average)."""

    @property
    def sentence(self) -> str:
        return (
            f"Measured on {self.date}: {self.processor}, {self.cores} cores, "
            f"{self.system}, Python {self.python}, Tornado {self.tornado}, "
            f"SQLite {self.sqlite}, load average {self.busy:.1f} at the start."
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
        date=datetime.now(timezone.utc).date().isoformat(),
        busy=os.getloadavg()[0],
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    models = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return models[0] if models else platform.machine()
