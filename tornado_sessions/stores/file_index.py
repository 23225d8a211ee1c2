"""Which sessions a principal has, as empty files: one folder for each principal.

It may hold too much, but never too little: a name is added before the record is written,
and taken out when it is found not to belong (R4).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path

from tornado_sessions.stores.file_format import make_folder, sync_directory

_FILE_NAME = re.compile(r"[0-9a-f]{64}")


def file_name(text: str) -> str:
    """Return the file name that stands for *text*, which may be anything."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_file_name(text: str) -> bool:
    """Return whether *text* is what `file_name` returns: others leave files, too."""
    return _FILE_NAME.fullmatch(text) is not None


class PrincipalIndex:
    """The index in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self, principal: str) -> list[str]:
        """Return the names of files that may hold sessions of *principal*."""
        try:
            return [*filter(is_file_name, os.listdir(self._of(principal)))]
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
        """Forget the file *name*, if it works; a folder that is empty then goes too."""
        folder = self._of(principal)
        with contextlib.suppress(OSError):  # others are in it, or it may hold too much
            (folder / name).unlink(missing_ok=True)
            folder.rmdir()

    def _of(self, principal: str) -> Path:
        return self._folder / file_name(principal)
