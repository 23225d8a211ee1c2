"""The secret that Tornado signs cookies with: whether it can work, and whether it is weak.

Whoever knows it, or guesses it, can sign a cookie. That alone opens no session, since a
cookie must also carry a token of which the store has the hash; but forged cookies then
cost a call to the store each, and XSRF tokens can be made up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeAlias

from tornado_sessions.errors import ConfigurationError

log = logging.getLogger("tornado_sessions")

Key: TypeAlias = "str | bytes"

MIN_BYTES = 32
"""As many as SHA-256 gives: a shorter key weakens HMAC (RFC 2104 §3, RFC 7518 §3.2)."""
MIN_DIFFERENT = 5
"""Different characters that a secret has at least (Django's check ``security.W009``)."""
PUBLISHED = frozenset({b"__TODO:_GENERATE_YOUR_OWN_RANDOM_VALUE_HERE__"})
"""Long enough, but known to everybody: it is in the documentation of Tornado."""
HOW_TO_MAKE_ONE = (
    "keep what python -c 'import secrets; print(secrets.token_hex())' prints"
)


def check_cookie_secret(settings: Mapping[str, Any]) -> None:
    """Refuse what Tornado could not sign a cookie with; warn of a secret that is weak.

    Raises:
        ConfigurationError: ``cookie_secret`` or ``key_version`` is missing, or versions
            are no numbers.
    """
    secrets = _by_version(settings)
    for version, secret in secrets.items():
        why = weakness(secret)
        if why is not None:
            which = "cookie_secret" if version is None else f"cookie_secret[{version}]"
            log.warning("%s %s; %s", which, why, HOW_TO_MAKE_ONE)


def all_secrets(settings: Mapping[str, Any]) -> list[bytes]:
    """Return every secret in *settings* as bytes; the one that signs comes first."""
    secrets = _by_version(settings)
    newest = settings.get("key_version") if None not in secrets else None
    ordered = sorted(secrets, key=lambda version: version != newest)
    return [_encoded(secrets[version]) for version in ordered]


def weakness(secret: Key) -> str | None:
    """Return what is wrong with *secret*, without showing it; None if it will do."""
    raw = _encoded(secret)
    if raw in PUBLISHED:
        return "is the placeholder of Tornado's documentation"
    if len(raw) < MIN_BYTES:
        return f"is weak: it has {len(raw)} bytes, and should have {MIN_BYTES} or more"
    if len(set(raw)) < MIN_DIFFERENT:
        return f"is weak: it has less than {MIN_DIFFERENT} different characters"
    return None


def _by_version(settings: Mapping[str, Any]) -> dict[int | None, Key]:
    """Return the secrets by the version of their key; None = there is one only."""
    secret = settings.get("cookie_secret")
    if not secret:
        raise ConfigurationError(
            f"sessions need Application(cookie_secret=...): {HOW_TO_MAKE_ONE}"
        )
    if not isinstance(secret, dict):
        return {None: _checked("cookie_secret", secret)}
    version = settings.get("key_version")
    for key in secret:
        if not isinstance(key, int) or isinstance(key, bool) or key < 0:
            raise ConfigurationError(
                f"cookie_secret has the key {key!r}; use numbers such as 1, since what "
                "is read from a cookie is a number"
            )
    # Tornado reads it back as an int, whatever it was.
    if not isinstance(version, int) or version not in secret:
        raise ConfigurationError(
            f"key_version is {version!r}, and cookie_secret has the keys "
            f"{sorted(secret)}: name the one to sign with, an int"
        )
    return {key: _checked(f"cookie_secret[{key}]", secret[key]) for key in secret}


def _checked(name: str, secret: object) -> Key:
    if not isinstance(secret, (str, bytes)) or not secret:
        kind = "empty" if isinstance(secret, (str, bytes)) else type(secret).__name__
        raise ConfigurationError(
            f"{name} is {kind}, and should be a long str: {HOW_TO_MAKE_ONE}"
        )
    # The error of `encode` has the secret in it, so none is raised while there is one.
    if isinstance(secret, str) and any("\ud800" <= char <= "\udfff" for char in secret):
        raise ConfigurationError(
            f"{name} was read from bytes that are no UTF-8: {HOW_TO_MAKE_ONE}"
        )
    return secret


def _encoded(secret: Key) -> bytes:
    return secret.encode() if isinstance(secret, str) else secret
