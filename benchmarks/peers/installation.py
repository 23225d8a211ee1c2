"""Installs the peers, each into an environment of its own, outside of this repository."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.databases import NotThereError

_HERE = Path(__file__).parent
_NODE_FILES = ("package.json", "express_server.mjs")


def cache() -> Path:
    """Return the directory of what is installed; it can be deleted at any time."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "tornado-sessions-benchmarks"


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and exactly what it holds besides what that needs."""

    name: str
    requirements: tuple[str, ...]

    @property
    def directory(self) -> Path:
        version = "{}.{}".format(*sys.version_info)
        return cache() / f"python{version}-{self.name}"

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    async def install(self) -> None:
        """Make it, unless it is there with these requirements and by this very Python.

        Two builds of one version differ by a quarter in what they take for the same.

        Raises:
            NotThereError: It could not be made.
        """
        wanted = "\n".join((sys.version, *self.requirements))
        if _holds(self.directory, wanted):
            return
        shutil.rmtree(self.directory, ignore_errors=True)
        await _run(sys.executable, "-m", "venv", str(self.directory))
        pip = (str(self.python), "-m", "pip", "install", "--quiet")
        await _run(*pip, "--disable-pip-version-check", *self.requirements)
        _note(self.directory, wanted)


@dataclass(frozen=True)
class NodeFolder:
    """A folder with the server for Node.js and the packages that it names."""

    name: str = "express"

    @property
    def directory(self) -> Path:
        return cache() / self.name

    async def install(self) -> None:
        """Make it, unless it is there with these packages.

        Raises:
            NotThereError: Node.js is missing, or the packages are not to be had.
        """
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            raise NotThereError("Node.js, which brings npm")
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in _NODE_FILES:
            shutil.copy(_HERE / name, self.directory / name)
        wanted = (_HERE / "package.json").read_text(encoding="utf-8")
        if not _holds(self.directory, wanted):
            quiet = ("--no-audit", "--no-fund", "--no-package-lock", "--silent")
            await _run(npm, "install", "--prefix", str(self.directory), *quiet)
            _note(self.directory, wanted)


def _holds(directory: Path, wanted: str) -> bool:
    noted = directory / "installed.txt"
    return noted.exists() and noted.read_text(encoding="utf-8") == wanted


def _note(directory: Path, installed: str) -> None:
    (directory / "installed.txt").write_text(installed, encoding="utf-8")


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL
    )
    if await process.wait() != 0:
        raise NotThereError(f"what `{' '.join(command)}` installs, which failed")
