"""What Redis refuses: the visitors concerned get a 503, and the log says what to do."""

import asyncio
from contextlib import ExitStack, closing

import pytest
import redis
from redis._parsers import _AsyncRESP2Parser

from faultkit import (
    ROUTES,
    Browser,
    all_fine,
    figure,
    in_namespace,
    refused_in_time,
    under_load,
)
from httpkit import serving, ticket_in
from rediskit import SMALL, RedisServer, ReplyError, shared_redis, shared_server
from tornado_sessions import StoreError
from tornado_sessions.stores.base import Apply, Create, Delete, Meta, Outcome
from tornado_sessions.stores.redis_errors import explained
from tornado_sessions.stores.url import store_from_url

PASSWORD = "hunter2-the-real-one"
WRONG = "letmein-the-wrong-one"


async def cookie_in(url):
    """Begin a session in the store at *url*, and return its cookie."""
    async with serving(ROUTES, url) as site:
        with closing(Browser(site.port)) as browser:
            assert (await browser.fetch("/set", "who=me"))[0] == 200
    return browser.cookie


async def answers(url, cookie, *requests):
    """Return status and body of each request: a path, or a path and a body."""
    async with serving(ROUTES, url, session_store_timeout=1.0) as site:
        with closing(Browser(site.port)) as stranger:
            assert (await stranger.fetch("/"))[0] == 200
        with closing(Browser(site.port, cookie)) as browser:
            return [await browser.fetch(*one) for one in requests]


def as_user(url, user, password):
    return url.replace("redis://", f"redis://{user}:{password}@")


@pytest.fixture
def limited():
    """A server whose users are made by the test."""
    with RedisServer("--save", "") as server:
        yield server


async def test_a_wrong_password(caplog):
    """F1 F3 S9: it is a 503 that says to check the password, and never shows it."""
    with RedisServer("--save", "", password=PASSWORD) as server:
        good = in_namespace(server.url)
        cookie = await cookie_in(good)
        wrong = good.replace(PASSWORD, WRONG)
        without = good.replace(f":{PASSWORD}@", "")
        for url in (wrong, without):
            caplog.clear()
            said = await answers(url, cookie, ("/",), ("/set", "a=1"), ("/logout", ""))
            assert [status for status, _ in said] == [503, 503, 503]
            assert "check the user and the password" in caplog.text
            assert PASSWORD not in caplog.text
            assert WRONG not in caplog.text
            assert not any(WRONG.encode() in body for _, body in said)
        assert [one[0] for one in await answers(good, cookie, ("/",))] == [200]


@pytest.mark.parametrize("lacks", ["-evalsha", "-hgetall", "-hset", "resetkeys"])
async def test_a_user_who_lacks_a_permission(limited, caplog, lacks):
    """F3 R1: the error says that a permission is missing, and where to find which."""
    good = in_namespace(limited.url)
    cookie = await cookie_in(good)
    rules = (f">{PASSWORD}", "on", "allkeys", "allchannels", "+@all", lacks)
    limited.command("ACL", "SETUSER", "limited", *rules)
    url = as_user(good, "limited", PASSWORD)
    said = await answers(url, cookie, ("/",), ("/set", "a=1"))
    assert said[1][0] == 503
    assert "lacks a permission" in caplog.text
    assert PASSWORD not in caplog.text


async def test_a_user_who_may_not_publish(limited, caplog):
    """F3 S9: ends are not published, which is said once; all else works."""
    good = in_namespace(limited.url)
    cookies = [await cookie_in(good) for _ in range(2)]
    rules = (f">{PASSWORD}", "on", "allkeys", "resetchannels", "+@all")
    limited.command("ACL", "SETUSER", "quiet", *rules)
    url = as_user(good, "quiet", PASSWORD)
    async with serving(ROUTES, url) as site:
        for cookie in cookies:
            with closing(Browser(site.port, cookie)) as browser:
                assert (await browser.fetch("/logout", ""))[0] == 200
            assert browser.cookie == ""
        assert await site.manager.count() == 0
    assert caplog.text.count("did not publish it") == 1
    assert "lacks a permission" in caplog.text
    assert PASSWORD not in caplog.text


async def test_a_user_with_few_permissions(limited, caplog):
    """F3: no CONFIG, KEYS or anything dangerous is needed, nor anybody else's keys."""
    good = in_namespace(limited.url)
    name = good.partition("namespace=")[2]
    keys, channels = f"~{name}:*", f"&{name}:*"
    rules = (f">{PASSWORD}", "on", keys, channels, "+@all", "-@admin", "-@dangerous")
    limited.command("ACL", "SETUSER", "small", *rules)
    url = as_user(good, "small", PASSWORD)
    async with under_load(url) as load:
        await load.served()
        assert await load.site.manager.count() == len(load.people) + 1
    all_fine(load.tally)
    assert caplog.text == ""


FILLERS = [f"filler:{number}" for number in range(16)]


