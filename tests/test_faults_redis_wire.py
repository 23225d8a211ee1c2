"""Between Redis and the store: slow, cut, swallowed and spoiled answers."""

import asyncio
import random
from contextlib import closing, suppress

import pytest
import redis
import redis.asyncio as redis_asyncio
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from faultkit import (
    ROUTES,
    SLACK,
    Browser,
    all_fine,
    figure,
    gone,
    in_namespace,
    refused_in_time,
    under_load,
)
from httpkit import serving
from proxykit import Proxy
from rediskit import shared_redis, shared_server
from tornado_sessions import StoreError
from tornado_sessions.stores.redis import RedisStore
from tornado_sessions.stores.redis_scripts import COMMIT
from tornado_sessions.stores.url import store_from_url
from tornado_sessions.testing import read_session

pytestmark = pytest.mark.slow

DEADLINE = 1.0


@pytest.fixture
async def proxy():
    async with Proxy(shared_server("standalone").port) as proxy:
        yield proxy


def after(delay):
    """Answer late."""

    async def spoil(asked, answer):
        await asyncio.sleep(delay() if callable(delay) else delay)
        return answer

    return spoil


def now_and_then(spoiled):
    """Spoil about one answer of four."""

    async def spoil(asked, answer):
        return spoiled(answer) if random.random() < 0.25 else answer

    return spoil


async def test_slow_answers(proxy):
    """F1 C2: with a Redis that takes 0.3 s everything is served, and nothing mixed."""
    async with under_load(proxy.url) as load:
        proxy.spoil = after(0.3)
        slow = load.phase()
        await load.served()
        proxy.spoil = proxy.pass_on
    all_fine(slow)
    figure("answers after 0.3 s", slow=slow)


async def test_answers_beyond_the_deadline(proxy):
    """F1 C2: what comes too late is a 503, and goes to nobody else."""
    async with under_load(proxy.url, DEADLINE) as load:
        proxy.spoil = after(3 * DEADLINE)
        late = load.phase()
        await load.until(lambda: late.known[503] >= 48)
        assert set(late.known) == {503}  # who is waiting may yet be served
        load.phase()
        proxy.spoil = proxy.pass_on
        recovery = await load.served()
        fine = load.phase()
        await load.served()
    refused_in_time(late, DEADLINE)
    all_fine(fine)
    figure("answers beyond the deadline", late=late, recovery=recovery)


async def test_answers_around_the_deadline(proxy):
    """F1 C2: some in time, some too late, also while connecting: nothing is mixed."""
    async with under_load(proxy.url, DEADLINE) as load:
        delays = (*[0] * 7, 0.95, 1.05)
        proxy.spoil = after(lambda: random.choice(delays) * DEADLINE)
        mixed = load.phase()
        await load.until(lambda: mixed.known[503] >= 16 and mixed.known[200] >= 16)
        load.phase()
        proxy.spoil = proxy.pass_on
        await load.served()
    refused_in_time(mixed, DEADLINE)


