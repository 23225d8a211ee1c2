"""When the principal last proved who they are, and what asks for it again (E1, ASVS 7.5)."""

import zlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from tornado.httpclient import HTTPClientError
from tornado.web import RequestHandler, authenticated

from httpkit import Acts, Page, serving
from httpkit_stores import FakeClock, on_both_paths, on_every_store
from socketkit import Socket, connect
from tornado_sessions import (
    ConfigurationError,
    ResponseStarted,
    SessionManager,
    StoreError,
    fresh_login_required,
)
from tornado_sessions.stores.base import Apply
from tornado_sessions.stores.file import FileStore
from tornado_sessions.stores.file_format import MAGIC, write_durably

LIMIT = 300


class When(Acts):
    """Also tells when the principal logged in, in each step of a request."""

    async def act_when(self, _):
        at = self.session.authenticated_at
        self.told.append(at.timestamp() if at else None)

    act_then = act_finally = act_when  # a query groups what has one name

    async def act_save(self, _):
        await self.session.save()

    async def act_refresh(self, _):
        await self.session.refresh()


class Sync(Page):
    @fresh_login_required(LIMIT)
    def get(self, *path):
        self.write(f"for {self.current_user}")

    post = head = delete = get


class Coroutine(Page):
    @fresh_login_required(timedelta(seconds=LIMIT))
    async def get(self):
        await self.session.mutate("seen", lambda n: n + 1, 0)
        self.write(f"for {self.current_user}")

    @fresh_login_required(LIMIT)
    async def post(self):
        self.write("done")


class Prepared(Page):
    @fresh_login_required(LIMIT)
    async def prepare(self):
        self.write("prepared ")

    def get(self):
        self.write("and got")

    post = get


class Knocked(Socket):
    """A socket that only a fresh login opens."""

    @fresh_login_required(LIMIT)
    async def get(self, *args, **kwargs):
        await super().get(*args, **kwargs)


class Plain(Page):
    @authenticated
    def get(self):
        self.write(f"for {self.current_user}")

    post = head = delete = get


def serve(store, told=None, **settings):
    when = type("When", (When,), {"told": [] if told is None else told})
    routes = [("/when", when), ("/sync", Sync), ("/co", Coroutine), ("/pre", Prepared)]
    routes += [("/ws", Knocked), ("/plain", Plain), ("/a(.*)", Sync)]
    return serving(routes, store, **{"login_url": "/login", **settings})


@on_every_store
async def test_a_login_is_when_somebody_proved_who_they_are(make_store):
    """E1 R1: kept with the record on every store; None for a stranger and after logout."""
    clock, told = FakeClock(), []
    async with serve(make_store(clock=clock), told) as site:
        visitor, start = site.visitor(), clock()
        await visitor.get("/when?when=1&set=k:v&then=1")
        await visitor.get("/when?when=1&login=alice&then=1&save=1&finally=1")
        clock.advance(1000.25)
        await visitor.get("/when?when=1&refresh=1&then=1")
        await visitor.get("/when?destroy=1&then=1")
        await visitor.get("/when?when=1")
    assert told == [None, None, None, start, start, start, start, None, None]


@on_every_store
async def test_only_a_login_moves_it(make_store):
    """E1 E4: not use, data, a new token or rotation; login as the same principal does."""
    clock, told = FakeClock(), []
    store = make_store(clock=clock)
    async with serve(store, told, session_rotate_after=60) as site:
        visitor, start = site.visitor(), clock()
        await visitor.get("/when?login=alice&set=k:v")
        for act in ("touch=k", "set=k:w", "renew=1", "touch=k"):
            clock.advance(100)
            await visitor.get(f"/when?{act}")
        await visitor.get("/when?when=1")
        clock.advance(100)
        await visitor.get("/when?login=alice")
        await visitor.get("/when?when=1")
        clock.advance(100)
        await visitor.get("/when?login=bob")
        await visitor.get("/when?when=1")
        assert told == [start, start + 500, start + 600]
        created = (await site.record()).meta.created_at
        assert created == start


