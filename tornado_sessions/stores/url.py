"""``session_store`` as a URL."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from tornado_sessions.errors import ConfigurationError
from tornado_sessions.stores.base import Store

_SCHEMES = {
    "memory": ("tornado_sessions.stores.memory", "MemoryStore"),
    "file": ("tornado_sessions.stores.file", "FileStore"),
    "sqlite": ("tornado_sessions.stores.sqlite", "SQLiteStore"),
}
_EXAMPLES = "memory://, file:///var/lib/app/sessions, sqlite:///sessions.db"


def store_from_url(url: str) -> Store:
    """Return the store that *url* names.

    ========================  =======================================================
    ``memory://``             this process only
    ``file:///dir``           a directory; ``file:///./dir`` is relative
    ``sqlite:///name.db``     a file, relative; four slashes for an absolute path
    ========================  =======================================================

    ``?namespace=name`` keeps applications apart that share one place.

    Raises:
        ConfigurationError: The scheme is unknown or the rest makes no sense.
    """
    parts = urlsplit(url) if isinstance(url, str) else SplitResult("", "", "", "", "")
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(
            f"session_store is {_safe(url)}; use a Store or a URL such as {_EXAMPLES}"
        )
    module, name = _SCHEMES[parts.scheme]
    factory: Callable[..., Store] = getattr(importlib.import_module(module), name)
    places, options = _arguments(parts, url)
    known = [] if parts.scheme == "memory" else ["namespace"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigurationError(
            f"session_store {_safe(url)} has the unknown option {unknown[0]!r}; "
            f"known are: {', '.join(known) or 'none'}"
        )
    return factory(*places, **options)


def path_from(place: str | os.PathLike[str], scheme: str) -> str:
    """Return the path that *place* is, or names as a URL with *scheme*."""
    text = os.fspath(place)
    if not text.startswith(f"{scheme}:"):
        return text
    parts = urlsplit(text)
    if parts.netloc:
        raise ConfigurationError(
            f"{scheme}://{parts.netloc}… names a host; "
            f"use three slashes before the path: {scheme}:///{parts.netloc}…"
        )
    path = unquote(parts.path)
    relative = scheme == "sqlite" or path.startswith(("/./", "/../"))
    return path[1:] if relative else path


def _arguments(parts: SplitResult, url: str) -> tuple[list[str], dict[str, Any]]:
    try:
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError as error:
        message = f"session_store {_safe(url)}: after ? comes name=value"
        raise ConfigurationError(message) from error
    return [] if parts.scheme == "memory" else [path_from(url, parts.scheme)], options


def _safe(url: object) -> str:
    """Return *url* for an error message, without a password."""
    text = repr(url)
    return f"{text.split('://')[0]}://…'" if "@" in text else text
