"""The keys that sign cookies: rotated without a logout, never shown, and not weak (K1)."""

import json
import logging
from contextlib import closing

import pytest
from tornado.web import Application

from httpkit import (
    Acts,
    Counter,
    running,
    serving,
    session_cookies,
    signed,
    ticket_in,
)
from httpkit_stores import AsyncStore
from serverkit import Server
from tornado_sessions import ConfigurationError
from tornado_sessions.cookie import encode
from tornado_sessions.cookie_secret import MIN_BYTES, all_secrets, check_cookie_secret
from tornado_sessions.testing import SessionClient

OLD, NEW, NEWEST = ("".join(f"{name}{n:02}" for n in range(20)) for name in "abc")
ONE = {"cookie_secret": OLD}
BOTH_OLD = {"cookie_secret": {0: OLD, 1: NEW}, "key_version": 0}
BOTH_NEW = {"cookie_secret": {0: OLD, 1: NEW}, "key_version": 1}
TWO_ONLY = {"cookie_secret": {1: NEW, 2: NEWEST}, "key_version": 2}


def key_in(cookie):
    """Return the version of the key that signed a cookie."""
    return int(cookie.split("|")[1].partition(":")[2])


async def test_a_login_outlives_every_key():
    """K1: str, then two keys, then two newer ones: still logged in, no second login."""
    store, cookies, signers = AsyncStore(), {}, []
    for settings in (ONE, BOTH_OLD, BOTH_NEW, TWO_ONLY):
        async with serving(Acts, store, **settings) as site:
            visitor = site.visitor(**cookies)
            if not cookies:
                await visitor.get("/?login=alice&set=k:v")
            assert (await visitor.get("/?touch=k")).body == b'{"k": "v"}'
            assert store.record.meta.principal == "alice"
            assert ("refused", "unknown key") not in site.kinds
            cookies = visitor.cookies
            signers.append(key_in(visitor.cookie))
    assert signers == [0, 0, 1, 2]


async def test_signing_anew():
    """K1, E4: the new signature leaves once the store says that the token is current."""
    store = AsyncStore()
    async with serving(Counter, store, **ONE) as site:
        visitor = site.visitor()
        await visitor.post()
    before = ticket_in(visitor.cookie, secret=OLD)
    async with serving(Counter, store, **BOTH_NEW) as site:
        moved = site.visitor(**visitor.cookies)
        store.forget()
        answer = await moved.get()
        (morsel,) = session_cookies(answer)
        assert ticket_in(morsel, secret=BOTH_NEW["cookie_secret"]) == before
        assert answer.headers["Cache-Control"] == "no-store"
        assert store.calls == ["load", "commit"]
        store.forget()
        assert session_cookies(await moved.get()) == []
        assert store.calls == ["load"]


async def test_a_version_beside_one_key_changes_nothing():
    """K1, P7: Tornado goes by key_version with several keys only, and so do we."""
    async with serving(Counter, AsyncStore(), **ONE, key_version=1) as site:
        visitor = site.visitor()
        await visitor.post()
        site.store.forget()
        assert session_cookies(await visitor.get()) == []
        assert site.store.calls == ["load"]


async def test_a_removed_key_opens_nothing():
    """K1 K2: without its key a cookie is a stranger's; no call, no cookie, one event."""
    store = AsyncStore()
    async with serving(Counter, store, **BOTH_OLD) as site:
        visitor = site.visitor()
        await visitor.post()
    async with serving(Counter, store, **TWO_ONLY) as site:
        store.forget()
        answer = await site.visitor(**visitor.cookies).get()
        assert (answer.code, answer.body) == (200, b'{"n": null}')
        assert session_cookies(answer) == []
        assert store.calls == []
        assert site.kinds == [("refused", "unknown key")]
        assert [event.handle for event in site.events] == [""]


@pytest.mark.parametrize(
    "value",
    [
        lambda ticket: signed(ticket, secret={7: NEW}, key_version=7),
        lambda ticket: signed(ticket, secret={1: NEW}, key_version=1).replace(
            "2|1:1|", "2|3:999|", 1
        ),
        lambda ticket: signed(ticket, secret={1: NEW}, key_version=1).replace(
            "2|1:1|", "2|2:-1|", 1
        ),
    ],
    ids=["signed", "relabelled", "negative"],
)
async def test_an_unknown_key_is_refused_by_its_name(value):
    """K1 K2: a version that no key has is told from a signature that is wrong."""
    async with serving(Counter, **TWO_ONLY) as site:
        visitor = site.visitor()
        await visitor.post()
        ticket = encode(ticket_in(visitor.cookie, secret=TWO_ONLY["cookie_secret"]))
        site.events.clear()
        site.store.forget()
        answer = await site.visitor(session=value(ticket)).get()
        assert (answer.code, answer.body) == (200, b'{"n": null}')
        assert site.kinds == [("refused", "unknown key")]
        assert site.store.calls == []


@pytest.mark.parametrize("version", [1, 2])
async def test_a_known_version_with_another_key_is_a_wrong_signature(version):
    """K1 K2: to name a version that is there makes no signature good."""
    async with serving(Counter, **TWO_ONLY) as site:
        visitor = site.visitor()
        await visitor.post()
        ticket = encode(ticket_in(visitor.cookie, secret=TWO_ONLY["cookie_secret"]))
        forged = signed(ticket, secret={version: OLD}, key_version=version)
        site.events.clear()
        assert (await site.visitor(session=forged).get()).body == b'{"n": null}'
        assert site.kinds == [("refused", "signature")]