@on_both_paths
async def test_a_login_that_met_a_failing_store_is_as_fresh_as_the_one_that_worked(
    make_store,
):
    """E1 T3: a login whose first try was lost counts from when it was stored."""
    clock, told = FakeClock(), []
    store = make_store(clock=clock)
    commit, answers = store.commit, []

    async def losing_the_first_answer(changes):
        answers.append(await commit(changes))
        if len(answers) == 1:
            raise OSError("the answer was lost")
        return answers[-1]

    store.commit = losing_the_first_answer

    class Twice(When):
        async def act_save_lost(self, _):
            with pytest.raises(StoreError, match="lost"):
                await self.session.save()

    Twice.told = told
    async with serving(Twice, store) as site:
        visitor, start = site.visitor(), clock()
        await visitor.get("/?set=k:v&save_lost=1&login=alice&save=1&when=1")
        assert (await visitor.get("/?when=1")).code == 200
        assert (await site.record()).meta.authenticated_at == start
    assert told == [start, start]


def test_it_is_an_aware_datetime():
    """E1: like the other times of a session, in UTC."""
    manager = SessionManager("memory://")
    manager.store.clock = lambda: 86400.0
    session = manager.new_session()
    assert session.authenticated_at is None
    session.login("alice")
    assert session.authenticated_at == datetime(1970, 1, 2, tzinfo=timezone.utc)


@on_every_store
async def test_a_record_from_before_it_was_kept_is_not_fresh(make_store):
    """E1 R1: such a session goes on, logged in; but it is asked to log in again."""
    clock, told = FakeClock(), []
    store = make_store(clock=clock)
    async with serve(store, told) as site:
        visitor = site.visitor()
        await visitor.get("/when?login=alice")
        (record,) = await site.records()
        unknown = Apply(record.handle, meta={"authenticated_at": None})
        await store.commit([unknown])
        assert (await visitor.get("/plain")).body == b"for alice"
        assert (await visitor.get("/sync")).code == 302
        await visitor.get("/when?when=1&login=alice&then=1")
        assert (await visitor.get("/sync")).body == b"for alice"
    assert told == [None, clock()]


# -- the decorator --------------------------------------------------------------------


@on_both_paths
async def test_who_logged_in_lately_gets_in(make_store):
    """E1: up to and with the limit, by the clock of the store; after it to the login."""
    clock = FakeClock()
    async with serve(make_store(clock=clock)) as site:
        visitor = site.visitor()
        await visitor.get("/when?login=alice")
        clock.advance(LIMIT)
        for path in ("/sync", "/co"):
            answer = await visitor.get(path)
            assert (answer.code, answer.body) == (200, b"for alice")
        assert (await visitor.get("/pre")).body == b"prepared and got"
        assert (await visitor.post("/co")).body == b"done"
        clock.advance(0.001)
        for path in ("/sync", "/co", "/pre"):
            answer = await visitor.get(path)
            assert (answer.code, answer.body) == (302, b"")
            assert answer.headers["Location"] == f"/login?next=%2F{path[1:]}"
            assert (await visitor.post(path)).code == 403
        assert (await visitor.get("/plain")).body == b"for alice"
        await visitor.get("/when?login=alice")
        assert (await visitor.get("/co")).code == 200


@on_both_paths
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize(
    "login_url", ["/login", "/login?way=2", "https://id.example/login"]
)
async def test_it_answers_as_authenticated_does(make_store, method, login_url):
    """E1 T5: same status and Location, for strangers as for logins that are too old."""
    clock = FakeClock()
    async with serve(make_store(clock=clock), login_url=login_url) as site:
        stranger, stale = site.visitor(), site.visitor()
        await stale.get("/when?login=alice")
        clock.advance(LIMIT + 1)
        body = {"body": ""} if method == "POST" else {}
        expected = await stranger.fetch("/plain?a=1&b=%C3%A9", method=method, **body)
        assert expected.code == (302 if method in ("GET", "HEAD") else 403)
        for visitor in (stranger, stale):
            answer = await visitor.fetch("/async?a=1&b=%C3%A9", method=method, **body)
            assert answer.code == expected.code
            there = expected.headers.get("Location", "").replace("plain", "async")
            assert answer.headers.get("Location", "") == there
            assert "Cookie" in answer.headers["Vary"]


