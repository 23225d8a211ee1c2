"""Every setting: its default, its meaning and its check, once."""

from __future__ import annotations

import difflib
import http.cookies
import importlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from tornado_sessions.codecs import Codec, codec_from
from tornado_sessions.errors import ConfigurationError
from tornado_sessions.presets import clocks_of

if TYPE_CHECKING:
    from tornado_sessions.encryption import Keyring

PREFIX = "session_"
_RESERVED = http.cookies.Morsel[str]()
MANAGER_KEY = "session_manager"
STORE_KEY = "session_store"
_ENCRYPTION = "tornado_sessions.encryption"
_PRESET = "preset"
_DAY = 86400.0
_CHOICES = {"on_store_error": ("fail", "anonymous"), "on_reuse": ("end", "ignore")}
_COOKIE_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_ATTRIBUTE = re.compile(r"[\x21-\x3a\x3c-\x7e]+")


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """The settings of one `SessionManager`.

    As `Application` settings they carry the prefix ``session_``. Durations are given as
    seconds or `timedelta`, and kept as float seconds.

    Raises:
        ConfigurationError: A value is impossible; the message says what to do.
    """

    cookie_name: str = "session"
    """Name of the cookie; with ``secure=True`` and neither domain nor path set, the
    browser sees ``__Host-<name>``."""

    secure: bool | Literal["auto"] = "auto"
    """Whether the cookie is for https only: "auto" = as the request is."""

    cookie_kwargs: Mapping[str, str] = field(default_factory=dict)
    """``domain``, ``path`` ("/") and ``samesite`` ("Lax", "Strict", "None")."""

    idle_timeout: float = 14 * _DAY
    """A session ends when it was not used for so long."""

    absolute_timeout: float = 30 * _DAY
    """A session ends so long after it began, used or not."""

    rotate_after: float | None = _DAY
    """The token in the cookie is replaced at this age; None = never."""

    rotate_grace: float = 30.0
    """How long a replaced token stays good after its successor was first seen."""

    on_reuse: Literal["end", "ignore"] = "end"
    """When a replaced token comes back that is no longer good, so that somebody has a
    copy of the cookie: "end" = the session ends for both; "ignore" = whoever comes with
    it is refused, and the session goes on. Both raise the event "reuse"."""

    persistent: bool = False
    """Whether the cookie outlives the browser; `Session.persistent` overrides it."""

    codec: Codec = "json"  # type: ignore[assignment]  # resolved in __post_init__
    """How values become bytes: "json" or an object with ``encode`` and ``decode``."""

    encryption_keys: Keyring | None = None
    """Keys that values are encrypted with, the newest first: the first one writes, each
    one reads. Each is 32 random bytes, or as a str what ``secrets.token_urlsafe(32)``
    gives. None = values are stored as they are."""

    max_record_bytes: int = 256 * 1024
    """A session whose keys and encoded values are larger is refused."""

    sweep_interval: float = 300.0
    """Seconds between two sweeps, where the database does not expire by itself."""

    store_timeout: float = 5.0
    """Deadline of every call to the store."""

    on_store_error: Literal["fail", "anonymous"] = "fail"
    """When a session cannot be loaded: "fail" = 503, "anonymous" = the request goes on
    with an empty session that refuses to be written."""

    max_per_principal: int | None = None
    """How many sessions one principal may have: a login ends the oldest beyond that.
    None = any number."""

    touch_on_message: bool = False
    """Whether a message to a WebSocket counts as use of its session, as a request does."""

    xsrf: bool = False
    """Whether XSRF tokens belong to the session, and change at login. It is Tornado that
    checks them, so ``xsrf_cookies=True`` is needed too."""

    def __post_init__(self) -> None:
        for name in ("idle_timeout", "absolute_timeout", "rotate_grace"):
            self._keep(name, _seconds(name, getattr(self, name)))
        for name in ("sweep_interval", "store_timeout"):
            self._keep(name, _seconds(name, getattr(self, name)))
        if self.rotate_after is not None:
            self._keep("rotate_after", _seconds("rotate_after", self.rotate_after))
        self._keep("codec", codec_from(self.codec))
        if self.encryption_keys is not None:
            encryption = importlib.import_module(_ENCRYPTION)  # needs an extra
            keyring = encryption.keyring_from(self.encryption_keys)
            self._keep("encryption_keys", keyring)
        self._keep("cookie_kwargs", _cookie_kwargs(self.cookie_kwargs))
        self._check_cookie()
        self._check_choices()
        self._check_limits()

    def _keep(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_cookie(self) -> None:
        name, kwargs = self.cookie_name, self.cookie_kwargs
        if not isinstance(name, str) or not _COOKIE_NAME.fullmatch(name):
            raise _wrong("cookie_name", name, "up to 64 characters legal in a cookie")
        if _RESERVED.isReservedKey(name):
            raise _wrong("cookie_name", name, "a name that is no cookie attribute")
        prefix = name.lower()  # as browsers do (RFC 6265bis, 5.7)
        if prefix.startswith("__host-") and (
            self.secure is not True or "domain" in kwargs or kwargs["path"] != "/"
        ):
            raise _wrong(
                "cookie_name",
                name,
                'a name without "__Host-": browsers refuse that prefix unless '
                "session_secure=True, with no domain and path /",
            )
        if prefix.startswith("__secure-") and self.secure is not True:
            raise _wrong("cookie_name", name, '"__Secure-" with session_secure=True')
        if kwargs["samesite"] == "None" and self.secure is not True:
            raise _wrong(
                "cookie_kwargs",
                dict(kwargs),
                'SameSite "Lax", or session_secure=True: browsers refuse '
                "SameSite=None cookies that are not Secure",
            )

    def _check_choices(self) -> None:
        if not (isinstance(self.secure, bool) or self.secure == "auto"):
            raise _wrong("secure", self.secure, '"auto", True or False')
        for name in ("persistent", "touch_on_message", "xsrf"):
            if not isinstance(getattr(self, name), bool):
                raise _wrong(name, getattr(self, name), "True or False")
        for name, (one, other) in _CHOICES.items():
            if getattr(self, name) not in (one, other):
                raise _wrong(name, getattr(self, name), f'"{one}" or "{other}"')

    def _check_limits(self) -> None:
        if not _is_count(self.max_record_bytes):
            limit = self.max_record_bytes
            raise _wrong("max_record_bytes", limit, "a number of bytes, 1 or more")
        most = self.max_per_principal
        if most is not None and not _is_count(most):
            raise _wrong("max_per_principal", most, "a number of sessions, or None")

    @property
    def full_cookie_name(self) -> str:
        """The name that the browser sees."""
        kwargs = self.cookie_kwargs
        for_host = "domain" not in kwargs and kwargs["path"] == "/"
        prefixed = self.cookie_name.lower().startswith(("__host-", "__secure-"))
        if self.secure is True and for_host and not prefixed:
            return "__Host-" + self.cookie_name
        return self.cookie_name

    @classmethod
    def preset(cls, name: str, **settings: Any) -> SessionConfig:
        """Return settings whose clocks are those of an assurance level.

        An application says the same with ``session_preset="aal2"``, and a
        `SessionManager` with ``preset="aal2"``; settings beside it take precedence.

        ========  ============  ================  ============
        name      idle timeout  absolute timeout  rotate after
        ========  ============  ================  ============
        ``aal1``  14 days       30 days           1 day
        ``aal2``  1 hour        24 hours          1 hour
        ``aal3``  15 minutes    12 hours          15 minutes
        ========  ============  ================  ============

        The timeouts are the longest that NIST SP 800-63B-4 (July 2025) allows: §2.1.3,
        §2.2.3 and §2.3.3. It requires no idle timeout at AAL1, and no rotation.

        Args:
            name: "aal1", "aal2" or "aal3".
            **settings: Other fields, and what to change of the preset.

        Raises:
            ConfigurationError: There is no such preset or setting.
        """
        return cls.from_names({_PRESET: name, **settings})

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> SessionConfig:
        """Read the flat ``session_*`` keys of ``Application.settings``."""
        ours = {
            key[len(PREFIX) :]: value
            for key, value in settings.items()
            if key.startswith(PREFIX) and key not in (MANAGER_KEY, STORE_KEY)
        }
        return cls.from_names(ours, PREFIX, extra=("store", "manager"))

    @classmethod
    def from_names(
        cls, named: Mapping[str, Any], prefix: str = "", extra: tuple[str, ...] = ()
    ) -> SessionConfig:
        """Build the settings from *named*; an unknown name is refused.

        "preset" stands for what `preset` says, unless *named* says otherwise.
        """
        named = dict(named)
        preset = named.pop(_PRESET, None)
        if preset is not None:
            named = {**clocks_of(preset), **named}
        known = [one.name for one in fields(cls)]
        for name in named:
            if name not in known:
                near = difflib.get_close_matches(
                    name, [*known, _PRESET, *extra], 1, 0.4
                )
                hint = f"did you mean {prefix}{near[0]}?" if near else "see the docs"
                raise ConfigurationError(f"unknown setting {prefix}{name}; {hint}")
        return cls(**named)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _wrong(name: str, value: object, instead: str) -> ConfigurationError:
    return ConfigurationError(f"{PREFIX}{name} is {value!r}; use {instead}")


def _seconds(name: str, value: object) -> float:
    return duration(PREFIX + name, value)


def duration(name: str, value: object) -> float:
    """Return *value*, seconds or a `timedelta`, as seconds.

    Raises:
        ConfigurationError: It is none, or not between 0 and 100 years.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        instead = "seconds or a timedelta"
    elif not 0 < seconds < math.inf:  # false for NaN, and an int may be of any size
        instead = "a finite duration greater than zero"
    elif seconds > 36500 * _DAY:
        instead = "at most 100 years"
    else:
        return float(seconds)
    raise ConfigurationError(f"{name} is {value!r}; use {instead}")


def _cookie_kwargs(given: object) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise _wrong("cookie_kwargs", given, "a dict with domain, path, samesite")
    for name, value in given.items():
        if name not in ("domain", "path", "samesite"):
            hint = {"secure": "session_secure", "httponly": "nothing: it always is"}
            raise _wrong(
                "cookie_kwargs",
                dict(given),
                f"{hint.get(name, 'domain, path, samesite only')} instead of {name!r}",
            )
        if not isinstance(value, str) or not _ATTRIBUTE.fullmatch(value):
            raise _wrong("cookie_kwargs", dict(given), f"a plain string as {name!r}")
    if not given.get("path", "/").startswith("/"):
        raise _wrong("cookie_kwargs", dict(given), "a path that begins with /")
    samesite = given.get("samesite", "Lax").capitalize()
    if samesite not in ("Lax", "Strict", "None"):
        raise _wrong("cookie_kwargs", dict(given), 'samesite "Lax", "Strict" or "None"')
    return {"path": "/", **given, "samesite": samesite}
