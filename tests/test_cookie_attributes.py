"""The cookie as browsers see it: keys, attributes, and its end (K1, K3, K4, K5)."""

import time

import pytest
from tornado.web import Application

from httpkit import SECRET, Acts, Counter, serving, session_cookies, signed, ticket_in
from httpkit_stores import AsyncStore, on_both_paths
from tornado_sessions import ConfigurationError, SessionManager
from tornado_sessions.cookie import encode

DAY = 86400
HTTPS = {"X-Forwarded-Proto": "https"}


def re_signed(visitor, **kwargs):
    """Sign what a visitor's cookie says in another way."""
    return signed(encode(ticket_in(visitor.cookie)), **kwargs)


async def known(site):
    visitor = site.visitor()
    await visitor.post()
    site.store.forget()
    return visitor


async def test_version_1_signatures_are_refused():
    """K1: only version 2 binds the name of the cookie, so only that is read."""
    async with serving(Counter) as site:
        visitor = await known(site)
        visitor.cookies["session"] = re_signed(visitor, version=1)
        assert (await visitor.get()).body == b'{"n": null}'
        assert site.store.calls == []


@pytest.mark.parametrize(("age", "body"), [(59, b'{"n": 1}'), (61, b'{"n": null}')])
async def test_the_signature_is_good_for_the_absolute_timeout(age, body):
    """K1: 60 days if that is the absolute timeout, and not Tornado's 31."""
    settings = {
        "session_absolute_timeout": 60 * DAY,
        "session_idle_timeout": 60 * DAY,
    }
    async with serving(Counter, **settings) as site:
        visitor = await known(site)
        then = time.time() - age * DAY
        visitor.cookies["session"] = re_signed(visitor, clock=lambda: then)
        assert (await visitor.get()).body == body
        assert site.store.calls == (["load"] if age < 60 else [])


@on_both_paths
async def test_keys_of_the_cookie_secret_rotate(make_store):
    """K1: a cookie signed with an old key is taken, and signed anew with the newest."""
    store = make_store()
    async with serving(Counter, store) as site:
        visitor = await known(site)
    ticket = ticket_in(visitor.cookie)
    keys = {"cookie_secret": {0: SECRET, 1: "newer"}, "key_version": 1}
    async with serving(Counter, store, **keys) as site:
        moved = site.visitor(**visitor.cookies)
        answer = await moved.get()
        assert answer.body == b'{"n": 1}'
        (morsel,) = session_cookies(answer)
        assert ticket_in(morsel, secret=keys["cookie_secret"]) == ticket
        assert morsel.value.startswith("2|1:1|")
        assert store.calls == ["load", "commit"]  # the token must not be outdated
        store.forget()
        assert session_cookies(await moved.get()) == []
        assert store.calls == ["load"]
        assert site.kinds == []
    keys = {"cookie_secret": {1: "newer", 2: "newest"}, "key_version": 2}
    async with serving(Counter, store, **keys) as site:
        assert (await site.visitor(**visitor.cookies).get()).body == b'{"n": null}'
        assert (await site.visitor(**moved.cookies).get()).body == b'{"n": 1}'


@pytest.mark.parametrize(
    ("settings", "headers", "expected"),
    [
        ({}, {}, ("session", "/", "", "Lax", "")),
        ({}, HTTPS, ("session", "/", "", "Lax", True)),
        ({"session_secure": False}, HTTPS, ("session", "/", "", "Lax", "")),
        ({"session_secure": True}, HTTPS, ("__Host-session", "/", "", "Lax", True)),
        (
            {"session_secure": True, "session_cookie_kwargs": {"samesite": "None"}},
            HTTPS,
            ("__Host-session", "/", "", "None", True),
        ),
        (
            {"session_secure": True, "session_cookie_kwargs": {"path": "/app"}},
            HTTPS,
            ("session", "/app", "", "Lax", True),
        ),
        (
            {"session_cookie_kwargs": {"domain": "x.org", "samesite": "strict"}},
            {},
            ("session", "/", "x.org", "Strict", ""),
        ),
        ({"session_cookie_name": "sid"}, {}, ("sid", "/", "", "Lax", "")),
    ],
)
async def test_attributes(settings, headers, expected):
    """K3 K4: attributes are as configured, HttpOnly always, and the same to clear it."""
    async with serving(Acts, **settings) as site:
        visitor = site.visitor()
        for path in ("/?set=k:1", "/?destroy=1"):
            answer = await visitor.get(path, headers=with_cookies(visitor, headers))
            (morsel,) = session_cookies(answer, site.cookie_name)
            shown = ("path", "domain", "samesite", "secure")
            assert (morsel.key, *(morsel[name] for name in shown)) == expected
            assert morsel["httponly"] is True
            assert bool(morsel.value) == (path == "/?set=k:1")
        assert morsel["expires"]
        assert site.store.records == []


