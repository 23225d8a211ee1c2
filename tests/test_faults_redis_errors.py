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
from httpkit import serving
from rediskit import SMALL, RedisServer, ReplyError
from tornado_sessions.stores.redis_errors import explained

pytestmark = pytest.mark.slow

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
            await load.until(lambda: full.known[503] >= 32 and full.known[200] >= 16)
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
