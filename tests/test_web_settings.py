"""What goes wrong at start is said at start: settings, secrets, base classes."""

from datetime import timedelta

import pytest
from tornado.web import Application, RequestHandler

from httpkit import SECRET, Counter, Page, running, serving
from httpkit_stores import AsyncStore
from tornado_sessions import (
    ConfigurationError,
    SessionConfig,
    SessionManager,
    SessionMixin,
    store_from_url,
)
from tornado_sessions.stores.file import FileStore
from tornado_sessions.stores.memory import MemoryStore
from tornado_sessions.stores.sqlite import SQLiteStore


def application(**settings):
    return Application([(r"/", Counter)], cookie_secret=SECRET, **settings)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("session_idle_timout", "session_idle_timeout"),
        ("session_stor", "session_store"),
        ("session_cookie", "session_cookie_name"),
        ("session_absolut_timeout", "session_absolute_timeout"),
        ("session_persist", "session_persistent"),
        ("session_rotate_afer", "session_rotate_after"),
    ],
)
def test_a_misspelt_setting_names_the_nearest(wrong, right):
    """K3 E1: an unknown session_* key is refused, and the message helps."""
    message = f"unknown setting {wrong}; did you mean {right}"
    with pytest.raises(ConfigurationError, match=message):
        SessionManager.of(application(**{wrong: 1}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("idle_timeout", 0),
        ("idle_timeout", -1),
        ("idle_timeout", "14 days"),
        ("idle_timeout", None),
        ("idle_timeout", float("nan")),
        ("absolute_timeout", float("inf")),
        ("absolute_timeout", timedelta(0)),
        ("absolute_timeout", timedelta.max),
        ("rotate_after", 0),
        ("rotate_grace", True),
        ("sweep_interval", 0),
        ("store_timeout", -5),
        ("secure", "yes"),
        ("persistent", 1),
        ("codec", "pickle"),
        ("codec", object()),
        ("on_store_error", "ignore"),
        ("max_record_bytes", 0),
        ("max_record_bytes", 1.5),
        ("cookie_kwargs", "path=/"),
        ("cookie_kwargs", {"max_age": 5}),
        ("cookie_kwargs", {"samesite": "lenient"}),
        ("cookie_name", ""),
        ("cookie_name", "a;b"),
        ("cookie_name", 5),
    ],
)
def test_an_impossible_value_is_refused(name, value):
    """E1 K3: the error names the setting, both ways of configuring it."""
    with pytest.raises(ConfigurationError, match=f"session_{name} is "):
        SessionManager.of(application(**{f"session_{name}": value}))
    with pytest.raises(ConfigurationError, match=name):
        SessionManager("memory://", **{name: value})


@pytest.mark.parametrize(
    "url", ["nowhere://", "memory:///x?y", " redis://h", " sqlite:///x.db", 5, ""]
)
def test_an_impossible_store_is_refused(url):
    """R4: a store that cannot be is a ConfigurationError at once."""
    with pytest.raises(ConfigurationError):
        SessionManager.of(application(session_store=url))


@pytest.mark.parametrize("url", ["sqlite:///s.db?namespace=a", "sqlite:///s#1.db"])
def test_what_a_path_cannot_have_is_refused(url):
    """R5: two applications do not meet because an option in a URL was not read."""
    with pytest.raises(ConfigurationError, match=r'such as namespace="name"'):
        SQLiteStore(url)
    with pytest.raises(ConfigurationError, match="percent-escape"):
        FileStore(url.replace("sqlite", "file"))
    if "#" in url:
        with pytest.raises(ConfigurationError, match="percent-escape"):
            store_from_url(url)


def test_durations_are_seconds_or_timedeltas():
    """E1: both mean the same."""
    day = timedelta(days=1)
    given = SessionConfig.from_names({"idle_timeout": day})
    assert given == SessionConfig(idle_timeout=86400)


def test_a_manager_and_flat_keys_contradict():
    """E1: session_manager next to other session_* keys is refused, naming them."""
    manager = SessionManager()
    with pytest.raises(ConfigurationError, match="session_idle_timeout are both set"):
        SessionManager.of(application(session_manager=manager, session_idle_timeout=60))
    with pytest.raises(ConfigurationError, match="session_store"):
        SessionManager.of(
            application(session_manager=manager, session_store="memory://")
        )
    with pytest.raises(ConfigurationError, match="use a SessionManager"):
        SessionManager.of(application(session_manager="memory://"))


async def test_both_ways_of_configuring_work():
    """E1: flat settings and a manager give the same sessions."""
    ready = SessionManager(AsyncStore(), idle_timeout=60, cookie_name="sid")
    flat = {"session_idle_timeout": 60, "session_cookie_name": "sid"}
    for settings in (flat, {"session_manager": ready}):
        async with serving(Counter, **settings) as site:
            visitor = site.visitor()
            await visitor.post()
            assert set(visitor.cookies) == {"sid"}
            assert (await visitor.get()).body == b'{"n": 1}'
            assert site.manager.config == ready.config
            assert site.manager is SessionManager.of(site.application)


def test_the_default_store_is_memory():
    """S1: without a session_* setting there are sessions, in memory."""
    assert type(SessionManager.of(application()).store) is MemoryStore


async def test_a_misspelt_setting_is_no_hang(caplog):
    """T1: who does not ask at start gets a 500 that is logged, not a silent server."""
    async with running(application()) as site:
        # The test's own server has asked already; forget the answer.
        del site.application._tornado_sessions_manager
        site.application.settings["session_idle_timout"] = 60
        visitor = site.visitor(session="x")
        assert (await visitor.get()).code == 500
        assert (await visitor.post()).code == 500
        assert site.access == [(500, "/"), (500, "/")]
    assert "did you mean session_idle_timeout" in caplog.text


@pytest.mark.parametrize("cookie", [None, "x"], ids=["stranger", "cookie"])
async def test_a_missing_secret_is_named(cookie, caplog):
    """K1: without cookie_secret, what touches the session says what is missing."""
    app = Application([(r"/", Counter)], session_store=AsyncStore())
    async with running(app) as site:
        visitor = site.visitor(**({"session": cookie} if cookie else {}))
        answer = await visitor.get()
        assert answer.code == 500
        assert site.access == [(500, "/")]
    assert "cookie_secret" in caplog.text


def test_the_mixin_goes_first():
    """T1: the wrong order of base classes is a TypeError, not a silent no-op."""
    with pytest.raises(TypeError):
        type("Wrong", (RequestHandler, SessionMixin), {})
    assert issubclass(Page, RequestHandler)


async def test_the_session_before_it_is_loaded():
    """T1 S1: with autoload off, a session that exists must be loaded to be used."""

    class Manual(Counter):
        session_autoload = False

        async def put(self):
            await self.load_session()
            again = await self.load_session()
            assert again is self.session
            super().get()

    async with serving([(r"/manual", Manual), (r"/", Counter)]) as site:
        stranger = site.visitor()
        assert (await stranger.post("/manual")).body == b'{"n": 1}'
        assert site.store.calls == ["commit"]
        site.store.forget()
        assert (await stranger.post("/manual")).code == 500
        assert (await stranger.get("/manual")).body == b'{"n": null}'
        assert site.store.calls == []
        answer = await stranger.fetch("/manual", method="PUT", body="")
        assert answer.body == b'{"n": 1}'
        assert site.store.calls == ["load"]