# -- two processes during a deployment ------------------------------------------------


async def ask(url, cookie, act=""):
    """Send one request; return what is stored as seen there, and the cookie after it."""
    with closing(SessionClient(url, cookie=cookie)) as client:
        if act:
            assert (await client.post(act)).code == 200
        page = json.loads((await client.get("/")).body)
        return page, client.cookie


async def test_processes_with_the_old_and_the_new_key_share_their_visitors(tmp_path):
    """K1: while every process knows both keys, nobody is logged out, wherever they go."""
    store = f"sqlite:///{tmp_path}/s.db"
    old, new = Server(store, **BOTH_OLD), Server(store, **BOTH_NEW)
    try:
        page, cookie = await ask(old.url, "", "/login/alice")
        signers = [key_in(cookie)]
        for server in (new, old, new, new, old, new):
            page, cookie = await ask(server.url, cookie, "/count/n")
            assert page["principal"] == "alice"
            signers.append(key_in(cookie))
        assert page["values"] == {"n": 6}
        assert signers == [0, 1, 0, 1, 1, 0, 1]
    finally:
        old.end()
        new.end()


async def test_a_process_that_lacks_the_new_key_ends_nothing(tmp_path):
    """K1 C6: deployed in one step, the old process sees a stranger and sends no cookie."""
    store = f"sqlite:///{tmp_path}/s.db"
    old, new = Server(store, **ONE), Server(store, **BOTH_NEW)
    try:
        page, cookie = await ask(new.url, "", "/login/alice")
        seen, after = await ask(old.url, cookie)
        assert (seen["principal"], after) == (None, cookie)
        page, _ = await ask(new.url, cookie)
        assert page["principal"] == "alice"
    finally:
        old.end()
        new.end()


# -- weak secrets ---------------------------------------------------------------------

STRONG = [OLD, OLD.encode(), "0123456789abcdef" * 2, {0: OLD, 1: NEW}]
WEAK = {
    "short": ("hunter2 hunter2", "cookie_secret is weak: it has 15 bytes"),
    "one less": (("0123456789abcdef" * 2)[:-1], f"has {MIN_BYTES - 1} bytes"),
    "bytes": (b"hunter2 hunter2", "it has 15 bytes"),
    "one letter": ("hhhhhhhh" * 8, "less than 5 different characters"),
    "documented": (
        "__TODO:_GENERATE_YOUR_OWN_RANDOM_VALUE_HERE__",
        "placeholder of Tornado's documentation",
    ),
    "an old key": ({0: "hunter2 hunter2", 1: NEW}, "cookie_secret[0] is weak"),
}


def settings_of(secret):
    return {"cookie_secret": secret, "key_version": 1 if type(secret) is dict else None}


@pytest.mark.parametrize("kind", WEAK)
async def test_a_weak_secret_is_warned_of_once(kind, caplog):
    """K1 S9: one warning for an application, with the remedy and without the secret."""
    secret, what = WEAK[kind]
    async with serving(Counter, **settings_of(secret)) as site:
        visitor = site.visitor()
        for _ in range(3):
            assert (await visitor.post()).code == 200
    (record,) = [r for r in caplog.records if r.name == "tornado_sessions"]
    assert record.levelno == logging.WARNING
    assert what in record.getMessage()
    assert "python -c 'import secrets; print(secrets.token_hex())'" in record.message
    assert "hunter2" not in caplog.text
    assert "hhhh" not in caplog.text


async def test_every_application_has_its_own_warning(caplog):
    """K1: a second application with a weak secret in one process is told of, too."""
    for _ in range(2):
        app = Application([("/", Counter)], cookie_secret="short")
        async with running(app) as site:
            await site.visitor().post()
    assert caplog.text.count("cookie_secret is weak") == 2


@pytest.mark.parametrize("secret", STRONG, ids=["str", "bytes", "hex", "dict"])
def test_a_strong_secret_is_not_warned_of(secret, caplog):
    """K1: 32 bytes of some variety are enough, as str or bytes, one or many."""
    check_cookie_secret(settings_of(secret))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "sessions need Application.cookie_secret"),
        ({"cookie_secret": ""}, "sessions need"),
        ({"cookie_secret": {}}, "sessions need"),
        ({"cookie_secret": 42}, "cookie_secret is int"),
        ({"cookie_secret": [OLD, NEW]}, "cookie_secret is list"),
        ({"cookie_secret": {1: OLD}}, "key_version is None"),
        ({"cookie_secret": {1: OLD}, "key_version": 2}, "key_version is 2"),
        ({"cookie_secret": {"1": OLD}, "key_version": "1"}, "has the key '1'; use num"),
        ({"cookie_secret": {1: OLD, 2: ""}, "key_version": 1}, r"\[2\] is empty"),
        ({"cookie_secret": {1: OLD, 2: None}, "key_version": 1}, r"\[2\] is NoneType"),
    ],
)
def test_a_secret_that_cannot_work_is_refused(settings, message):
    """K1 S9: the error says which key is wrong and what to do, and shows none of them."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        check_cookie_secret(settings)
    assert OLD not in str(caught.value)


def test_the_secret_that_signs_comes_first():
    """K1: of several secrets, the one that key_version names."""
    assert all_secrets(BOTH_OLD) == [OLD.encode(), NEW.encode()]
    assert all_secrets(BOTH_NEW) == [NEW.encode(), OLD.encode()]
    assert all_secrets(ONE) == [OLD.encode()]
