"""The end of a session reaches every open socket that belongs to it, with its reason."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from backends import BACKENDS, backend_url
from httpkit import serving, ticket_in
from httpkit_stores import (
    PATIENCE,
    AsyncStore,
    FakeClock,
    Gate,
    ImmediateStore,
    marked_slow,
    on_both_paths,
    on_every_store,
    soon,
    until,
)
from socketkit import a_socket, connect, routes
from tornado_sessions import ConfigurationError, StoreError
from tornado_sessions.stores.base import LOOK_EVERY, Delete
from tornado_sessions.stores.memory import MemoryStore
from tornado_sessions.stores.url import store_from_url

POLICY_VIOLATION = 1008


async def login(site, principal="alice"):
    """Return a visitor who is logged in."""
    visitor = site.visitor()
    await visitor.get(f"/acts?set=k:v&login={principal}")
    return visitor


def begin_session(handler):
    """Change a session before the handshake is answered."""
    handler.session["begun"] = True


@asynccontextmanager
async def two_servers(handler, name, folder, **settings):
    """Serve the same application twice, on one backend, as two processes do."""
    url = backend_url(name, folder)
    async with (
        serving(routes(handler), store_from_url(url), **settings) as one,
        serving(routes(handler), store_from_url(url), **settings) as two,
    ):
        yield one, two


def at_second(site, visitor):
    """Return the same browser, at another server."""
    return site.visitor(**visitor.cookies)


@on_every_store
async def test_destroyed(make_store):
    """W1, E6: logging out closes every socket of the session, and no other."""
    handler = a_socket()
    async with serving(routes(handler), make_store()) as site:
        visitor, other = await login(site), await login(site, "bob")
        sockets = [await connect(visitor) for _ in range(3)]
        stays = await connect(other)
        await visitor.get("/acts?destroy=1")
        for socket in sockets:
            assert await socket.closed() == (POLICY_VIOLATION, "destroyed")
        assert handler.ends == [("destroyed", "alice")] * 3
        assert await stays.say("who") == "bob"


@on_every_store
async def test_revoked(make_store):
    """W1, E6: `revoke` closes them with the reason that it was given."""
    handler = a_socket()
    async with serving(routes(handler), make_store()) as site:
        visitor = await login(site)
        socket = await connect(visitor)
        assert await site.manager.revoke(ticket_in(visitor.cookie).handle, "stolen")
        assert await socket.closed() == (POLICY_VIOLATION, "stolen")


@on_every_store
async def test_all_revoked(make_store):
    """W1: `revoke_all` closes those of every session of the principal but one."""
    async with serving(routes(a_socket()), make_store()) as site:
        visitors = [await login(site) for _ in range(3)]
        sockets = [await connect(visitor) for visitor in visitors]
        keep = ticket_in(visitors[0].cookie).handle
        assert await site.manager.revoke_all("alice", keep=keep) == 2
        for socket in sockets[1:]:
            assert await socket.closed() == (POLICY_VIOLATION, "revoked")
        assert await sockets[0].say("who") == "alice"


@on_both_paths
async def test_destroyed_by_a_socket(make_store):
    """W1, W3: a socket may end the session itself, and is told like the others."""
    handler = a_socket()
    async with serving(routes(handler), make_store()) as site:
        visitor = await login(site)
        sockets = [await connect(visitor) for _ in range(2)]
        await sockets[0].send("destroy")
        for socket in sockets:
            assert await socket.closed() == (POLICY_VIOLATION, "destroyed")


@on_both_paths
async def test_reuse(make_store):
    """W1, E5, E6: a session that ends because its token was stolen closes its sockets."""
    store = make_store()
    settings = {"session_rotate_after": 60, "session_rotate_grace": 1}
    async with serving(routes(a_socket()), store, **settings) as site:
        now, later = store.clock, [0.0]
        store.clock = lambda: now() + later[0]
        visitor = await login(site)
        thief = visitor.twin()
        socket = await connect(visitor)
        for _ in range(3):
            later[0] += 100
            await visitor.get("/acts?touch=k")
        await thief.get("/acts?touch=k")
        assert await socket.closed() == (POLICY_VIOLATION, "reuse")


@on_both_paths
async def test_evicted(make_store):
    """W1, E6, E7: a login too many closes the sockets of the oldest session."""
    handler = a_socket()
    store = make_store()
    async with serving(routes(handler), store, session_max_per_principal=2) as site:
        visitors = [await login(site) for _ in range(2)]
        sockets = [await connect(visitor) for visitor in visitors]
        await login(site)
        assert await sockets[0].closed() == (POLICY_VIOLATION, "evicted")
        assert await sockets[1].say("who") == "alice"


@on_every_store
@pytest.mark.parametrize(("clock", "seconds"), [("idle", 0.4), ("absolute", 2)])
async def test_expired(make_store, clock, seconds):
    """W1, E1, E6: by one timer, at the moment when the session is over."""
    settings = {f"session_{clock}_timeout": seconds}
    async with serving(routes(a_socket()), make_store(), **settings) as site:
        visitor = await login(site)
        socket = await connect(visitor)
        assert await socket.closed() == (POLICY_VIOLATION, clock)


async def test_a_life_that_was_extended():
    """W1, E1: the timer asks whether requests have extended the session's life."""
    async with serving(routes(a_socket()), session_idle_timeout=0.4) as site:
        visitor = await login(site)
        socket = await connect(visitor)
        began = time.monotonic()
        while time.monotonic() < began + 1.0:
            assert (await visitor.get("/acts?touch=k")).body == b'{"k": "v"}'
        assert await socket.say("who") == "alice"
        assert await socket.closed() == (POLICY_VIOLATION, "idle")


