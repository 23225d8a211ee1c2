"""Named settings of the clocks, for the assurance levels of NIST SP 800-63B-4."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tornado_sessions.errors import ConfigurationError

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


def _clocks(idle: float, absolute: float, rotation: float) -> Mapping[str, float]:
    return MappingProxyType(
        {
            "idle_timeout": idle,
            "absolute_timeout": absolute,
            "rotate_after": rotation,
        }
    )


PRESETS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        # §2.1.3: an overall timeout, which SHOULD be no more than 30 days. One for
        # inactivity is not required: this is the default.
        "aal1": _clocks(14 * _DAY, 30 * _DAY, _DAY),
        # §2.2.3: SHOULD be no more than 24 hours overall, and 1 hour of inactivity.
        "aal2": _clocks(_HOUR, 24 * _HOUR, _HOUR),
        # §2.3.3: SHALL be no more than 12 hours overall, and SHOULD be no more than
        # 15 minutes of inactivity.
        "aal3": _clocks(15 * _MINUTE, 12 * _HOUR, 15 * _MINUTE),
    }
)
"""The longest that NIST SP 800-63B-4 (2025), "Reauthentication" of each level, allows.

It asks for no rotation (§5.1 leaves it open). That a token is replaced as often as an
idle session would end is our own choice, since the default of a day would be never.
"""


def clocks_of(preset: str) -> Mapping[str, float]:
    """Return the settings that *preset* stands for, in seconds.

    Raises:
        ConfigurationError: There is no such preset.
    """
    if not isinstance(preset, str) or preset not in PRESETS:
        names = ", ".join(f'"{name}"' for name in PRESETS)
        raise ConfigurationError(f"unknown preset {preset!r}; use one of {names}")
    return PRESETS[preset]
