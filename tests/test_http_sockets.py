"""WebSockets: the session at the handshake, and what a socket may do with it."""

import asyncio
import logging
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import tornado.web
from tornado.httpclient import HTTPClientError

from httpkit import (
    SECRET,
    answered,
    serving,
    session_cookies,
    signed,
    ticket_in,
)
from httpkit_stores import (
    AsyncStore,
    FakeClock,
    Gate,
    on_both_paths,
    on_every_store,
    on_waiting_stores,
    soon,
    until,
)
from socketkit import Socket, a_socket, connect, routes
from tornado_sessions import ResponseStarted, SessionManager, StoreError, verified


class Greeter(Socket):
    """Changes the session before the handshake is answered."""

    def prepare(self):
        for action, (value,) in self.request.arguments.items():
            if action == "set":
                self.session["set"] = value.decode()
            elif action == "login":
                self.session.login(value.decode())


@on_every_store
async def test_what_prepare_changed_is_stored_before_the_101(make_store):
    """T7, T2: a new session begins at the handshake, and its cookie is on the 101."""
    async with serving(routes(Greeter), make_store()) as site:
        visitor = site.visitor()
        socket = await connect(visitor, "/ws?set=early")
        (record,) = await site.records()
        assert ticket_in(visitor.cookie).handle == record.handle
        assert socket.headers["Cache-Control"] == "no-store"
        assert "Cookie" in socket.headers["Vary"]
        assert await socket.say("read set") == "early"
        assert (await visitor.get("/acts?touch=set")).body == b'{"set": "early"}'