async def test_a_user_of_your_own_counts():
    """E1: an overridden get_current_user that knows nobody is nobody, however fresh."""

    class Barred(Sync):
        def get_current_user(self):
            user = super().get_current_user()
            return None if user == "mallory" else user

    async with serving(
        [("/when", type("W", (When,), {"told": []})), ("/", Barred)], login_url="/l"
    ) as site:
        visitor = site.visitor()
        await visitor.get("/when?login=mallory")
        assert (await visitor.get()).code == 302
        await visitor.get("/when?login=alice")
        assert (await visitor.get()).code == 200


@on_both_paths
async def test_a_socket_is_opened_by_a_fresh_login_only(make_store):
    """E1 T7: at the handshake, before the 101; an open socket does not end by its age."""
    clock = FakeClock()
    async with serve(make_store(clock=clock)) as site:
        visitor = site.visitor()
        with pytest.raises(HTTPClientError) as refused:
            await connect(visitor)
        assert refused.value.code == 302
        await visitor.get("/when?login=alice")
        socket = await connect(visitor)
        assert await socket.say("who") == "alice"
        clock.advance(LIMIT + 1)
        assert await socket.say("who") == "alice"
        with pytest.raises(HTTPClientError):
            await connect(visitor)
        statuses = [status for status, path in site.access if path == "/ws"]
    assert statuses == [302, 101, 302]


async def test_a_socket_cannot_renew_it():
    """E1 T7: no cookie can leave any more, so login() in an open socket still raises."""
    async with serve(None) as site:
        visitor = site.visitor()
        await visitor.get("/when?login=alice")
        socket = await connect(visitor)
        answer = await socket.say("login alice")
        assert answer.startswith(ResponseStarted.__name__)


@pytest.mark.parametrize(
    "wrong",
    [
        *(0, -1, None, "5 minutes", True, float("nan"), float("inf"), 10**12, [300]),
        *(timedelta(0), timedelta(seconds=-1), timedelta.max, lambda self: None),
    ],
    ids=str,
)
def test_an_impossible_age_is_refused_at_once(wrong):
    """E1: when the class is made, also where the parentheses were forgotten."""
    with pytest.raises(ConfigurationError, match="max_age of fresh_login_required is"):
        fresh_login_required(wrong)


def test_a_decorated_method_keeps_its_name():
    """E1: tracebacks and documentation tools see the method as it was written."""
    assert Sync.get.__name__ == "get"
    assert Coroutine.get.__qualname__ == "Coroutine.get"


async def test_a_handler_without_a_session_is_told_so(caplog):
    """E1: 500 and a log that names what is missing, and nobody gets in."""

    class Bare(RequestHandler):
        def get_current_user(self):
            return "alice"

        @fresh_login_required(LIMIT)
        def get(self):
            self.write("in")

    async with serving(Bare) as site:
        answer = await site.visitor().get()
        assert (answer.code, b"in" in answer.body[:2]) == (500, False)
    assert "SessionMixin" in caplog.text


async def test_a_file_from_before_it_was_kept_is_read(tmp_path):
    """R1 S6: a record whose file lacks the field is no damaged one."""
    clock = FakeClock()
    async with serve(FileStore(tmp_path, clock=clock)) as site:
        visitor = site.visitor()
        await visitor.get("/when?login=alice")
        (path,) = [
            p
            for p in filter(Path.is_file, tmp_path.rglob("*"))
            if p.read_bytes()[:4] == MAGIC
        ]
        record, *rest = msgspec.msgpack.decode(path.read_bytes()[8:])
        assert record["meta"].pop("authenticated_at") == clock()
        body = msgspec.msgpack.encode([record, *rest])
        sum32 = zlib.crc32(body).to_bytes(4, "big")
        write_durably(path, MAGIC + sum32 + body, record["meta"]["expires_at"])
        assert (await visitor.get("/plain")).body == b"for alice"
        assert (await visitor.get("/sync")).code == 302
        assert site.kinds.count(("undecodable", None)) == 0
