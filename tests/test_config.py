"""Settings: each has a default, a check, and an error that says what to do."""

import dataclasses
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tornado.web import Application

from tornado_sessions import (
    ConfigurationError,
    SessionConfig,
    SessionManager,
    store_from_url,
)
from tornado_sessions.codecs import JSONCodec
from tornado_sessions.cookie_secret import check_cookie_secret
from tornado_sessions.stores.file import FileStore
from tornado_sessions.stores.sqlite import SQLiteStore

NAMES = [field.name for field in dataclasses.fields(SessionConfig)]
DURATIONS = [
    "idle_timeout",
    "absolute_timeout",
    "rotate_after",
    "rotate_grace",
    "sweep_interval",
    "store_timeout",
]
DAY = 86400.0


def test_defaults():
    """E1, K3, F1: the defaults are those of the contract."""
    config = SessionConfig()
    assert (config.idle_timeout, config.absolute_timeout) == (14 * DAY, 30 * DAY)
    assert (config.rotate_after, config.rotate_grace) == (DAY, 30.0)
    assert (config.sweep_interval, config.store_timeout) == (300.0, 5.0)
    assert (config.cookie_name, config.secure, config.persistent) == (
        "session",
        "auto",
        False,
    )
    assert config.cookie_kwargs == {"path": "/", "samesite": "Lax"}
    assert config.max_record_bytes == 256 * 1024
    assert (config.on_store_error, config.on_reuse) == ("fail", "end")
    assert isinstance(config.codec, JSONCodec)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_checked(name):
    """S8, K3, E1: what cannot be a value is refused by the name of its setting."""
    with pytest.raises(ConfigurationError, match=rf"^session_{name} is <object"):
        SessionConfig(**{name: object()})


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(
    value=st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(), st.timedeltas()),
        *(st.text(max_size=9), st.binary(max_size=9), st.lists(st.integers())),
        st.dictionaries(st.text(max_size=9) | st.integers(), st.text(max_size=9)),
        st.dictionaries(st.sampled_from(["path", "domain", "samesite"]), st.integers()),
    )
)
@example(10**400)
@example(-(10**400))
@example(timedelta.max)
def test_any_value_is_taken_or_refused(name, value):
    """K3, E1: a setting gives a configuration or a `ConfigurationError`, nothing else."""
    try:
        config = SessionConfig(**{name: value})
    except ConfigurationError as error:
        assert name in str(error)  # noqa: PT017
    else:
        assert dataclasses.replace(config) == config


@pytest.mark.parametrize("name", DURATIONS)
def test_durations(name):
    """E1, F1, F4: seconds or a timedelta, kept as float seconds."""
    for given_value in (90, 90.0, timedelta(minutes=1, seconds=30)):
        kept = getattr(SessionConfig(**{name: given_value}), name)
        assert (kept, type(kept)) == (90.0, float)
    assert getattr(SessionConfig(**{name: timedelta(days=1)}), name) == DAY


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize(
    "value", [0, -1, True, "90", float("nan"), float("inf"), timedelta(0), 4e9, 10**400]
)
def test_impossible_durations(name, value):
    """E1, F1: zero, negative, endless and centuries are refused, with the name."""
    with pytest.raises(ConfigurationError, match=f"session_{name} is .*; use "):
        SessionConfig(**{name: value})


def test_no_rotation():
    """E1: of the clocks only rotation can be switched off."""
    assert SessionConfig(rotate_after=None).rotate_after is None
    for name in set(DURATIONS) - {"rotate_after"}:
        with pytest.raises(ConfigurationError):
            SessionConfig(**{name: None})


def test_an_unknown_name_is_refused_with_the_nearest():
    """K3: as a flat key and as an argument of the manager, each in its own spelling."""
    with pytest.raises(ConfigurationError, match="did you mean session_idle_timeout"):
        SessionConfig.from_settings({"session_idle_timout": 1})
    with pytest.raises(ConfigurationError, match=r"session_stoer; .* session_store"):
        SessionConfig.from_settings({"session_stoer": "memory://"})
    with pytest.raises(ConfigurationError, match="did you mean codec"):
        SessionManager(coedc="json")
    with pytest.raises(ConfigurationError, match="session_zzz; see the docs"):
        SessionConfig.from_settings({"session_zzz": 1})


def test_other_settings_are_not_ours():
    """K3: settings of Tornado and of the application are left alone."""
    flat = {"debug": True, "sessions": 1, "session_persistent": True}
    assert SessionConfig.from_settings(flat).persistent is True


@pytest.mark.parametrize(
    ("given_settings", "name"),
    [
        ({}, "session"),
        ({"secure": True}, "__Host-session"),
        ({"secure": False}, "session"),
        ({"secure": True, "cookie_kwargs": {"domain": "example.com"}}, "session"),
        ({"secure": True, "cookie_kwargs": {"path": "/app"}}, "session"),
        ({"secure": True, "cookie_kwargs": {"path": "/"}}, "__Host-session"),
        ({"secure": True, "cookie_name": "__Host-s"}, "__Host-s"),
        ({"secure": True, "cookie_name": "__Secure-s"}, "__Secure-s"),
    ],
)
def test_the_name_that_the_browser_sees(given_settings, name):
    """K3: `__Host-` wherever browsers allow it."""
    assert SessionConfig(**given_settings).full_cookie_name == name