def fill(server):
    """Leave no room; deleting FILLERS makes some again."""
    for key in FILLERS:
        server.command("SET", key, "x" * (1 << 16))
    used = int(server.info("memory")["used_memory"])
    server.command("CONFIG", "SET", "maxmemory", used - (1 << 19))
    with pytest.raises(ReplyError, match="OOM"):
        server.command("SET", "one", "more")


async def test_a_redis_that_is_full(caplog):
    """F1 F3: with maxmemory reached, who reads is served, and who logs out is out."""
    with RedisServer("--save", "", *SMALL) as server, ExitStack() as stack:
        async with under_load(server.url) as load:
            leaving = stack.enter_context(closing(Browser(load.port)))
            await leaving.fetch("/set", "who=leaving")
            await asyncio.to_thread(fill, server)
            full = load.phase()
            await load.until(lambda: full.known[503] >= 32)
            cookie = load.people[0].cookie
            reader = stack.enter_context(closing(Browser(load.port, cookie)))
            assert (await reader.fetch("/"))[0] == 200
            handle = load.people[0].handle
            assert (await reader.fetch("/set", "a=1"))[0] == 503
            before = await load.site.manager.count()
            assert (await leaving.fetch("/logout", ""))[0] == 200
            assert leaving.cookie == ""
            assert await load.site.manager.count() == before - 1
            assert await load.site.store.load([handle])
            load.phase()
            server.command("UNLINK", *FILLERS)
            recovery = await load.served()
            stack.close()
        refused_in_time(full)
        assert full.known[200] > 0
        assert "maxmemory" in caplog.text
        figure("full", full=full, recovery=recovery)


async def test_a_replica(caplog):
    """F3: it is readable, and refuses changes as what it is; then it is the master."""
    with RedisServer("--save", "") as server, ExitStack() as stack:
        url = in_namespace(server.url)
        cookie = await cookie_in(url)
        async with serving(ROUTES, url, session_store_timeout=1.0) as site:
            browser = stack.enter_context(closing(Browser(site.port, cookie)))
            server.command("REPLICAOF", "127.0.0.1", "1")
            assert (await browser.fetch("/"))[0] == 200
            for request in (("/set", "a=1"), ("/count/n", ""), ("/logout", "")):
                caplog.clear()
                assert (await browser.fetch(*request))[0] == 503
                assert "this server is a replica" in caplog.text
            server.command("REPLICAOF", "NO", "ONE")
            assert (await browser.fetch("/count/n", ""))[0] == 200
            stack.close()


async def test_a_key_that_holds_something_else(caplog):
    """F3 R1: a WRONGTYPE key is one visitor's 503; the others of the batch are fine."""
    server = shared_server("standalone")
    stack = ExitStack()
    async with under_load(server.url) as load:
        victim = stack.enter_context(closing(Browser(load.port)))
        await victim.fetch("/set", "who=victim")
        store = load.site.store
        handle = ticket_in(victim.cookie.partition("=")[2]).handle
        _, key, _ = store._layout.place(handle)
        server.command("DEL", key)
        server.command("SET", key, "something else")
        meanwhile = load.phase()
        for request in (("/",), ("/set", "a=1"), ("/logout", "")):
            assert (await victim.fetch(*request))[0] == 503
        handles = [load.people[0].handle, handle, load.people[1].handle]
        first, wrong, second = await store.load(handles)
        assert (first.handle, second.handle) == (handles[0], handles[2])
        assert isinstance(wrong, StoreError)
        outcomes = await store.commit([Apply(one, {"x": b"1"}) for one in handles])
        assert outcomes[::2] == [Outcome.APPLIED, Outcome.APPLIED]
        assert "WRONGTYPE" in str(outcomes[1])
        await load.served()
        server.command("DEL", key)
        assert (await victim.fetch("/"))[0] == 200
        stack.close()
    all_fine(meanwhile)
    assert "delete it, or change the namespace" in caplog.text


def meta(now, principal=None):
    return Meta(
        token=b"t",
        created_at=now,
        last_seen_at=now,
        epoch_at=now,
        rotated_at=now,
        expires_at=now + 600,
        principal=principal,
    )


@pytest.fixture(params=["standalone", "cluster"])
async def spoilt(request):
    """A store, and a function that makes a key of it a string."""
    store = store_from_url(in_namespace(shared_redis(request.param)))
    server = shared_server(request.param)

    def spoil(key):
        node = server.owner(key) if request.param == "cluster" else server
        node.command("DEL", key)
        node.command("SET", key, "something else")

    async with store:
        yield store, spoil
        await store.clear()


