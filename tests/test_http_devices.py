"""Who is logged in, where, and out again: principals, devices, and how many of them."""

import asyncio

import pytest
from tornado.web import HTTPError

from backends import backend_url
from httpkit import SECRET, Acts, serving, session_cookies, signed, ticket_in
from httpkit_stores import (
    AsyncStore,
    marked_slow,
    on_both_paths,
    on_every_store,
)
from secretkit import watching
from tornado_sessions import SessionManager
from tornado_sessions.cookie import encode
from tornado_sessions.stores.url import store_from_url

PHONE = {"User-Agent": "Telephone/1.0", "X-Real-Ip": "192.0.2.7"}
DESK = {"User-Agent": "Desk/2.0 " + "x" * 1000, "X-Real-Ip": "2001:db8::1"}


class Failing(Acts):
    """Does what the query says, then fails with the status in the path."""

    async def get(self):
        await super().get()
        raise HTTPError(int(self.request.path[-3:]))


ROUTES = [(r"/fail/...", Failing), (r"/.*", Acts)]


async def logged_in(site, principal="alice", **options):
    """Return a visitor who has just logged in."""
    visitor = site.visitor()
    assert (await visitor.get(f"/?set=k:v&login={principal}", **options)).code == 200
    return visitor


def handle_of(visitor):
    return ticket_in(visitor.cookie).handle