@pytest.mark.parametrize(
    "wrong",
    [
        {"cookie_name": ""},
        {"cookie_name": "my session"},
        {"cookie_name": "a;b"},
        {"cookie_name": "s" * 65},
        {"cookie_name": "__Host-s"},
        {"cookie_name": "__Secure-s", "secure": False},
        {"cookie_name": "__Host-s", "secure": True, "cookie_kwargs": {"path": "/a"}},
        {"cookie_name": "__Host-s", "secure": True, "cookie_kwargs": {"domain": "a"}},
        {"cookie_kwargs": {"samesite": "None"}},
        {"cookie_kwargs": {"samesite": "Sometimes"}},
        {"cookie_kwargs": {"path": "app"}},
        {"cookie_kwargs": {"httponly": False}},
        {"cookie_kwargs": {"secure": True}},
        {"cookie_kwargs": {"Domain": "example.com"}},
        {"cookie_kwargs": {"domain": "example.com; Secure"}},
        {"cookie_kwargs": {"path": "/\r\nSet-Cookie: a=b"}},
        {"cookie_kwargs": "path=/"},
        {"on_store_error": "ignore"},
        {"max_record_bytes": 0},
        {"max_record_bytes": 1.5},
        {"max_per_principal": 0},
        {"max_per_principal": True},
        {"max_per_principal": "5"},
        {"touch_on_message": 1},
        {"encryption_keys": ["key"]},
    ],
)
def test_what_a_browser_would_refuse_is_refused_at_start(wrong):
    """K3, S8: impossible cookies, limits and keys."""
    with pytest.raises(ConfigurationError):
        SessionConfig(**wrong)


def test_settings_are_frozen():
    """T8: what was checked stays as it is."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        SessionConfig().secure = True
    given_kwargs = {"path": "/a"}
    config = SessionConfig(cookie_kwargs=given_kwargs)
    given_kwargs["path"] = "; evil"
    assert config.cookie_kwargs["path"] == "/a"


@pytest.mark.parametrize("version", [None, 2, "1", 1.5, [], {}, Decimal("sNaN")])
def test_a_key_version_that_is_none(version):
    """K1: only an int comes back from a cookie, so nothing else can name a secret."""
    secret = {1: "one", 3: "three"}
    with pytest.raises(ConfigurationError, match="key_version"):
        check_cookie_secret({"cookie_secret": secret, "key_version": version})
    check_cookie_secret({"cookie_secret": secret, "key_version": 1})


@pytest.mark.parametrize(
    "url",
    [
        "file://me:hush@host/dir",
        "sqlite://me:hush@host/x.db",
        "mongodb://me:hush@[::1/db",
        "sqlite:///sqlite://me:hush@[/x.db",
        "redis://me:hush@host:port/0",
        "redis+sentinel://me:hush@host",
        "redis+cluster://me:hush@host/?db=1",
        "rediss://me:hush@host/?ssl_cert_reqs=some",
        "unknown://host?password=hush",
        "memory://?password=hush",
        "redis:/:hush@host:6379/0",
        "redis:hush@host",
        "redis//:hush@host",
        "user:hush@host:6379",
        "hush@host",
        "mongodb:/me:hush@host/db",
        "postgres:/me:hush@h/x?p=1",
    ],
)
def test_a_bad_url_keeps_its_password(url):
    """S9 F3: what is said of a URL, and of what led to that, names no password."""
    with pytest.raises(ConfigurationError) as caught:
        store_from_url(url)
    error = caught.value
    while error is not None:
        assert "hush" not in repr(error)
        error = error.__cause__ or error.__context__


def test_a_cookie_secret_that_is_no_text():
    """K1 S9: bytes in an environment variable that are no UTF-8 are refused, unseen."""
    for secret in ("hush\udcff" * 8, {1: "hush\udcff" * 8}):
        with pytest.raises(ConfigurationError, match="no UTF-8") as caught:
            check_cookie_secret({"cookie_secret": secret, "key_version": 1})
        assert caught.value.__context__ is None
        assert "hush" not in repr(caught.value)


def test_a_manager_that_is_a_url_keeps_its_password():
    """S9: as session_store does."""
    app = Application([], session_manager="redis://:hush@host")
    with pytest.raises(ConfigurationError, match="of the type str") as caught:
        SessionManager.of(app)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:sessions.db", "sqlite:/a/b.db"])
def test_a_url_of_sqlite_needs_its_slashes(url):
    """R5: else a letter of the name would be lost, or the root of the path."""
    with pytest.raises(ConfigurationError):
        store_from_url(url)
    with pytest.raises(ConfigurationError, match="three slashes"):
        SQLiteStore(url)


def test_a_url_of_files_may_have_one_slash(tmp_path):
    """R5: that is RFC 8089."""
    for url in (f"file:{tmp_path}/sessions", f"file://{tmp_path}/sessions"):
        assert store_from_url(url)._root.parent == tmp_path / "sessions"


def test_the_case_of_a_scheme_does_not_matter(tmp_path):
    """R5: FILE:// is no folder of that name."""
    store = store_from_url(f"FILE://{tmp_path}/sessions")
    assert store._root.parent == tmp_path / "sessions"
    assert FileStore(f"File://{tmp_path}/sessions")._root == store._root


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("__host-s", {"secure": True, "cookie_kwargs": {"domain": "a.org"}}),
        ("__SECURE-s", {}),
    ],
)
def test_browsers_do_not_mind_the_case_of_a_prefix(name, settings):
    """K3: nor is what they would drop a name here."""
    with pytest.raises(ConfigurationError, match="cookie_name"):
        SessionConfig(cookie_name=name, **settings)