def with_cookies(visitor, headers):
    pairs = [f"{name}={value}" for name, value in visitor.cookies.items()]
    return {**headers, "Cookie": "; ".join(pairs)} if pairs else headers


async def test_the_value_is_short_and_never_quoted():
    """K3: of 300 sessions no cookie, name included, is quoted or takes 200 bytes."""
    async with serving(Counter, session_secure=True) as site:
        visitor = site.visitor()
        for _ in range(300):
            visitor.cookies.clear()
            answer = await visitor.post(headers=HTTPS)
            pair = answer.headers["Set-Cookie"].partition(";")[0]
            assert pair.startswith("__Host-session=2|1:0|")
            assert '"' not in pair
            assert len(pair) < 200
        assert len({record.handle for record in site.store.records}) == 300


@pytest.mark.parametrize(
    "settings",
    [
        {"session_cookie_kwargs": {"samesite": "None"}},
        {"session_cookie_kwargs": {"samesite": "none"}, "session_secure": False},
        {"session_cookie_name": "__Host-x"},
        {
            "session_cookie_name": "__Host-x",
            "session_secure": True,
            "session_cookie_kwargs": {"domain": "x.org"},
        },
        {
            "session_cookie_name": "__Host-x",
            "session_secure": True,
            "session_cookie_kwargs": {"path": "/app"},
        },
        {"session_cookie_name": "__Secure-x"},
        {"session_cookie_kwargs": {"httponly": False}},
        {"session_cookie_kwargs": {"secure": True}},
        {"session_cookie_kwargs": {"domain": "x;y"}},
        {"session_cookie_name": "a b"},
    ],
)
def test_cookies_that_browsers_refuse_are_refused_at_start(settings):
    """K3: a cookie that could not work is a ConfigurationError before any request."""
    application = Application([], cookie_secret=SECRET, **settings)
    with pytest.raises(ConfigurationError, match="session_cookie"):
        SessionManager.of(application)


@on_both_paths
async def test_destroy_ends_the_server_side_first(make_store):
    """K4: the cookie is cleared once the store has ended the session, and both are."""
    order = []

    class Ends(Acts):
        def clear_cookie(self, name, **kwargs):
            order.append(("clear", list(site.store.records)))
            super().clear_cookie(name, **kwargs)

    async with serving(Ends, make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        copied = visitor.twin()
        answer = await visitor.get("/?destroy=1")
        assert order
        assert all(step == ("clear", []) for step in order)
        assert answer.headers["Cache-Control"] == "no-store"
        assert visitor.cookie is None
        site.store.forget()
        assert (await copied.get()).body == b"{}"
        assert site.store.calls == ["load"]
        assert ("ended", "destroyed") in site.kinds


@on_both_paths
async def test_secure_only_over_plain_http(make_store, caplog):
    """K5: what could not be delivered is not stored, and one warning says why."""
    async with serving(Acts, make_store(), session_secure=True) as site:
        for path in ("/?set=k:1", "/?login=ada", "/?set=k:2"):
            answer = await site.visitor().get(path)
            assert (answer.code, answer.headers.get_list("Set-Cookie")) == (200, [])
        assert site.store.calls == []
        warnings = [r for r in caplog.records if r.name == "tornado_sessions"]
        assert len(warnings) == 1
        assert "plain http" in warnings[0].getMessage()
        visitor = site.visitor()
        await visitor.get("/?set=k:1", headers=HTTPS)
        headers = with_cookies(visitor, HTTPS)
        assert (await visitor.get(headers=headers)).body == b'{"k": "1"}'


async def test_the_store_holds_no_token():
    """S9 K2: what is in the cookie cannot be made from what the store holds."""
    store = AsyncStore()
    async with serving(Acts, store) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1&login=ada")
    ticket = ticket_in(visitor.cookie)
    assert ticket.token not in repr(store.records)
    assert ticket.token.encode() not in store.record.meta.token
    assert ticket.handle == store.record.handle
