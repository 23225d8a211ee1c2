"""The secret that signs cookies, the same after every restart."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tornado_sessions.stores import store_from_url

SHORTEST = 32


class ExampleError(Exception):
    """An example cannot start; the message says what to do."""


class SecretError(ExampleError):
    """The secret cannot be read or kept; the message says what to do."""


def secret_for(store: str, name: str) -> tuple[str, str]:
    """Return the cookie secret and the place it comes from.

    In production it comes from the environment, out of reach of a backup of the
    database. For a first try it is made up once and kept beside the database:
    a new one at every start would log everybody out.
    """
    if given := os.environ.get("COOKIE_SECRET"):
        return given, "the environment (COOKIE_SECRET)"
    if store.startswith("memory:"):
        return secrets.token_urlsafe(48), "memory, since the sessions are there too"
    store_from_url(store)  # complains about a bad URL before a file is written
    path = secret_path(store, name)
    try:
        return kept_secret(path), str(path)
    except OSError as error:
        raise SecretError(
            f"--store: cannot keep the cookie secret in {path}: {error.strerror}. "
            "Name a directory that exists and is writable, or set COOKIE_SECRET."
        ) from error


def secret_path(store: str, name: str) -> Path:
    """Place the file beside an embedded database, else where the example started."""
    url = urlsplit(store)
    if url.scheme not in {"sqlite", "file"} or not url.path.strip("/"):
        return Path(f"{name}.secret")
    path = unquote(url.path)
    if url.scheme == "sqlite" or path.startswith("/."):
        path = path[1:]  # relative: sqlite:///cart.db, file:///./carts
    return Path(path).with_name(f"{Path(path).name}.secret")


def kept_secret(path: Path) -> str:
    """Read the secret, made up and written first if there is none."""
    with suppress(FileExistsError):
        write_new(path, secrets.token_urlsafe(48))
    secret = path.read_text(encoding="ascii", errors="replace").strip()
    if len(secret) < SHORTEST:
        raise SecretError(
            f"--store: {path} holds no usable secret. Delete it and start again."
        )
    return secret


def write_new(path: Path, secret: str) -> None:
    """Write a file for the owner's eyes only; never over one that is there.

    O_EXCL leaves that to the system: of two servers that start at once, one makes
    the file and the other reads it.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secret)