@on_every_store
async def test_login_at_the_handshake(make_store):
    """T7: a login in prepare() sends its new token on the 101."""
    async with serving(routes(Greeter), make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v")
        before = ticket_in(visitor.cookie)
        socket = await connect(visitor, "/ws?login=alice")
        after = ticket_in(visitor.cookie)
        assert (after.handle, after.epoch) == (before.handle, before.epoch + 1)
        assert await socket.say("who") == "alice"
        assert await socket.say("read k") == "v"


@on_waiting_stores
async def test_a_handshake_waits_for_the_store(make_store):
    """T7, T2: the 101 does not leave before the session is stored."""
    async with serving(routes(Greeter), make_store()) as site:
        gate = site.store.park("commit")
        visitor, came = site.visitor(), []

        async def shake():
            came.append(await connect(visitor, "/ws?set=1"))

        async def look():
            assert (came, await site.records()) == ([], [])

        await answered(shake(), gate, look())
        assert len(came) == len(await site.records()) == 1


@on_both_paths
async def test_a_handshake_that_cannot_be_stored(make_store):
    """T7, T3: a store that fails makes the handshake a 503, and no socket is opened."""
    async with serving(routes(Greeter), make_store("commit")) as site:
        with pytest.raises(HTTPClientError) as info:
            await connect(site.visitor(), "/ws?set=1")
        assert info.value.code == 503
        assert session_cookies(info.value.response) == []


async def test_a_handshake_without_a_session():
    """S1, T7: a visitor whose session is not used costs no store call and no cookie."""
    handler = a_socket()
    async with serving(routes(handler)) as site:
        visitor = site.visitor()
        socket = await connect(visitor)
        await socket.send("who")
        assert await socket.heard() == "null"
        assert (site.store.calls, visitor.cookies) == ([], {})
        assert "Set-Cookie" not in socket.headers


async def test_a_session_cannot_begin_in_an_open_socket():
    """T4, T7: there is no cookie any more that could carry it, and the error says so."""
    async with serving(routes(a_socket())) as site:
        socket = await connect(site.visitor())
        assert await socket.say("set k v") is None
        assert (await socket.say("save")).startswith("ResponseStarted: ")
        assert await site.records() == []


async def test_changes_after_the_handshake_was_stored():
    """T7: what select_subprotocol() changes comes too late, and is no silent loss."""

    class Late(Socket):
        def select_subprotocol(self, subprotocols):
            self.session["late"] = 1

    async with serving(routes(Late)) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v")
        with pytest.raises(HTTPClientError) as info:
            await connect(visitor)
        assert info.value.code == 500
        assert set(await site.values()) == {"k"}


@on_every_store
async def test_saving_from_a_socket(make_store):
    """W3: save() stores what the socket changed, and only that, for requests to see."""
    async with serving(routes(a_socket()), make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v")
        socket = await connect(visitor)
        await socket.say("set mine 1")
        await visitor.get("/acts?set=theirs:2")
        await socket.say("save")
        page = await visitor.get("/acts?touch=k")
        assert page.body == b'{"k": "v", "mine": "1", "theirs": "2"}'


@on_every_store
async def test_reading_again_in_a_socket(make_store):
    """W3: a socket sees what it loaded, until refresh() reads again."""
    async with serving(routes(a_socket()), make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:old")
        socket = await connect(visitor)
        await visitor.get("/acts?set=k:new")
        assert await socket.say("read k") == "old"
        await socket.say("refresh")
        assert await socket.say("read k") == "new"


@on_every_store
async def test_counting_in_a_socket(make_store):
    """W3, C2: mutate() in sockets and requests loses nothing."""
    async with serving(routes(a_socket()), make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v")
        sockets = [await connect(visitor) for _ in range(3)]
        for _ in range(3):
            for socket in sockets:
                await socket.say("add n 1")
        assert await sockets[0].say("add n 0") == 9


@on_both_paths
async def test_a_socket_follows_rotation(make_store):
    """W3, E4: a token that was replaced for its age changes nothing for a socket."""
    store = make_store()
    clock = store.clock = Later(store.clock)
    async with serving(routes(a_socket()), store, session_rotate_after=60) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v")
        socket = await connect(visitor)
        for _ in range(2):
            before = visitor.cookie
            clock.seconds += 100
            await visitor.get("/acts?touch=k")
            assert visitor.cookie != before
            await visitor.get("/acts?touch=k")
        await socket.say("set k new")
        assert await socket.say("save") is None
        assert await socket.say("add n 1") == 1
        assert (await visitor.get("/acts?touch=k")).body == b'{"k": "new", "n": 1}'


@on_every_store
async def test_a_socket_from_before_a_login(make_store):
    """C6: it sees nothing of what the login began, and writes nothing into it.

    Whoever planted a session in somebody's browser could have kept such a socket.
    """
    async with serving(routes(a_socket()), make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:before")
        planted = await connect(visitor)
        others = [await connect(visitor) for _ in range(2)]
        await visitor.get("/acts?login=alice&set=k:secret")
        await planted.say("set k overwritten")
        assert await planted.say("save") is None
        await others[0].say("add k 1")
        await others[1].say("refresh")
        assert await others[1].say("read k") is None
        assert await others[1].say("who") is None
        assert (await visitor.get("/acts?touch=k")).body == b'{"k": "secret"}'
        assert ("dropped", "earlier epoch") in site.kinds


@on_every_store
@pytest.mark.parametrize("what", ["login bob", "renew"])
async def test_no_login_in_an_open_socket(make_store, what):
    """W3: it is refused at once, with an error that says what to do instead."""
    async with serving(routes(a_socket()), make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v&login=alice")
        socket = await connect(visitor)
        answer = await socket.say(what)
        assert answer.startswith("ResponseStarted: ")
        assert "ordinary request" in answer
        assert await socket.say("who") == "alice"
        assert await socket.say("save") is None


async def test_a_socket_from_elsewhere():
    """W1: Tornado's check of the origin stays in force, whatever the cookie says."""
    handler = a_socket()
    async with serving(routes(handler)) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v")
        with pytest.raises(HTTPClientError) as info:
            await connect(visitor, Origin="https://evil.example")
        assert info.value.code == 403
        assert handler.open_sockets == []
        assert watched(site) == 0


async def test_no_upgrade():
    """T5: a plain GET is answered as Tornado answers it, with the session stored."""
    async with serving(routes(Greeter)) as site:
        answer = await site.visitor().get("/ws?set=1")
        assert (answer.code, len(await site.records())) == (400, 1)
        assert watched(site) == 0


async def test_an_open_that_fails(caplog):
    """T7: Tornado closes that socket, and nobody watches its session any more."""

    def fails(self):
        raise RuntimeError("no room")

    async with serving(routes(a_socket(open=fails))) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v")
        socket = await connect(visitor)
        with caplog.at_level(logging.CRITICAL, "tornado.application"):
            assert await socket.heard() is None
        await until(lambda: watched(site) == 0)


async def test_a_store_that_cannot_be_read():
    """T7, F1: with the policy "anonymous" the socket opens without a session."""
    async with serving(routes(a_socket()), session_on_store_error="anonymous") as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v&login=alice")
        site.store.failing = {"load"}
        socket = await connect(visitor)
        assert await socket.say("who") is None
        await socket.say("set k v")
        assert (await socket.say("save")).startswith("StoreError: ")


@on_both_paths
async def test_messages_count_as_use(make_store):
    """W3, E3: with session_touch_on_message they extend the session, now and then."""
    store = make_store()
    clock = store.clock = Later(store.clock)
    settings = {"session_idle_timeout": 1000, "session_touch_on_message": True}
    async with serving(routes(a_socket()), store, **settings) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v")
        socket = await connect(visitor)
        site.store.forget()
        for _ in range(4):
            clock.seconds += 400
            for _ in range(3):
                await socket.say("who")
        await until(lambda: len(site.store.changes) == 4)
        assert {change.set == {} for change in site.store.changes} == {True}
        assert (await visitor.get("/acts?touch=k")).body == b'{"k": "v"}'


async def test_messages_of_a_socket_from_before_a_login_extend_nothing():
    """C6, W3: it cannot keep alive what is not its own any more."""
    store = None
    settings = {"session_idle_timeout": 1000, "session_touch_on_message": True}
    async with serving(routes(a_socket()), store, **settings) as site:
        clock = site.store.clock = Later(site.store.clock)
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v")
        socket = await connect(visitor)
        await visitor.get("/acts?login=alice")
        expires_at = (await site.record()).meta.expires_at
        clock.seconds += 400
        await socket.say("who")
        await until(lambda: ("dropped", "earlier epoch") in site.kinds)
        assert (await site.record()).meta.expires_at == expires_at


@pytest.fixture
def clock(monkeypatch):
    """Time for the store, and for those who sign cookies and look how old they are."""
    clock = FakeClock()
    for module in (verified, tornado.web):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=clock))
    return clock


async def extended(site, socket):
    """Have a message extend the session."""
    site.store.forget()
    await socket.say("who")
    await until(lambda: site.store.changes)
    site.store.forget()


@asynccontextmanager
async def touching(make_store, clock, **settings):
    """Yield a site whose sockets extend the session, and a visitor who has one."""
    settings |= {"session_idle_timeout": 1000, "session_touch_on_message": True}
    handlers = routes(a_socket())
    async with serving(handlers, make_store(clock=clock), **settings) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v")
        yield site, visitor


@on_both_paths
async def test_a_persistent_cookie_follows_what_a_socket_extended(make_store, clock):
    """K3, E2: it would end under a user who chats, so the next request sends it again."""
    async with touching(make_store, clock, session_persistent=True) as (site, visitor):
        socket = await connect(visitor)
        clock.advance(40)
        assert session_cookies(await visitor.get("/acts?touch=k")) == []
        for _ in range(3):
            clock.advance(100)
            await extended(site, socket)
            other = visitor.twin()
            (cookie,) = session_cookies(await visitor.get("/acts?touch=k"))
            assert cookie["max-age"] == "1000"
            # Those who ask with the old one at the same time write nothing.
            site.store.forget()
            assert session_cookies(await other.get("/acts?touch=k")) == []
            assert site.store.changes == []
            clock.advance(49)
            assert session_cookies(await visitor.get("/acts?touch=k")) == []


@on_both_paths
async def test_a_socket_sends_no_cookie_and_uses_up_none(make_store, clock):
    """K3: its own save() leaves the cookie to the next request."""
    async with touching(make_store, clock, session_persistent=True) as (site, visitor):
        clock.advance(45)
        socket = await connect(visitor)
        clock.advance(55)
        await extended(site, socket)
        assert await socket.say("save") is None
        assert site.store.changes == []
        assert session_cookies(await visitor.get("/acts?touch=k")) != []


@on_every_store
async def test_parallel_requests_send_an_old_cookie_once(make_store, clock):
    """E3, K3: the first to end extends the session for all who came with the same one."""
    async with touching(make_store, clock, session_persistent=True) as (site, visitor):
        for path in ("/acts?touch=k", "/acts?set=k:w"):
            await visitor.get("/acts?set=k:v")
            twins = [visitor.twin() for _ in range(3)]
            clock.advance(400)
            site.store.forget()
            await visitor.get(path)
            for twin in twins:
                assert session_cookies(await twin.get("/acts?touch=k")) == []
            assert len(site.store.changes) == 1


@on_both_paths
async def test_a_plain_cookie_need_not_follow(make_store, clock):
    """K3, P7: what ends with the browser is sent once, however old it is."""
    async with touching(make_store, clock) as (site, visitor):
        socket = await connect(visitor)
        clock.advance(100)
        await extended(site, socket)
        assert session_cookies(await visitor.get("/acts?touch=k")) == []
        assert site.store.changes == []


@pytest.mark.parametrize("why", ["plain http", "before a login"])
@on_both_paths
async def test_a_handshake_whose_changes_are_left_out(make_store, why):
    """K5, C6, T7: as with a page, what is not stored on purpose is no error."""
    settings = {"session_secure": True} if why == "plain http" else {}
    async with serving(routes(Greeter), make_store(), **settings) as site:
        visitor = site.visitor()
        if not settings:
            await visitor.get("/acts?set=k:v")
            await visitor.twin().get("/acts?login=alice")
        socket = await connect(visitor, "/ws?set=1")
        assert await socket.say("who") is None
        assert "set" not in {
            name for one in await site.records() for name in one.values
        }


@on_both_paths
@pytest.mark.parametrize("what", ["login bob", "renew"])
async def test_no_login_in_open(make_store, what):
    """W3: the handshake is answered by then; saving goes on to work."""
    errors = []

    class Early(Socket):
        def open(self):
            try:
                if what == "renew":
                    self.session.regenerate_id()
                else:
                    self.session.login("bob")
            except ResponseStarted as error:
                errors.append(str(error))

    async with serving(routes(Early), make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/acts?login=alice")
        socket = await connect(visitor)
        assert await socket.say("who") == "alice"
        assert "ordinary request" in errors[0]
        await socket.say("set k v")
        assert await socket.say("save") is None


async def test_saving_after_reading_again_beside_a_login():
    """C6: what a socket from before a login saves is dropped, long after it as well."""
    async with serving(routes(a_socket())) as site:
        clock = site.store.clock = Later(site.store.clock)
        visitor = site.visitor()
        await visitor.get("/acts?set=k:before")
        socket = await connect(visitor)
        await visitor.get("/acts?login=alice")
        await socket.say("refresh")
        clock.seconds += 120
        await socket.say("set k overwritten")
        assert await socket.say("save") is None
        assert (await visitor.get("/acts?touch=k")).body == b'{"k": "before"}'


async def test_messages_do_not_count_by_default():
    """W3: a socket that is open costs the store nothing, however much it says."""
    async with serving(routes(a_socket()), session_idle_timeout=1000) as site:
        clock = site.store.clock = Later(site.store.clock)
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v")
        socket = await connect(visitor)
        site.store.forget()
        clock.seconds += 900
        await socket.say("who")
        assert site.store.calls == []


async def test_a_slow_handshake_beside_a_login():
    """C6, T7: a handshake under way when another request logs in is of the old epoch."""
    gate = Gate()

    class Slow(Socket):
        async def prepare(self):
            await gate.pass_through()

    async with serving(routes(Slow)) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v")
        twin = visitor.twin()
        came = []

        async def shake():
            came.append(await connect(twin))

        await answered(shake(), gate, visitor.get("/acts?login=alice"))
        await came[0].say("set k stolen")
        await came[0].say("save")
        assert (await visitor.get("/acts?touch=k")).body == b'{"k": "v"}'


async def test_a_forged_cookie_opens_an_anonymous_socket():
    """K2, W1: what does not verify names no session to watch."""
    async with serving(routes(a_socket())) as site:
        value = signed("x" * 48, secret=SECRET + "!")
        socket = await connect(site.visitor(session=value))
        assert await socket.say("who") is None
        assert watched(site) == 0


def watched(site):
    """Return how many watchers there are."""
    return sum(map(len, SessionManager.of(site.application).watch._watchers.values()))


class Later:
    """The time, moved forward."""

    def __init__(self, clock):
        self._clock = clock
        self.seconds = 0.0

    def __call__(self):
        return self._clock() + self.seconds


@pytest.mark.parametrize("message", ["login bob", "renew"])
async def test_no_login_of_a_stranger_in_an_open_socket(message):
    """W3, T7: without a session it is refused at once, too."""
    async with serving(routes(a_socket())) as site:
        socket = await connect(site.visitor())
        assert (await socket.say(message)).startswith("ResponseStarted: ")
        assert await socket.say("who") is None


async def test_a_session_that_is_loaded_later():
    """W1, W3: without autoload, the session is watched from when it is loaded."""

    async def opens(self):
        await self.load_session()
        await self.write_message("loaded")

    handler = a_socket(session_autoload=False, open=opens)
    async with serving(routes(handler)) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v&login=alice")
        socket = await connect(visitor)
        assert await socket.heard() == "loaded"
        assert await socket.say("read k") == "v"
        await site.manager.revoke_all("alice")
        assert await socket.closed() == (1008, "revoked")


async def test_a_session_that_could_not_be_loaded_later():
    """W2, F1: nothing is watched for a load that failed, be the socket closed or open."""
    closed = asyncio.Event()
    handler = a_socket(session_autoload=False, on_close=lambda self: closed.set())
    store = AsyncStore()
    async with serving(routes(handler), store) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:v&login=alice")
        socket = await connect(visitor)
        (server_side,) = handler.open_sockets
        store.failing, watch = {"load"}, site.manager.watch
        for number in range(3):
            gate = store.park("load")
            loading = asyncio.ensure_future(server_side.load_session())
            await gate.arrival()
            assert len(watch._watchers) == 1
            if number == 1:
                await socket.hang_up()
                await soon(closed.wait())
            gate.open()
            with pytest.raises(StoreError):
                await soon(loading)
            assert (watch._watchers, watch._listening) == ({}, None)
