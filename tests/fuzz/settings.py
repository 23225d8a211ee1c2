"""What may stand in ``Application(session_…=…)``: it works, or `ConfigurationError`."""

import contextlib
from dataclasses import fields

from fuzz.material import Material
from tornado_sessions import ConfigurationError
from tornado_sessions.config import SessionConfig
from tornado_sessions.cookie_secret import check_cookie_secret

NAMES = [one.name for one in fields(SessionConfig)] + ["store_timeuot", "", "\ud800"]
WORDS = ("auto", "fail", "anonymous", "json", "None", "lax", "__Host-a", "__Secure-a")
ATTRIBUTES = ("domain", "path", "samesite", "secure", "httponly", "other")


class Choices(Material):
    """Without numbers that Python itself fails to show, as an error would."""

    def number(self):
        return max(-(10**400), min(10**400, super().number()))


def fuzz(data):
    material = Choices(data)
    settings = {
        f"session_{material.choice(NAMES)}": setting(material)
        for _ in range(1 + material.byte() % 4)
    }
    config = None
    with contextlib.suppress(ConfigurationError):
        config = SessionConfig.from_settings(settings)
    if config is not None:
        assert 0 < config.idle_timeout <= 3155760000
        assert config.full_cookie_name.endswith(config.cookie_name)
    secret = {"cookie_secret": setting(material), "key_version": setting(material)}
    with contextlib.suppress(ConfigurationError):
        check_cookie_secret(secret)


def setting(material):
    kind = material.byte() % 4
    if kind == 0:
        return material.choice(WORDS)
    if kind == 1:
        return {
            material.choice(ATTRIBUTES): material.choice((*WORDS, "/", "a;b", "é"))
            for _ in range(material.byte() % 3)
        }
    if kind == 2:
        return {material.scalar_to_hash(): material.scalar() for _ in "ab"}
    return material.scalar()
