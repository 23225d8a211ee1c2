"""``session_store`` as a URL."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Sequence
from urllib.parse import SplitResult, unquote, urlsplit

from tornado_sessions.errors import ConfigurationError
from tornado_sessions.stores.base import Store

_REDIS = ("tornado_sessions.stores.redis", "RedisStore")
_MONGO = ("tornado_sessions.stores.mongo", "MongoStore")
_SCHEMES = {
    "memory": ("tornado_sessions.stores.memory", "MemoryStore"),
    "file": ("tornado_sessions.stores.file", "FileStore"),
    "sqlite": ("tornado_sessions.stores.sqlite", "SQLiteStore"),
    "redis": _REDIS,
    "rediss": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
    "unix": _REDIS,
    "redis+sentinel": _REDIS,
    "rediss+sentinel": _REDIS,
    "redis+cluster": _REDIS,
    "rediss+cluster": _REDIS,
    "mongodb": _MONGO,
    "mongodb+srv": _MONGO,
}
_OURS = ("namespace",)
"""Options that are not the driver's."""
ESCAPED = "percent-escape / # ? @ [ and ] in a name or a password"
_SCHEME = re.compile(r"'[A-Za-z][A-Za-z0-9+.-]*://")
_EXAMPLES = "memory://, sqlite:///sessions.db, redis://localhost, mongodb://localhost"


def store_from_url(url: str) -> Store:
    """Return the store that *url* names.

    ========================  =======================================================
    ``memory://``             this process only
    ``file:///dir``           a directory; ``file:///./dir`` is relative
    ``sqlite:///name.db``     a file, relative; four slashes for an absolute path
    ``redis://host:6379/0``   a Redis server; see `RedisStore` for its other forms
    ``mongodb://host/db``     a MongoDB server or replica set; see `MongoStore`
    ========================  =======================================================

    ``?namespace=name`` keeps applications apart that share one place. Every other
    option of a database is for its driver.

    Raises:
        ConfigurationError: The scheme is unknown or the rest makes no sense.
    """
    parts = _parts(url)
    start = parts.scheme + (":" if parts.scheme == "file" else "://")  # RFC 8089
    if parts.scheme not in _SCHEMES or not url.lower().startswith(start):
        raise ConfigurationError(
            f"session_store is {safe_url(url)}; use a Store or a URL such as {_EXAMPLES}"
        )
    url = parts.scheme + url[len(parts.scheme) :]
    module, name = _SCHEMES[parts.scheme]
    factory: Callable[..., Store] = getattr(importlib.import_module(module), name)
    if parts.scheme == "memory":
        _split(url, known=())
        return factory()
    if parts.scheme in ("file", "sqlite"):
        place, options = _split(url, known=("namespace",))
        return factory(path_from(place, parts.scheme), **options)
    place, options = _split(url)
    return factory(place, **options)


def path_from(place: str | os.PathLike[str], scheme: str) -> str:
    """Return the path that *place* is, or names as a URL with *scheme*."""
    text = os.fspath(place)
    if not text.lower().startswith(f"{scheme}:"):
        return text
    parts = _parts(text)
    if parts.netloc or (scheme != "file" and "://" not in text):
        raise ConfigurationError(
            f"session_store {safe_url(text)} names a host, or no path; "
            f"use three slashes before the path: {scheme}:///path"
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(
            f"session_store {safe_url(text)}: a path ends at ? and #, so percent-escape "
            "them in it; a store that you make yourself takes options by keyword, such as "
            'namespace="name"'
        )
    path = unquote(parts.path)
    relative = scheme == "sqlite" or path.startswith(("/./", "/../"))
    return path[1:] if relative else path


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL that may name several hosts: ``one,[::1]:8``.

    `urlsplit` by itself allows brackets for the first of them only, since Python 3.12.9
    and 3.13.2.

    Raises:
        ValueError: It is no URL.
    """
    start, slashes, rest = url.partition("://")
    place = re.split("[/?#]", rest, maxsplit=1)[0]
    for host in place.rpartition("@")[2].split(","):
        urlsplit(f"//{host}")  # which refuses brackets that are elsewhere
    return urlsplit(start + slashes + rest[len(place) :])._replace(netloc=place)


def _parts(url: object) -> SplitResult:
    try:
        return split_url(url) if isinstance(url, str) else urlsplit("")
    except ValueError:
        message = f"session_store {safe_url(url)} is no URL; {ESCAPED}"
    raise ConfigurationError(message)


def _split(url: str, known: Sequence[str] | None = None) -> tuple[str, dict[str, str]]:
    """Return *url* without our options, and them; what is not *known* is refused."""
    start, _, query = url.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&") if query]
    names = {name for name, equals, _ in pairs if equals}
    if len(names) < len({name for name, _, _ in pairs}):
        message = f"session_store {safe_url(url)}: after ? comes name=value; {ESCAPED}"
        raise ConfigurationError(message)
    unknown = sorted(names - {*known}) if known is not None else []
    if known is not None and unknown:
        raise ConfigurationError(
            f"session_store {safe_url(url)} has the unknown option {unknown[0]!r}; "
            f"known are: {', '.join(known) or 'none'}"
        )
    ours = {name: unquote(value) for name, _, value in pairs if name in _OURS}
    # What is the driver's is left as it was written: drivers differ in what they decode.
    theirs = "&".join("".join(pair) for pair in pairs if pair[0] not in _OURS)
    return start + (theirs and f"?{theirs}"), ours


def safe_url(url: object) -> str:
    """Return *url* for an error message, without what may be a secret."""
    text = repr(url)
    if "@" not in text and "?" not in text:
        return text
    scheme = _SCHEME.match(text)
    return f"{scheme[0]}…'" if scheme else "'…'"