@on_every_store
async def test_login(make_store):
    """C6, E1: a new token, without grace; the data, the handle and the age stay."""
    async with serving(Acts, make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:v")
        before, old = visitor.twin(), (await site.record()).meta
        await visitor.get("/?login=alice")
        new = (await site.record()).meta
        assert handle_of(visitor) == handle_of(before)
        assert (new.principal, new.created_at) == ("alice", old.created_at)
        assert (new.epoch, new.previous, new.salt) == (old.epoch + 1, None, None)
        assert ticket_in(visitor.cookie).token != ticket_in(before.cookie).token
        assert (await visitor.get("/?touch=k")).body == b'{"k": "v"}'
        assert (await before.get("/?touch=k")).body == b"{}"


@on_every_store
async def test_the_device_is_noted_at_login(make_store):
    """R4, E7: what a list of devices shows is where the user logged in from."""
    async with serving(Acts, make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:v", headers=DESK)
        await visitor.get("/?login=alice", headers=PHONE)
        await visitor.get("/?set=k:w", headers=DESK)
        (info,) = await site.manager.sessions_of("alice")
        assert (info.handle, info.principal) == (handle_of(visitor), "alice")
        assert (info.user_agent, info.ip) == ("Telephone/1.0", "192.0.2.7")
        assert info.created_at <= info.last_seen_at < info.expires_at
        login = (await site.record()).meta.authenticated_at
        assert info.authenticated_at.timestamp() == pytest.approx(login, abs=1e-5)
        again = site.visitor()
        await again.get("/?login=bob", headers=DESK)
        (info,) = await site.manager.sessions_of("bob")
        assert (len(info.user_agent), info.ip) == (256, "2001:db8::1")


@on_every_store
async def test_login_as_somebody_else(make_store):
    """R4: the session is theirs from then on, and on nobody else's list."""
    async with serving(Acts, make_store()) as site:
        visitor = await logged_in(site)
        before = visitor.twin()
        await visitor.get("/?login=bob&touch=k")
        assert await site.manager.sessions_of("alice") == []
        (info,) = await site.manager.sessions_of("bob")
        assert info.handle == handle_of(visitor)
        assert (await before.get("/?touch=k")).body == b"{}"


@on_every_store
async def test_login_twice(make_store):
    """C6: in one request it is one login; in another one it replaces the token anew."""
    async with serving(Acts, make_store()) as site:
        visitor = await logged_in(site)
        await visitor.get("/?login=bob&login=alice&login=alice")
        (info,) = await site.manager.sessions_of("alice")
        assert (await site.record()).meta.epoch == 1
        await visitor.get("/?login=alice")
        assert (await site.record()).meta.epoch == 2
        assert await site.manager.sessions_of("bob") == []
        assert [one.handle for one in await site.manager.sessions_of("alice")] == [
            info.handle
        ]


@on_every_store
@pytest.mark.parametrize("status", [400, 500])
async def test_login_in_a_request_that_fails(make_store, status):
    """S7: the login stands, with its cookie; of the data, only an error drops them."""
    async with serving(ROUTES, make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:v")
        answer = await visitor.get(f"/fail/{status}?set=k:new&login=alice")
        assert (answer.code, len(session_cookies(answer))) == (status, 1)
        (info,) = await site.manager.sessions_of("alice")
        assert info.handle == handle_of(visitor)
        kept = b"new" if status == 400 else b"v"
        assert (await visitor.get("/?touch=k")).body == b'{"k": "%s"}' % kept


@on_every_store
async def test_ends_on_demand(make_store):
    """E6, C3: `revoke` ends one session, `revoke_all` the others, and they stay ended."""
    async with serving(Acts, make_store()) as site:
        first, second, third = [await logged_in(site) for _ in range(3)]
        bob = await logged_in(site, "bob")
        assert await site.manager.revoke(handle_of(first)) is True
        assert await site.manager.revoke(handle_of(first)) is False
        keep = handle_of(second)
        assert await site.manager.revoke_all("alice", keep=keep) == 1
        assert await site.manager.revoke_all("alice", keep=keep) == 0
        for visitor, body in [(first, b"{}"), (second, b'{"k": "v"}'), (third, b"{}")]:
            assert (await visitor.get("/?touch=k")).body == body
        assert (await bob.get("/?touch=k")).body == b'{"k": "v"}'
        assert await site.manager.revoke_all("alice") == 1
        ends = [e for e in site.events if e.kind == "ended"]
        assert {e.reason for e in ends} == {"revoked"}
        assert len(ends) == 3


@on_every_store
async def test_what_names_no_session(make_store):
    """R2, S9: an unknown handle, and whatever else somebody sends, ends nothing."""
    # A driver's debug log shows what it is asked for, which is a token here: the watch
    # of the run stays out.
    with watching():
        async with serving(Acts, make_store()) as site:
            visitor = await logged_in(site)
            ticket = ticket_in(visitor.cookie)
            unknown = ["", "x" * 22, ticket.token, visitor.cookie, encode(ticket)]
            for handle in [*unknown, "x" * 100_000, "\0", "*", "{00}"]:
                assert await site.manager.revoke(handle) is False
            assert len(await site.records()) == 1


@pytest.mark.parametrize(
    ("principal", "error"),
    [
        *((wrong, TypeError) for wrong in (1, None, b"alice", ["alice"])),
        *((wrong, ValueError) for wrong in ("", "x" * 1025, "\ud800")),
    ],
    ids=ascii,
)
async def test_a_principal_that_nobody_can_have(principal, error):
    """R4: asking for its sessions is a mistake of the caller, and says which."""
    store = AsyncStore()
    async with SessionManager(store) as manager:
        for call in [manager.sessions_of, manager.revoke_all]:
            with pytest.raises(error, match="the principal"):
                await call(principal)
    assert store.calls == []


async def test_a_handle_that_is_no_text():
    """R2: it is a mistake of the caller, and the store is not asked."""
    store = AsyncStore()
    async with SessionManager(store) as manager:
        for handle in [None, 7, b"h"]:
            with pytest.raises(TypeError, match="the handle"):
                await manager.revoke(handle)
    assert store.calls == []


# -- at most so many -----------------------------------------------------------------


@on_every_store
async def test_the_oldest_is_evicted(make_store):
    """E7, E6: a login too many ends the session whose login is longest ago."""
    settings = {"session_max_per_principal": 2}
    async with serving(Acts, make_store(), **settings) as site:
        early = site.visitor()
        await early.get("/?set=k:v")  # the session is older than the login
        first, second = await logged_in(site), await logged_in(site)
        bob = await logged_in(site, "bob")
        await early.get("/?login=alice")
        left = {info.handle for info in await site.manager.sessions_of("alice")}
        assert left == {handle_of(early), handle_of(second)}
        assert (await first.get("/?touch=k")).body == b"{}"
        assert (await bob.get("/?touch=k")).body == b'{"k": "v"}'
        (end,) = [e for e in site.events if e.kind == "ended"]
        assert (end.handle, end.reason) == (handle_of(first), "evicted")
        assert end.principal == "alice"


@on_both_paths
async def test_logging_in_again_evicts_nobody(make_store):
    """E7: a session that is theirs already is not one more."""
    async with serving(Acts, make_store(), session_max_per_principal=2) as site:
        visitors = [await logged_in(site) for _ in range(2)]
        for _ in range(3):
            await visitors[0].get("/?login=alice")
            await visitors[0].get("/?renew=1")
        assert len(await site.manager.sessions_of("alice")) == 2
        assert ("ended", "evicted") not in site.kinds


@on_both_paths
async def test_one_at_a_time(make_store):
    """E7: with a limit of one, the latest login is the only one."""
    async with serving(Acts, make_store(), session_max_per_principal=1) as site:
        for _ in range(3):
            visitor = await logged_in(site)
            (info,) = await site.manager.sessions_of("alice")
            assert info.handle == handle_of(visitor)


@on_both_paths
async def test_too_many_from_before(make_store):
    """E7: a limit that is new or lower ends all that are too many, at the next login."""
    store = make_store()
    async with serving(Acts, store) as site:
        visitors = [await logged_in(site) for _ in range(5)]
    async with serving(Acts, store, session_max_per_principal=2) as site:
        latest = await logged_in(site)
        left = {info.handle for info in await site.manager.sessions_of("alice")}
        assert left == {handle_of(latest), handle_of(visitors[-1])}


@pytest.mark.parametrize("name", marked_slow(["sqlite", "file", "redis"]))
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
async def test_fifty_logins_at_once(name, known, tmp_path):
    """E7: with 50 parallel logins at two servers, exactly as many as may stay are left."""
    await fifty_logins(backend_url(name, tmp_path), known)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["redis-cluster", "redis-sentinel", "mongo", "mongo-replica-set"]
)
async def test_fifty_logins_at_once_elsewhere(name, tmp_path):
    """E7: the same where the index lives elsewhere, or changes have no transaction."""
    await fifty_logins(backend_url(name, tmp_path), known=True)


async def fifty_logins(url, known):
    most = 5
    # Each of them ends all that it finds: on a busy machine that takes its time.
    wait = 60.0
    settings = {"session_max_per_principal": most, "session_store_timeout": wait}
    async with (
        serving(Acts, store_from_url(url), **settings) as one,
        serving(Acts, store_from_url(url), **settings) as two,
    ):
        visitors = [(one, two)[number % 2].visitor() for number in range(50)]
        if known:
            await asyncio.gather(*(v.get("/?set=k:v") for v in visitors))
        login = "/?set=k:v&login=alice"
        logins = [visitor.get(login, patience=wait) for visitor in visitors]
        assert {answer.code for answer in await asyncio.gather(*logins)} == {200}
        infos = await one.manager.sessions_of("alice")
        assert len(infos) == most
        again = await asyncio.gather(*(v.get("/?touch=k") for v in visitors))
        alive = [v for v, a in zip(visitors, again, strict=True) if a.body != b"{}"]
        assert {handle_of(v) for v in alive} == {info.handle for info in infos}
        ended = [
            e.handle for site in (one, two) for e in site.events if e.kind == "ended"
        ]
        assert len(ended) == len(set(ended)) == 50 - most


@on_both_paths
async def test_a_limit_that_cannot_be_kept(make_store):
    """E7, S7, T3: if the others cannot be ended it is a 503, and the next login does it."""
    store = make_store()
    async with serving(Acts, store, session_max_per_principal=1) as site:
        first = await logged_in(site)

        async def fails(principal):
            raise ConnectionError("refused")

        find, store.find = store.find, fails
        second = site.visitor()
        answer = await second.get("/?login=alice")
        assert answer.code == 503
        store.find = find
        assert len(await site.manager.sessions_of("alice")) == 2
        assert (await first.get("/?touch=k")).body == b'{"k": "v"}'
        await second.get("/?login=alice")
        (info,) = await site.manager.sessions_of("alice")
        assert info.handle == handle_of(second)


# -- events --------------------------------------------------------------------------


@on_both_paths
async def test_refused_cookies_by_kind(make_store):
    """K2, C6: each kind of cookie that is not accepted is told by its name."""
    async with serving(Acts, make_store()) as site:
        visitor = await logged_in(site)
        ticket = ticket_in(visitor.cookie)
        stranger = encode(ticket._replace(handle="x" * 22))
        earlier = encode(ticket._replace(epoch=7))
        for value, reason, handle in [
            (signed(encode(ticket), secret=SECRET + "!"), "signature", ""),
            ("not even signed", "signature", ""),
            (signed("no ticket of ours"), "malformed", ""),
            (signed(stranger), "unknown", "x" * 22),
            (signed(earlier), "other epoch", ticket.handle),
        ]:
            site.events.clear()
            await site.visitor(session=value).get("/?touch=k")
            (event,) = [e for e in site.events if e.kind == "refused"]
            assert (event.reason, event.handle) == (reason, handle)
        site.events.clear()
        await visitor.get("/?touch=k")
        assert site.events == []


@on_both_paths
async def test_the_events_of_a_life(make_store):
    """E6, E4: begun, logged in, rotated for its age, ended; each once."""
    store = make_store()
    now, later = store.clock, [0.0]
    store.clock = lambda: now() + later[0]
    async with serving(Acts, store, session_rotate_after=60) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:v")
        await visitor.get("/?login=alice")
        later[0] = 100.0
        await visitor.get("/?touch=k")
        await visitor.get("/?destroy=1")
        kinds = [("created", None), ("login", None), ("rotated", None)]
        assert site.kinds == [*kinds, ("ended", "destroyed")]
        told = [e.principal for e in site.events]
        assert told == [None, "alice", "alice", "alice"]


class UserId(str):
    """A principal that is not quite a str, as ORMs and template engines make them."""

    __slots__ = ()


@on_every_store
async def test_a_principal_of_a_subclass_of_str(make_store):
    """R4: every store keeps it, as what it says."""

    class LogsIn(Acts):
        async def act_login(self, principal):
            await super().act_login(UserId(principal))

    async with serving(LogsIn, make_store()) as site:
        assert (await site.visitor().get("/?login=alice")).code == 200
        (info,) = await site.manager.sessions_of(UserId("alice"))
        assert type(info.principal) is str
        assert await site.manager.revoke_all(UserId("alice")) == 1
