"""What a request costs in round trips, counted by Redis itself (P7)."""

import asyncio
import re
import secrets
from contextlib import asynccontextmanager

import pytest

from httpkit import acting, serving
from httpkit_stores import FakeClock, Gate, soon
from rediskit import shared_redis, shared_server
from tornado_sessions import store_from_url
from tornado_sessions.stores.base import Apply, Create, Delete, Meta, Outcome
from tornado_sessions.stores.redis import RedisStore

DAY = 86400
SENT = re.compile(rb'^\+\d+\.\d+ \[\d+ (?!lua).*?\] "(\w+)"', re.DOTALL)


class Monitor:
    """Every command that a server gets from clients; not what its scripts do."""

    def __init__(self, server, lines):
        self._server = server
        self._lines = lines

    async def commands(self):
        """Return the names of the commands since the last time."""
        mark = secrets.token_hex(8)
        await asyncio.to_thread(self._server.command, "ECHO", mark)
        seen = []
        while mark.encode() not in (line := await soon(self._lines.readline())):
            sent = SENT.match(line)
            if sent:
                seen.append(sent[1].decode().upper())
        return [name for name in seen if name not in ("HELLO", "CLIENT", "INFO")]


@asynccontextmanager
async def monitoring(server):
    lines, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**22)
    writer.write(b"MONITOR\r\n")
    assert await soon(lines.readline()) == b"+OK\r\n"
    yield Monitor(server, lines)
    writer.close()
    await writer.wait_closed()


@pytest.fixture
async def store():
    clock = FakeClock()
    namespace = f"t{secrets.token_hex(4)}"
    store = RedisStore(shared_redis("standalone"), namespace=namespace, clock=clock)
    async with store:
        assert await store.load(["h"]) == [None]
        assert await store.commit([Delete("h")]) == [Outcome.GONE]
        assert await store.find("nobody") == []
        yield store  # connected, and the scripts are there
        await store.clear()


@pytest.fixture
async def monitor():
    async with monitoring(shared_server("standalone")) as monitor:
        yield monitor


async def test_requests(store, monitor):
    """P7, S1, S2, E3: load 1, commit 0 or 1, extension 0 but when it is due."""
    async with serving(acting(), store=store) as site:
        stranger, visitor = site.visitor(), site.visitor()
        await stranger.get("/?touch=k")
        assert await monitor.commands() == []
        await visitor.get("/?set=k:1")
        assert await monitor.commands() == ["EVALSHA"]  # nothing to load
        await visitor.get("/?touch=k")
        assert await monitor.commands() == ["EVALSHA"]
        await visitor.get("/?set=k:2")
        assert await monitor.commands() == ["EVALSHA"] * 2
        await visitor.get("/?login=alice")
        assert await monitor.commands() == ["EVALSHA"] * 2
        store.clock.advance(DAY / 2)
        await visitor.get("/?touch=k")
        assert await monitor.commands() == ["EVALSHA"] * 2  # this one extends
        await visitor.get("/?touch=k")
        assert await monitor.commands() == ["EVALSHA"]
        await visitor.get("/?destroy=1")
        assert await monitor.commands() == ["EVALSHA"] * 2


async def test_the_first_requests_of_a_process(monitor):
    """P7: that Redis does not know the scripts yet costs no round trip."""
    await asyncio.to_thread(shared_server("standalone").command, "SCRIPT", "FLUSH")
    url = f"{shared_redis('standalone')}?namespace=t{secrets.token_hex(4)}"
    async with serving(acting(), store=store_from_url(url)) as site:
        visitor = site.visitor()
        await monitor.commands()
        await visitor.get("/?set=k:1")
        await visitor.get("/?set=k:2")
        assert await monitor.commands() == ["EVAL", "EVAL", "EVALSHA"]
        await site.store.clear()


async def test_rotation_costs_no_more(store, monitor):
    """P7, E4: a new token is part of the one commit."""
    async with serving(acting(), store=store, session_rotate_after=DAY) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        store.clock.advance(2 * DAY)
        await monitor.commands()
        before = visitor.cookie
        await visitor.get("/?set=k:2")
        assert await monitor.commands() == ["EVALSHA"] * 2
        assert visitor.cookie != before


async def test_sessions_of(store, monitor):
    """P7: one for the index, one for all the records; pruning is a rare third."""
    async with serving(acting(), store=store) as site:
        for _ in range(5):
            await site.visitor().get("/?login=alice")
        await monitor.commands()
        assert len(await site.manager.sessions_of("alice")) == 5
        assert await monitor.commands() == ["EVALSHA"] * 2
        assert await site.manager.revoke_all("alice") == 5
        assert await monitor.commands() == ["EVALSHA"] * 3


async def test_parallel_requests_share_round_trips(store, monitor):
    """P7, F5: what is asked while a batch is under way leaves as one batch."""
    gates = [Gate() for _ in range(30)]
    async with serving(
        acting(**{f"g{n}": g for n, g in enumerate(gates)}), store=store
    ) as site:
        visitors = [site.visitor() for _ in gates]
        for visitor in visitors:
            await visitor.get("/?set=k:1")
        await monitor.commands()
        parked = [
            asyncio.ensure_future(visitor.get(f"/?set=k:2&wait=g{n}"))
            for n, visitor in enumerate(visitors)
        ]
        for gate in gates:
            await gate.arrival()
        assert len(await monitor.commands()) <= 30
        for gate in gates:
            gate.open()  # in one turn of the loop
        answers = await soon(asyncio.gather(*parked))
        assert {answer.code for answer in answers} == {200}
        assert len(await monitor.commands()) <= 3


async def test_mixed_batches_are_one(store, monitor):
    """R1, P7: creates, changes and ends of many visitors, in one round trip."""
    now = store.clock()
    times = dict.fromkeys(("created_at", "last_seen_at", "epoch_at", "rotated_at"), now)
    meta = Meta(**times, token=b"t", expires_at=now + DAY, principal="alice")
    many = [Create(f"h{n}", meta, {"k": b"v"}) for n in range(20)]
    many += [Apply(f"h{n}", set={"k": b"w"}, principal="alice") for n in range(20)]
    many += [Delete(f"h{n}", principal="alice") for n in range(20)]
    assert await store.commit(many) == [Outcome.APPLIED] * 60
    assert await monitor.commands() == ["EVALSHA"]
    assert await store.load([f"h{n}" for n in range(60)]) == [None] * 60
    assert await monitor.commands() == ["EVALSHA"]