@pytest.mark.parametrize("trouble", ["failing", "unreadable"])
async def test_the_absolute_end_without_the_store(trouble, caplog):
    """W1, E1: it is known, so it is told while the store cannot say if there is idle life."""
    settings = {"session_idle_timeout": 0.2, "session_absolute_timeout": 1.5}
    store = AsyncStore()
    async with serving(routes(a_socket()), store, **settings) as site:
        visitor = await login(site)
        socket = await connect(visitor)
        handles = {ticket_in(visitor.cookie).handle}
        setattr(store, trouble, {"load"} if trouble == "failing" else handles)
        assert await socket.closed() == (POLICY_VIOLATION, "absolute")
        assert store.calls.count("load") > 2
    unread = "a watched session cannot be read: truncated"
    assert caplog.messages.count(unread) == (trouble == "unreadable")


@pytest.mark.parametrize("clock", ["idle", "absolute"])
async def test_a_machine_that_slept(clock):
    """W1, E1: timers of the loop did not count that time, and yet the end is noticed."""
    wall = FakeClock()
    store = AsyncStore(clock=wall)
    async with serving(routes(a_socket()), store) as site:
        visitor = await login(site)
        socket = await connect(visitor)
        watch = site.manager.watch
        await until(lambda: watch._looking is not None and watch._looking.done())
        wall.advance(getattr(site.manager.config, f"{clock}_timeout") + 1)
        assert await socket.closed() == (POLICY_VIOLATION, clock)


async def test_a_shorter_timeout_than_before():
    """W1, E1: the clocks as they are configured now decide, as they do for requests."""
    store = MemoryStore()
    async with serving(routes(a_socket()), store) as site:
        visitor = await login(site)
    async with serving(routes(a_socket()), store, session_idle_timeout=0.4) as site:
        socket = await connect(at_second(site, visitor))
        assert await socket.closed() == (POLICY_VIOLATION, "idle")