SPOILED = {
    "cut": lambda answer: (answer[: len(answer) // 2], None),
    "closed": lambda _: None,
    "garbage": lambda _: b"\x00\xffgarbage\r\n\r\n",
    "other": lambda _: random.choice(
        (b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"*1\r\n+OK\r\n")
    ),
    "shape": lambda _: b"*2\r\n$2\r\n[]\r\n$0\r\n\r\n",
    "more": lambda answer: answer + answer,
}


@pytest.mark.parametrize("how", SPOILED)
async def test_spoiled_answers(proxy, how):
    """F1 F5 C2: an answer that breaks off or makes no sense fails its batch only."""
    async with under_load(proxy.url) as load:
        proxy.spoil = now_and_then(SPOILED[how])
        spoiled = load.phase()
        enough = 16
        await load.until(
            lambda: (
                spoiled.known[503] >= (0 if how == "more" else enough)
                and spoiled.known[200] >= enough
            )
        )
        load.phase()
        proxy.spoil = proxy.pass_on
        await load.served()
        fine = load.phase()
        await load.served()
    all_fine(fine)
    assert set(spoiled.known) <= {200, 503}
    figure(f"{how} answers", spoiled=spoiled, connections=proxy.connections)


def url_store(proxy):
    return store_from_url(in_namespace(proxy.url))


def retrying_store(proxy):
    client = redis_asyncio.Redis(
        port=proxy.port,
        retry=Retry(NoBackoff(), 3),
        retry_on_error=[ConnectionError, TimeoutError],
        single_connection_client=False,
    )
    return RedisStore(client, namespace=in_namespace("").partition("=")[2])


@pytest.mark.parametrize("make", [url_store, retrying_store])
async def test_a_commit_whose_answer_is_lost(proxy, make):
    """C2 F1: it was carried out, and is not again, whatever the client retries."""

    async def swallow(asked, answer):
        commit = COMMIT.sha.encode() in asked
        return None if commit and random.random() < 0.25 else answer

    store = make(proxy)
    async with under_load(store) as load:
        proxy.spoil = swallow
        lost = load.phase()
        await load.until(lambda: lost.known[503] >= 32)
        proxy.spoil = proxy.pass_on
        await load.served()
        load.over = True
        await load.ended()
        counted = [await load.counted(person) for person in load.people]
        assert counted == [person.sent for person in load.people]
    if make is retrying_store:
        await store._transport.close()
    refused_in_time(lost)
    figure("lost answers", lost=lost)


async def test_a_redirected_commit_whose_answer_is_lost(monkeypatch):
    """C2: nor is one sent again that went to another node of a cluster (MOVED)."""
    lost: list = []
    read = AbstractConnection.read_response

    async def lossy(connection, **options):
        answer = await read(connection, **options)
        if lost or not isinstance(answer, bytes) or not answer.endswith(b" A"):
            return answer  # it was not carried out
        lost.append(answer)
        await connection.disconnect()
        raise redis.ConnectionError("the answer was lost")

    async with serving(ROUTES, in_namespace(shared_redis("cluster"))) as site:
        with closing(Browser(site.port)) as browser:
            assert (await browser.fetch("/count/n", ""))[0] == 200
        session = await read_session(site.application, browser.cookie)
        slots = site.store._transport._client.nodes_manager.slots_cache
        slot = key_slot(site.store._layout.place(session.handle)[1])
        slots[slot] = next(one for one in slots.values() if one != slots[slot])
        monkeypatch.setattr(AbstractConnection, "read_response", lossy)
        with suppress(StoreError):
            await session.mutate("n", lambda number: number + 1, 0)
        assert lost
        monkeypatch.undo()
        session = await read_session(site.application, browser.cookie)
        assert session["n"] == 2


async def test_one_session_in_sixteen_tabs_while_redis_hangs(proxy):
    """F1: mutations that take turns do not wait for one deadline each."""
    store = in_namespace(proxy.url)

    async def hang_at_commits(asked, answer):
        if COMMIT.sha.encode() in asked:
            proxy.spoil = after(3600)
            return None
        return answer

    async with serving(ROUTES, store, session_store_timeout=DEADLINE) as site:
        browser = Browser(site.port)
        assert (await browser.fetch("/set", "who=me"))[0] == 200
        tabs = [Browser(site.port, browser.cookie) for _ in range(16)]
        proxy.spoil = hang_at_commits

        async def counted(tab):
            start = asyncio.get_running_loop().time()
            status, _ = await tab.fetch("/count/n", "")
            return status, asyncio.get_running_loop().time() - start

        answers = await asyncio.gather(*map(counted, tabs))
        proxy.spoil = proxy.pass_on
        for one in (browser, *tabs):
            one.close()
    assert {status for status, _ in answers} == {503}
    longest = max(wait for _, wait in answers)
    figure("16 tabs that count in one session", longest=longest, deadline=DEADLINE)
    assert longest < SLACK * DEADLINE


async def test_clients_that_hang_up(proxy):
    """F5: those whose batch it was, too, are served when others hang up."""
    async with under_load(proxy.url) as load:
        proxy.spoil = after(0.05)
        meanwhile = load.phase()
        for number in range(60):
            person = load.people[number % 16]
            browser = Browser(load.port, person.cookie)  # only makes requests
            _, writer = await asyncio.open_connection("127.0.0.1", load.port)
            path = ("/", "/set", "/count/other")[number % 3]
            body = (None, "other=1", "")[number % 3]
            writer.write(browser.request(path, body))
            await writer.drain()
            await asyncio.sleep(random.uniform(0, 0.04))
            writer.close()
        await load.served()
    all_fine(meanwhile)


async def test_requests_that_are_cancelled(proxy):
    """F5: a load that is cancelled while its batch is under way takes nobody along."""
    async with under_load(proxy.url) as load:
        proxy.spoil = after(0.05)
        meanwhile = load.phase()
        application = load.site.application
        for _ in range(10):
            each = [
                asyncio.create_task(read_session(application, one.cookie))
                for one in load.people
            ]
            await asyncio.sleep(random.uniform(0, 0.08))
            for task in each[::2]:
                task.cancel()
            done = await asyncio.gather(*each, return_exceptions=True)
            for person, session in list(zip(load.people, done, strict=True))[1::2]:
                assert not isinstance(session, BaseException)
                assert session["who"] == person.name
        await gone(lambda: load.site.manager._link._loads._queue)
        await load.served()
    all_fine(meanwhile)
