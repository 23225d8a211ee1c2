"""Which sessions a principal has, as empty files: one folder for each principal.

It may hold too much, but never too little: a name is added before the record is written,
and taken out when it is found not to belong (R4).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from tornado_sessions.stores.file_format import make_folder, sync_directory


def file_name(text: str) -> str:
    """Return the file name that stands for *text*, which may be anything."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class PrincipalIndex:
    """The index in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self, principal: str) -> list[str]:
        """Return the names of files that may hold sessions of *principal*."""
        try:
            return os.listdir(self._of(principal))
        except FileNotFoundError:
            return []

    def add(self, principal: str, name: str) -> None:
        """Note that the file *name* holds a session of *principal*."""
        folder = self._of(principal)
        while not (folder / name).exists():
            make_folder(folder)
            with contextlib.suppress(FileNotFoundError):  # removed when it was empty
                (folder / name).touch(mode=0o600)
                sync_directory(folder)

    def discard(self, principal: str, name: str) -> None:
        """Forget the file *name*; a folder that is empty then goes too."""
        folder = self._of(principal)
        (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are in it, or it is gone
            folder.rmdir()

    def _of(self, principal: str) -> Path:
        return self._folder / file_name(principal)