async def test_the_same_turn_of_the_loop():
    """W1: in memory a socket knows as soon as the session is gone, without any wait."""
    handler = a_socket()
    store = MemoryStore()
    async with serving(routes(handler), store) as site:
        visitor = await login(site)
        await connect(visitor)
        turns = []
        asyncio.get_running_loop().call_soon(turns.append, "a turn")
        call = site.manager.revoke(ticket_in(visitor.cookie).handle)
        with pytest.raises(StopIteration):
            call.send(None)
        assert (handler.ends, turns) == ([("revoked", "alice")], [])


def test_whoever_has_to_look_does_so_twice_a_second():
    """W1: and so hears of an end within a second."""
    assert 2 * LOOK_EVERY <= 1


@pytest.mark.parametrize("name", marked_slow(BACKENDS))
async def test_two_processes(name, tmp_path):
    """W1, W2, E6: what ends at one server closes the sockets at the other."""
    handler = a_socket()
    async with two_servers(handler, name, tmp_path) as (one, two):
        visitor, other = await login(one), await login(one)
        stays = await connect(at_second(two, other))
        socket = await connect(at_second(two, visitor))
        await visitor.get("/acts?destroy=1")
        assert await socket.closed() == (POLICY_VIOLATION, "destroyed")
        visitor = await login(one)
        socket = await connect(at_second(two, visitor))
        await one.manager.revoke(ticket_in(visitor.cookie).handle, "lost: a phone")
        assert await socket.closed() == (POLICY_VIOLATION, "lost: a phone")
        assert await stays.say("who") == "alice"