async def test_an_index_by_principal_that_is_something_else(spoilt):
    """F3 R2: whose index is broken can neither begin nor log in, clearly; others can."""
    store, spoil = spoilt
    now = store.clock()
    assert await store.commit([Create("old", meta(now), {"a": b"1"})]) == [
        Outcome.APPLIED
    ]
    before = await store.load(["old", "new"])
    login = {"principal": "ada", "token": b"u", "expires_at": now + 900.0}
    spoil(store._layout.principal("ada"))
    outcomes = await store.commit(
        [
            Create("new", meta(now, "ada"), {"a": b"1"}),
            Apply("old", {"a": b"2"}, meta=login),
            Create("other", meta(now, "bob"), {"a": b"1"}),
        ]
    )
    assert [type(one) for one in outcomes] == [StoreError, StoreError, Outcome]
    assert all("WRONGTYPE" in str(one) for one in outcomes[:2])
    assert await store.load(["old", "new"]) == before
    assert [one.handle for one in await store.find("bob")] == ["other"]
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await store.find("ada")


async def test_an_index_of_the_live_that_is_something_else(spoilt):
    """F3 R2: what cannot be indexed is not stored; what can be read still is."""
    store, spoil = spoilt
    now = store.clock()
    old = Create("old", meta(now, "ada"), {"a": b"1"})
    assert await store.commit([old]) == [Outcome.APPLIED]
    before = await store.load(["old", "new"])
    for handle in ("old", "new"):
        spoil(store._layout.live[store._layout.place(handle)[0]])
    later = {"expires_at": now + 900.0}
    changes = [
        Create("new", meta(now, "ada"), {"a": b"1"}),
        Apply("old", {"a": b"2"}, meta=later, principal="ada"),
    ]
    outcomes = await store.commit(changes)
    assert [type(one) for one in outcomes] == [StoreError, StoreError]
    assert all("WRONGTYPE" in str(one) for one in outcomes)
    assert await store.load(["old", "new"]) == before
    assert [one.handle for one in await store.find("ada")] == ["old"]
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await store.count()


async def test_an_end_whose_index_is_something_else(spoilt):
    """F3 R2: an end is carried out and told, or it is an error and nothing happened."""
    store, spoil = spoilt
    old = Create("old", meta(store.clock()), {"a": b"1"})
    assert await store.commit([old]) == [Outcome.APPLIED]
    spoil(store._layout.live[store._layout.place("old")[0]])
    (outcome,) = await store.commit([Delete("old")])
    (left,) = await store.load(["old"])
    assert (left is None) == (outcome is Outcome.APPLIED)


IN_A_SCRIPT = "script: f00, on @user_script:9."
SAID = {
    "WRONGTYPE Operation against a key holding the wrong kind of value": "namespace",
    "OOM command not allowed when used memory > 'maxmemory'.": "maxmemory",
    "NOPERM this user has no permissions to run the 'evalsha' command": "permission",
    "NOPERM this user has no permissions to access one of the keys": "permission",
    f"ERR The user executing the script can't run this command {IN_A_SCRIPT}": (
        "permission"
    ),
    f"ERR The user executing the script can't access at least one {IN_A_SCRIPT}": (
        "permission"
    ),
    f"ERR The user executing the script can't publish to the channel {IN_A_SCRIPT}": (
        "permission"
    ),
    "NOPERM ACL failure in script: User ada has no permissions to access the 'k' key": (
        "permission"
    ),
    "WRONGPASS invalid username-password pair or user is disabled.": "password",
    "NOAUTH Authentication required.": "password",
    "NOAUTH HELLO must be called with the client already authenticated": "password",
    "ERR AUTH <password> called without any password configured": "password",
    "MOVED 3999 127.0.0.1:6381": "redis+cluster://",
    "CROSSSLOT Keys in request don't hash to the same slot": "redis+cluster://",
    "READONLY You can't write against a read only replica.": "this server is a replica",
    "LOADING Redis is loading the dataset in memory": "still loading",
    "MISCONF Redis is configured to save RDB snapshots, but it's unable to": "disk",
    "CLUSTERDOWN The cluster is down": "no master for some",
    "CLUSTERDOWN Hash slot not served": "no master for some",
    "NOREPLICAS Not enough good replicas to write.": "replicas",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is 'no'.": (
        "this server is a replica"
    ),
    "BUSY Redis is busy running a script.": "busy",
    "ERR max number of clients reached": "maxclients",
}
"""What servers of version 6 to 8 say, and a word of what is to be done about it."""


def thrown(said):
    """Return what redis-py makes of an error that the server says."""
    error = _AsyncRESP2Parser(1).parse_error(said)
    assert isinstance(error, redis.RedisError)
    return error


@pytest.mark.parametrize(
    ("said", "advice"), SAID.items(), ids=[one[:72] for one in SAID]
)
@pytest.mark.parametrize("form", ["exception", "text"])
def test_what_redis_says_is_explained(said, advice, form):
    """F3: the error says what to do, be it the driver's or out of a script."""
    error = explained(thrown(said) if form == "exception" else said)
    told, _, what = str(error).partition("; ")
    assert advice in what, error
    assert told.startswith("Redis: ")
    assert (error.__cause__ is None) == (form == "text")
