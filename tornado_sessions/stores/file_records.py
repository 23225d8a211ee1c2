"""The files that hold the records, in 256 folders; each is replaced as a whole."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from tornado_sessions.stores.base import Loaded, Record
from tornado_sessions.stores.file_format import (
    decoded,
    encoded,
    explained,
    make_folder,
    sync_directory,
    write_durably,
)
from tornado_sessions.stores.file_index import is_file_name

log = logging.getLogger("tornado_sessions")

SHARDS = 256
"""The first two hexadecimal digits of a name say in which folder its file is."""
PARTIAL = ".partial"
"""Ends the name of a file that is being written, or that a crash left behind."""


class RecordFiles:
    """The files below *root*. Who writes or removes one holds the lock of its name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "records"

    def read(self, name: str) -> Loaded:
        """Return the record in the file *name*, expired or not, or why there is none."""
        try:
            raw = self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            return explained(error, self._root)
        return decoded(raw)

    def write(self, name: str, record: Record) -> None:
        """Have the file *name* hold *record*, and nothing else, from one moment on."""
        path = self._path(name)
        make_folder(path.parent)
        # Under the lock nobody else writes this name, and what a crash left behind
        # is overwritten, or swept.
        unfinished = path.with_name(name + PARTIAL)
        try:
            write_durably(unfinished, encoded(record), record.meta.expires_at)
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)

    def remove(self, name: str) -> None:
        """Remove the file *name*, if it is there, for good."""
        self.unlink(name)
        sync_directory(self._path(name).parent)

    def unlink(self, name: str) -> None:
        """Remove the file *name*, if it is there, but do not wait for the disk."""
        self._path(name).unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        """Return whether the file *name* is there, as far as that can be told."""
        return os.path.lexists(self._path(name))

    def entries(self, shard: int) -> list[os.DirEntry[str]]:
        """Return the files of a folder, unfinished ones too, and nobody else's."""
        try:
            with os.scandir(self._folder / f"{shard:02x}") as entries:
                return [
                    e for e in entries if is_file_name(e.name.removesuffix(PARTIAL))
                ]
        except FileNotFoundError:
            return []
        except OSError as error:
            os.listdir(self._folder)  # raises, unless it is this folder alone
            log.warning("left out a folder of sessions: %s", error)
            return []

    def names(self, shard: int) -> list[str]:
        """Return the names of the records in a folder."""
        return [e.name for e in self.entries(shard) if not e.name.endswith(PARTIAL)]

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name