class Silent(AsyncStore):
    """Tells of nothing by itself: a database whose news can be lost.

    Whoever parks an "answer" holds it up after the database has given it.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.listeners = []
        self.asked = set()
        """Handles of which answers have arrived."""

    async def listen(self, listener):
        self._fail("listen")
        self.listeners.append(listener)
        listener.connected()
        await self.before("lost")
        raise StoreError("the connection was lost") from ConnectionError("reset")

    async def load(self, handles):
        loaded = await super().load(handles)
        await self.before("answer")
        self.asked.update(handles)
        return loaded

    async def elsewhere(self, handle):
        """End a session as another process does."""
        await self.inner.commit([Delete(handle, "elsewhere")])


async def test_a_connection_that_was_lost():
    """W4: what ended while nothing was heard is found when the connection is back."""
    store = Silent()
    async with serving(routes(a_socket()), store) as site:
        lost = store.park("lost")
        visitor, other = await login(site), await login(site)
        socket, stays = await connect(visitor), await connect(other)
        await lost.arrival()
        store.failing = {"listen"}
        lost.open()
        await store.elsewhere(ticket_in(visitor.cookie).handle)
        store.park("lost")
        store.failing = set()
        assert await socket.closed() == (POLICY_VIOLATION, "revoked")
        assert await stays.say("who") == "alice"


async def test_a_database_that_fails_when_it_is_looked_at():
    """W4, F1: whoever could not be looked at is looked at again, until it works."""
    store = Silent()
    async with serving(routes(a_socket()), store) as site:
        lost = store.park("lost")
        visitor = await login(site)
        socket = await connect(visitor)
        await lost.arrival()
        await store.elsewhere(ticket_in(visitor.cookie).handle)
        store.failing = {"load"}
        store.park("lost")
        store.forget()
        lost.open()
        await until(lambda: store.calls.count("load") >= 2)
        store.failing = set()
        assert await socket.closed() == (POLICY_VIOLATION, "revoked")


class Mute(ImmediateStore):
    """Tells of no end, and thinks that it is its configuration that is wrong."""

    async def listen(self, listener):
        listener.connected()
        await asyncio.Event().wait()

    def _fail(self, call):
        if call in self.failing:
            raise ConfigurationError(f"no {call} today")


async def test_a_configuration_that_fails_when_sessions_are_looked_at():
    """W4, F1: whatever it is that fails, nobody who has to be looked at is forgotten."""
    store = Mute()
    async with serving(routes(a_socket()), store) as site:
        visitor, watch = await login(site), site.manager.watch
        socket = await connect(visitor)
        await until(lambda: watch._looking is not None and watch._looking.done())
        await store.inner.commit(
            [Delete(ticket_in(visitor.cookie).handle, "elsewhere")]
        )
        store.failing = {"load"}
        store.forget()
        watch.connected()
        await until(lambda: store.calls == ["load"])
        store.failing = set()
        assert await socket.closed() == (POLICY_VIOLATION, "revoked")


async def test_every_outage_is_logged(caplog):
    """W4, F1: that a store tells of nothing is logged again once it has told of ends."""
    store = Silent()
    async with serving(routes(a_socket()), store) as site:
        lost = store.park("lost")
        await connect(await login(site))
        for number in range(3):
            await lost.arrival()
            assert caplog.text.count("the store does not tell of ends") == number
            lost, before = store.park("lost"), lost
            before.open()
        await lost.arrival()


async def test_whoever_is_gone_is_not_looked_at_again():
    """W2, W4: what cannot be read is not asked for behind the last socket that it had."""
    store = Silent()
    async with serving(routes(a_socket()), store) as site:
        store.park("lost")
        visitor, other = await login(site), await login(site)
        socket, stays = await connect(visitor), await connect(other)
        store.unreadable = {ticket_in(visitor.cookie).handle}
        await until(lambda: store.listeners)
        store.listeners[0].connected()
        watch = site.manager.watch
        await until(lambda: watch._doubtful)
        await socket.hang_up()
        await until(lambda: not watch._doubtful and watch._looking.done())
        assert await stays.say("who") == "alice"


async def test_an_answer_from_before_the_session_was_stored():
    """W4, T7: a socket that is opened while others are looked at is not taken for ended."""
    store = Silent()
    async with serving(routes(a_socket(prepare=begin_session)), store) as site:
        store.park("lost")
        other, visitor = await login(site), site.visitor()
        stays = await connect(other)
        stored = store.park("commit")
        shaking = asyncio.ensure_future(connect(visitor))
        await stored.arrival()
        answer = store.park("answer")
        store.listeners[0].connected()
        await answer.arrival()
        stored.open()
        socket = await soon(shaking)
        answer.open()
        looked_at = ticket_in(visitor.cookie).handle
        await until(lambda: looked_at in store.asked)
        assert await socket.say("read begun") is True
        assert await stays.say("who") == "alice"


async def test_a_look_that_is_faster_than_the_news():
    """W1, W4, E6: what is found gone ends with the reason that follows in a moment."""
    store = Silent()
    async with serving(routes(a_socket()), store) as site:
        store.park("lost")
        visitor = await login(site)
        socket = await connect(visitor)
        await until(lambda: has_looked(site))
        handle = ticket_in(visitor.cookie).handle
        await store.elsewhere(handle)
        store.asked.clear()
        store.listeners[0].connected()
        await until(lambda: handle in store.asked and has_looked(site))
        store.listeners[0].ended(handle, "stolen")
        assert await socket.closed() == (POLICY_VIOLATION, "stolen")


async def test_a_connection_that_was_lost_again():
    """W4: what ended after an answer was given is found, though that comes only later."""
    store = Silent()
    async with serving(routes(a_socket()), store) as site:
        store.park("lost")
        visitor = await login(site)
        socket = await connect(visitor)
        answer = store.park("answer")
        store.listeners[0].connected()
        await answer.arrival()
        await store.elsewhere(ticket_in(visitor.cookie).handle)
        store.listeners[0].connected()
        answer.open()
        assert await socket.closed() == (POLICY_VIOLATION, "revoked")


async def test_a_life_that_was_extended_behind_an_answer():
    """W4, E1: an answer that comes after the end of the life that it tells of is old."""
    clock = FakeClock()
    store = Silent(clock=clock)
    async with serving(routes(a_socket()), store) as site:
        store.park("lost")
        visitor = await login(site)
        socket = await connect(visitor)
        idle_timeout = site.manager.config.idle_timeout
        answer = store.park("answer")
        store.listeners[0].connected()
        await answer.arrival()
        clock.advance(idle_timeout - 1)
        await visitor.get("/acts?touch=k")
        clock.advance(2)
        store.asked.clear()
        answer.open()
        await until(lambda: store.asked)
        assert await socket.say("who") == "alice"


def has_looked(site):
    """Tell whether the sessions were looked at that were watched when listening began."""
    looking = site.manager.watch._looking
    return looking is not None and looking.done()


async def test_an_end_during_the_handshake():
    """W1: a session that ends after it was loaded and before the 101 is noticed."""
    handler = a_socket()
    store = AsyncStore()
    async with serving(routes(handler), store) as site:
        visitor = await login(site)
        await connect(visitor)  # so that this process listens
        await until(lambda: has_looked(site))  # which takes a load
        gate = store.park("load")

        shaking = asyncio.ensure_future(connect(visitor))
        await gate.arrival()
        watch = site.manager.watch
        watch.ended(ticket_in(visitor.cookie).handle, "meanwhile")
        gate.open()
        socket = await soon(shaking)
        assert await socket.closed() == (POLICY_VIOLATION, "meanwhile")


async def test_closing_after_the_last_socket():
    """W4: the store is closed only when nobody listens to it any more."""
    gate = Gate()

    class SaysGoodbye(AsyncStore):
        async def listen(self, listener):
            try:
                await super().listen(listener)
            finally:
                await gate.pass_through()

    store = SaysGoodbye()
    async with serving(routes(a_socket()), store) as site:
        visitor = await login(site)
        socket = await connect(visitor)
        await site.manager.revoke(ticket_in(visitor.cookie).handle)
        await socket.closed()
        await gate.arrival()
        closing = asyncio.ensure_future(site.manager.close())
        await asyncio.sleep(0.05)
        assert store._opened
        gate.open()
        await soon(closing)
        assert not store._opened


async def test_messages_after_the_end():
    """W1: what comes after the socket was closed is dropped."""
    handler = a_socket()
    async with serving(routes(handler)) as site:
        visitor = await login(site)
        await connect(visitor)
        (socket,) = handler.open_sockets
        await site.manager.revoke(ticket_in(visitor.cookie).handle)
        assert socket.on_message("set k v") is None
        assert (dict(socket.session), socket.current_user) == ({}, None)


async def test_messages_after_a_close_that_takes_its_time():
    """W1: what comes once the socket was closed is dropped, by a coroutine as well."""
    gate, heard = Gate(), []

    class Slow(a_socket()):
        def on_message(self, message):
            heard.append((message, self.current_user))

        async def on_session_end(self, reason):
            await gate.pass_through()
            self.close(1008, reason)
            await asyncio.Event().wait()

    async with serving(routes(Slow)) as site:
        visitor = await login(site)
        await connect(visitor)
        (socket,) = Slow.open_sockets
        await site.manager.revoke(ticket_in(visitor.cookie).handle)
        await gate.arrival()
        socket.on_message("before")
        gate.open()
        await until(lambda: socket.ws_connection is None)
        assert socket.on_message("after") is None
        assert heard == [("before", "alice")]
        socket._session_telling.cancel()


async def test_a_handler_that_stays_open():
    """W1: one that does not close goes on as nobody, and nothing it writes is stored."""
    ends = []

    class Stays(a_socket()):
        def on_session_end(self, reason):
            ends.append((reason, self.session["k"], self.current_user))

    async with serving(routes(Stays)) as site:
        visitor = await login(site)
        socket = await connect(visitor)
        await site.manager.revoke(ticket_in(visitor.cookie).handle)
        assert ends == [("revoked", "v", "alice")]
        assert await socket.say("who") is None
        assert await socket.say("read k") is None
        for message in ["set k new", "save", "add k 1", "login alice"]:
            answer = await socket.say(message)
            assert answer == "SessionError: the session ended (revoked)"
        assert await site.records() == []


async def test_a_handler_that_takes_its_time():
    """W1: on_session_end may be a coroutine; until it ends, the session can be read."""
    ends = []

    class Slow(a_socket()):
        async def on_session_end(self, reason):
            await self.write_message("goodbye")
            ends.append((reason, self.current_user))
            self.close(4000, "bye")

    async with serving(routes(Slow)) as site:
        visitor = await login(site)
        socket = await connect(visitor)
        await site.manager.revoke(ticket_in(visitor.cookie).handle)
        assert await socket.heard() == "goodbye"
        assert await socket.closed() == (4000, "bye")
        assert ends == [("revoked", "alice")]


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_handler_that_fails(caplog, kind):
    """W1: its error is logged as Tornado logs errors, and the others are told."""

    def fails(self, reason):
        raise RuntimeError("no")

    async def fails_later(self, reason):
        raise RuntimeError("no")

    handler = a_socket(on_session_end=fails if kind == "plain" else fails_later)
    async with serving(routes(handler)) as site:
        visitor = await login(site)
        for _ in range(2):
            await connect(visitor)
        await site.manager.revoke(ticket_in(visitor.cookie).handle)
        await until(lambda: len(caplog.records) == 2)
        assert {r.name for r in caplog.records} == {"tornado.application"}


async def test_a_client_that_never_reads():
    """W1: its socket is closed all the same, and holds up nobody."""
    handler = a_socket()
    async with serving(routes(handler)) as site:
        visitor, other = await login(site), await login(site)
        deaf, hears = await connect(visitor), await connect(other)
        (server_side, _) = handler.open_sockets
        written = [server_side.write_message("x" * 1_000_000) for _ in range(20)]
        assert not all(one.done() for one in written)
        assert await site.manager.revoke_all("alice") == 2
        assert await hears.closed() == (POLICY_VIOLATION, "revoked")
        assert handler.ends == [("revoked", "alice")] * 2
        assert server_side.on_message("too late") is None
        deaf.close()
        await asyncio.gather(*written, return_exceptions=True)


async def test_nobody_listens_without_sockets():
    """W2: the store is listened to while there are sockets with a session, and not longer."""
    store = AsyncStore()
    async with serving(routes(a_socket()), store) as site:
        visitor = await login(site)
        assert "listen" not in store.calls
        sockets = [await connect(visitor) for _ in range(3)]
        await until(lambda: "listen" in store.calls)
        inner = store.inner._listeners
        await until(lambda: len(inner) == 1)
        for socket in sockets:
            socket.close()
        await until(lambda: inner == [])
        again = await connect(visitor)
        await until(lambda: len(inner) == 1)
        assert store.calls.count("listen") == 2
        again.close()


async def test_sockets_cost_the_store_nothing():
    """W2: while nothing ends, no call is made for sockets that are open."""
    store = AsyncStore()
    async with serving(routes(a_socket()), store) as site:
        visitor = await login(site)
        await connect(visitor)
        await until(lambda: store.calls[-1:] == ["load"] and "listen" in store.calls)
        store.forget()
        for _ in range(5):
            socket = await connect(visitor)
            await socket.say("who")
        assert store.calls == ["load"] * 5


async def test_the_server_stops():
    """W1, T8: closing the manager ends the listening, and nothing is left running."""
    handler = a_socket()
    before = asyncio.all_tasks()
    async with serving(routes(handler)) as site:
        visitor = await login(site)
        await connect(visitor)
        await site.manager.close()
        assert handler.ends == []
    end = time.monotonic() + PATIENCE
    while asyncio.all_tasks() != before:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
