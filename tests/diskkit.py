"""Disks that refuse to work: full, or not ours to write to."""

import os
import resource
import shutil
import stat
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534
ROOM = 96 * 1024


@contextmanager
def tiny_disk():
    """Give a directory with little room: a small tmpfs, or a limit on file sizes."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    mounted = False
    if shutil.which("mount"):
        mounted = not subprocess.run(mount, capture_output=True, check=False).returncode
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, before[1]))
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        shutil.rmtree(folder)


@contextmanager
def foreign_folder():
    """Give an empty directory, and a way to make it read-only that root minds, too.

    Yields:
        The directory, and a context manager in which its content is read-only.
    """
    folder = Path(tempfile.mkdtemp(prefix="foreign-"))
    try:
        folder.chmod(0o755)
        yield folder, lambda: _read_only(folder)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _read_only(folder):
    places = [folder, *folder.rglob("*")]
    modes = {place: stat.S_IMODE(place.stat().st_mode) for place in places}
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    privileged = os.geteuid() == 0
    if privileged:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if privileged:
            os.seteuid(0)
        for place, mode in modes.items():
            place.chmod(mode)
