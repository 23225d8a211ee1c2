"""Presets of the clocks: the figures of NIST SP 800-63B-4, and how they are used (E1)."""

from dataclasses import fields, replace
from datetime import timedelta

import pytest
from tornado.web import Application

from httpkit import Counter, serving
from httpkit_stores import AsyncStore, FakeClock
from tornado_sessions import ConfigurationError, SessionConfig, SessionManager
from tornado_sessions.presets import PRESETS

MINUTE, HOUR, DAY = 60, 3600, 86400
LIMITS = {
    "aal1": (None, 30 * DAY),
    "aal2": (HOUR, DAY),
    "aal3": (15 * MINUTE, 12 * HOUR),
}
"""Idle and overall: SP 800-63B-4, 2.1.3, 2.2.3 and 2.3.3. None: not required."""
CLOCKS = {"idle_timeout", "absolute_timeout", "rotate_after"}


@pytest.mark.parametrize("name", LIMITS)
def test_a_preset_is_the_longest_that_nist_allows(name):
    """E1: idle and absolute are the limits of the level, to the second."""
    idle, absolute = LIMITS[name]
    config = SessionConfig.preset(name)
    assert config.absolute_timeout == absolute
    assert config.idle_timeout == (idle or SessionConfig().idle_timeout)
    assert config.rotate_after <= config.idle_timeout


@pytest.mark.parametrize("name", LIMITS)
def test_a_preset_changes_the_clocks_only(name):
    """E1: every other setting has its default."""
    config = SessionConfig.preset(name)
    defaults = {name: getattr(SessionConfig(), name) for name in CLOCKS}
    assert replace(config, **defaults) == SessionConfig()
    assert PRESETS[name].keys() == CLOCKS <= {one.name for one in fields(SessionConfig)}


def test_a_keyword_takes_precedence():
    """E1: what is said beside the preset holds, whichever way it is said."""
    config = SessionConfig.preset(
        "aal2", idle_timeout=timedelta(minutes=5), rotate_after=None, persistent=True
    )
    assert (config.idle_timeout, config.absolute_timeout) == (300, DAY)
    assert (config.rotate_after, config.persistent) == (None, True)
    flat = {"session_preset": "aal2", "session_idle_timeout": 300}
    flat |= {"session_rotate_after": None, "session_persistent": True}
    assert SessionManager.of(Application(**flat)).config == config
    manager = SessionManager(
        preset="aal2", idle_timeout=300, rotate_after=None, persistent=True
    )
    assert manager.config == config


@pytest.mark.parametrize("wrong", ["aal4", "AAL2", "", 2, ["aal2"], True])
def test_an_unknown_preset_is_refused(wrong):
    """E1: the error names the presets that there are, at start."""
    message = 'unknown preset .*; use one of "aal1", "aal2", "aal3"'
    with pytest.raises(ConfigurationError, match=message):
        SessionConfig.preset(wrong)
    with pytest.raises(ConfigurationError, match=message):
        SessionManager.of(Application(session_preset=wrong))
    with pytest.raises(ConfigurationError, match=message):
        SessionManager(preset=wrong)


def test_no_preset_is_none():
    """E1: None leaves the defaults; a misspelt name of the setting is refused."""
    assert SessionManager.of(Application(session_preset=None)).config == SessionConfig()
    with pytest.raises(ConfigurationError, match="did you mean session_preset"):
        SessionManager.of(Application(session_presets="aal2"))
    with pytest.raises(ConfigurationError, match="unknown setting idle_timout"):
        SessionConfig.preset("aal2", idle_timout=5)


def test_presets_cannot_be_changed():
    """E1: one application cannot change what a preset is for another."""
    with pytest.raises(TypeError):
        PRESETS["aal1"]["idle_timeout"] = 5.0  # type: ignore[index]
    with pytest.raises(TypeError):
        PRESETS["aal4"] = {}  # type: ignore[index]


@pytest.mark.parametrize("name", ["aal2", "aal3"])
async def test_the_server_holds_the_limits(name):
    """E1 E2: used all the time a session ends at the overall limit, unused at the idle."""
    idle, absolute = LIMITS[name]
    clock = FakeClock()
    async with serving(Counter, AsyncStore(clock=clock), session_preset=name) as site:
        used, unused = site.visitor(), site.visitor()
        await used.post()
        await unused.post()
        began = clock()
        for passed in range(idle // 2, absolute, idle // 2):
            clock.now = began + passed
            assert (await used.get()).body == b'{"n": 1}'
            if passed >= idle:
                assert (await unused.get()).body == b'{"n": null}'
        clock.now = began + absolute - 1
        assert (await used.get()).body == b'{"n": 1}'
        clock.now = began + absolute
        assert (await used.get()).body == b'{"n": null}'
