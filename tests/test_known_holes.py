"""The holes of others, each tried on us: named by the CVE, advisory or issue it is from.

What they have in common is told in docs/security.md, and where the lessons are from in
the advisories themselves.
"""

import asyncio
import hmac
import logging
import os
import pickle
import re
import secrets
import string
import time
from pathlib import Path

import pytest
from tornado.web import RequestHandler, create_signed_value

from httpkit import (
    SECRET,
    Acts,
    Counter,
    Page,
    acting,
    answered,
    serving,
    session_cookies,
    signed,
    ticket_in,
)
from httpkit_stores import AsyncStore, FakeClock, Gate, on_every_store
from secretkit import watching
from socketkit import a_socket, connect, routes
from tornado_sessions import ConfigurationError, SessionConfig, SessionMixin
from tornado_sessions.cookie import MAX_CANDIDATES, candidates, encode
from tornado_sessions.stores.base import Apply, Delete, Outcome
from tornado_sessions.stores.file import FileStore
from tornado_sessions.stores.memory import MemoryStore
from tornado_sessions.tokens import digest, random_id

ROOT = Path(__file__).parents[1]


async def known(site, query="set=k:v"):
    """Return a visitor with a session."""
    visitor = site.visitor()
    assert (await visitor.get(f"/?{query}")).code == 200
    return visitor


# -- what has ended comes back -------------------------------------------------------


@on_every_store
async def test_a_slow_request_restores_a_deleted_session(make_store):
    """CVE-2025-46336 CVE-2025-32441 rack, dalli #1040, express-session #632 #957: C3."""
    gate = Gate()
    async with serving(acting(slow=gate), make_store()) as site:
        visitor = await known(site, "set=k:v&login=alice")
        slow = visitor.twin()
        answer, _ = await answered(
            slow.get("/?wait=slow&set=late:1"), gate, visitor.get("/?destroy=1")
        )
        assert (await site.records(), session_cookies(answer)) == ([], [])
        assert (await slow.get("/?touch=k")).body == b"{}"


async def test_a_file_store_writes_a_deleted_session_again(tmp_path):
    """CVE-2013-10075 Apache::Session: R2, also for files."""
    store = FileStore(tmp_path)
    async with serving(Acts, store) as site:
        visitor = await known(site)
        handle = ticket_in(visitor.cookie).handle
        outcomes = await store.commit([Delete(handle), Apply(handle, set={"k": b"1"})])
        assert outcomes == [Outcome.APPLIED, Outcome.GONE]
        records = tmp_path / "tornado_sessions" / "records"
        assert [path for path in records.rglob("*") if path.is_file()] == []


@on_every_store
async def test_logging_out_revokes_nothing(make_store):
    """CVE-2025-4754 ash_authentication_phoenix, CVE-2025-54592 FreshRSS: K4, C3."""
    async with serving(Acts, make_store()) as site:
        visitor = await known(site, "set=k:v&login=alice")
        copy = visitor.twin()
        await visitor.get("/?destroy=1")
        assert (await copy.get("/?touch=k")).body == b"{}"
        assert await site.records() == []


async def test_a_late_answer_restores_an_old_cookie():
    """GHSA-qppm-g56g-fpvp Turbo: C6, C3."""
    gate = Gate()
    async with serving(acting(slow=gate)) as site:
        visitor = await known(site)
        slow = visitor.twin()
        answer, _ = await answered(
            slow.get("/?wait=slow&touch=k"), gate, visitor.get("/?login=alice")
        )
        assert session_cookies(answer) == []


async def test_a_logout_that_leaves_the_cookie():
    """express-session #241: K4, the browser is told to forget it."""
    async with serving(Acts) as site:
        visitor = await known(site)
        (morsel,) = session_cookies(await visitor.get("/?destroy=1"))
        assert (morsel.value, morsel["path"], visitor.cookies) == ("", "/", {})


# -- ids: chosen, kept, guessed, compared --------------------------------------------


@on_every_store
async def test_an_id_that_the_visitor_chose(make_store):
    """CVE-2018-1000519 aiohttp-session, CVE-2024-38513 fiber, CVE-2026-70594 Ghost: K2."""
    # Its event names the handle, which is a token here: the watch of the run stays out.
    with watching():
        async with serving(Acts, make_store()) as site:
            visitor = await known(site)
            for handle in ["x" * 22, ticket_in(visitor.cookie).token]:
                chosen = ticket_in(visitor.cookie)._replace(handle=handle)
                stranger = site.visitor(session=signed(encode(chosen)))
                await stranger.get("/?set=mine:1")
                assert ticket_in(stranger.cookie).handle != handle
                assert ticket_in(stranger.cookie).token != chosen.token


@on_every_store
async def test_a_login_that_keeps_the_id(make_store):
    """CVE-2022-25896 passport, CVE-2026-79312 web.py, CVE-2026-43827 Shiro: E4, C6."""
    async with serving(Acts, make_store()) as site:
        planted = await known(site)
        victim = planted.twin()
        await victim.get("/?login=alice&set=k:secret")
        assert ticket_in(victim.cookie).token != ticket_in(planted.cookie).token
        assert (await planted.get("/?touch=k")).body == b"{}"


async def test_regenerating_that_loses_the_data():
    """express-session #425 #1036: a new token keeps data, principal and handle."""
    async with serving(Acts) as site:
        visitor = await known(site, "set=k:v&login=alice")
        before = ticket_in(visitor.cookie)
        await visitor.get("/?renew=1")
        after = ticket_in(visitor.cookie)
        assert (after.handle, after.token != before.token) == (before.handle, True)
        assert (await visitor.get("/?touch=k")).body == b'{"k": "v"}'


@on_every_store
async def test_what_is_stored_opens_a_session(make_store):
    """CVE-2019-16782 rack, activerecord-session_store, express-session #468 #646: §2."""
    async with serving(Acts, make_store()) as site:
        visitor = await known(site)
        ticket, meta = ticket_in(visitor.cookie), (await site.record()).meta
        assert ticket.token not in repr(await site.records())
        assert meta.token == digest(ticket.token)
        for stolen in [meta.token.hex()[:22], ticket.handle]:
            forged = signed(encode(ticket._replace(token=stolen)))
            page = await site.visitor(session=forged).get("/?touch=k")
            assert page.body == b"{}"


async def test_comparing_takes_as_long_as_it_is_right(monkeypatch):
    """CVE-2013-0263 rack: digests are compared in constant time."""
    compared, compare = [], hmac.compare_digest

    def noted(one, other):
        compared.append((one, other))
        return compare(one, other)

    async with serving(Acts) as site:
        visitor = await known(site)
        monkeypatch.setattr(hmac, "compare_digest", noted)
        await visitor.get("/?touch=k")
        kept = (await site.record()).meta.token
        assert any(kept in pair for pair in compared)


def test_ids_that_can_be_guessed(monkeypatch):
    """CVE-2025-40931 CVE-2026-5081 Apache::Session: 128 bits, and no fallback for them.

    Likewise CVE-2026-5080 Dancer, CVE-2024-52801 sftpgo, CVE-2025-66630 fiber.
    """
    ids = {random_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert set().union(*ids) <= set(string.ascii_letters + string.digits + "-_")
    assert {len(one) for one in ids} == {22}

    def fails(size=None):
        raise OSError("no randomness")

    monkeypatch.setattr(secrets, "token_urlsafe", fails)
    with pytest.raises(OSError, match="no randomness"):
        random_id()


async def test_an_id_that_is_printed(caplog, capfd):
    """CVE-2023-20866 Spring Session: S9."""
    with caplog.at_level(logging.DEBUG):
        async with serving(Acts) as site:
            visitor = await known(site, "set=k:v&login=alice")
            ticket = ticket_in(visitor.cookie)
            session = await site.manager.load([ticket])
            said = f"{session!r} {ticket!r} {ticket} {site.events!r} {site.manager!r}"
    assert ticket.token not in said + caplog.text + "".join(capfd.readouterr())


# -- what the signature is for -------------------------------------------------------


@pytest.mark.parametrize("how", ["changed", "unsigned", "other key", "other name"])
async def test_a_signature_that_fails_is_final(how):
    """CVE-2026-39324 rack-session: K2, nothing is tried instead, the store is not asked."""
    async with serving(Acts) as site:
        visitor = await known(site)
        inner = encode(ticket_in(visitor.cookie))
        value = {
            "changed": visitor.cookie[:-1]
            + ("0" if visitor.cookie[-1] != "0" else "1"),
            "unsigned": inner,
            "other key": signed(inner, secret=SECRET + "!"),
            "other name": create_signed_value(SECRET, "other", inner).decode(),
        }[how]
        site.store.forget()
        assert (await site.visitor(session=value).get("/?touch=k")).body == b"{}"
        assert site.store.calls == []


async def test_the_first_form_of_signed_values():
    """Tornado 3.2.1: version 1 does not bind the name of the cookie: K1."""
    async with serving(Acts) as site:
        visitor = await known(site)
        inner = encode(ticket_in(visitor.cookie))
        value = create_signed_value(SECRET, "session", inner, version=1).decode()
        assert (await site.visitor(session=value).get("/?touch=k")).body == b"{}"


async def test_the_oldest_key_signs():
    """CVE-2025-47278 Flask: K1, the newest key signs, all of them verify."""
    keys = {1: "the older key " * 4, 2: "the newer key " * 4}
    async with serving(Acts, cookie_secret=keys, key_version=2) as site:
        visitor = await known(site)
        assert re.search(r"^2\|1:2\|", visitor.cookie)
        old = create_signed_value(
            keys,
            "session",
            encode(ticket_in(visitor.cookie, secret=keys)),
            key_version=1,
        ).decode()
        page = await site.visitor(session=old).get("/?touch=k")
        assert page.body == b'{"k": "v"}'
        (again,) = session_cookies(page)
        assert again.value.startswith("2|1:2|")


async def test_a_planted_duplicate_locks_the_visitor_out():
    """express-session #881: K2, every cookie of the name is tried."""
    async with serving(Acts) as site:
        visitor = await known(site)
        for planted in [
            "x",
            signed("x"),
            signed(encode(ticket_in(visitor.cookie)), "y"),
        ]:
            header = f"session={planted}; session={visitor.cookie}"
            page = await site.visitor().get("/?touch=k", headers={"Cookie": header})
            assert page.body == b'{"k": "v"}'


async def test_regenerating_that_forks_the_session():
    """express-session #425 #560 #923: C5, of many at once there is one session after."""
    gates = [Gate() for _ in range(3)]
    handler = acting(**{f"g{number}": gate for number, gate in enumerate(gates)})
    async with serving(handler) as site:
        visitor = await known(site, "set=k:v&login=alice")
        twins = [visitor.twin() for _ in gates]
        under_way = [
            asyncio.ensure_future(twin.get(f"/?wait=g{number}&touch=k&renew=1"))
            for number, twin in enumerate(twins)
        ]
        for gate in gates:
            await gate.arrival()
        for gate in gates:
            gate.open()
        answers = [await answer for answer in under_way]
        assert [len(session_cookies(answer)) for answer in answers] == [1, 0, 0]
        assert len(await site.records()) == 1
        assert (await twins[0].get("/?touch=k")).body == b'{"k": "v"}'


@on_every_store
async def test_a_user_who_cannot_be_logged_out(make_store):
    """express-session #504 #865, connect-mongo #447: all sessions of a user can end."""
    async with serving(Acts, make_store()) as site:
        devices = [await known(site, "set=k:v&login=alice") for _ in range(3)]
        assert await site.manager.revoke_all("alice") == 3
        for device in devices:
            assert (await device.get("/?touch=k")).body == b"{}"


async def test_a_socket_that_outlives_its_session():
    """express-session #208, express-socket.io-session #4 #18: W1."""
    async with serving(routes(a_socket())) as site:
        visitor = site.visitor()
        await visitor.get("/acts?login=alice")
        socket = await connect(visitor)
        await visitor.get("/acts?destroy=1")
        assert await socket.closed() == (1008, "destroyed")


@pytest.mark.parametrize(
    "space", ["\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\xa0"], ids=ascii
)
async def test_a_prefix_behind_an_odd_space(space):
    """PortSwigger's "Cookie Chaos" (Django, ASP.NET): K3, such a name is no __Host- one.

    A browser lets a subdomain set it, since it does not begin with the prefix.
    """
    name, https = "__Host-session", {"X-Scheme": "https"}
    async with serving(Acts, session_secure=True) as site:
        mallory = site.visitor()
        await mallory.get("/?set=k:planted", headers=https)
        assert candidates(f"{name}={mallory.cookie}", name) == [mallory.cookie]
        assert candidates(f"a=b;{space}{name}={mallory.cookie}", name) == []
        assert candidates(f"{name}{space}={mallory.cookie}", name) == []


# -- time ----------------------------------------------------------------------------


@on_every_store
async def test_expiry_that_only_the_cookie_knows(make_store):
    """CVE-2018-1000814 aiohttp-session, CVE-2026-79313 web.py: R3, E1."""
    store = make_store()
    clock = store.clock = FakeClock()
    async with serving(Acts, store, session_idle_timeout=100) as site:
        visitor = await known(site)
        clock.advance(101)
        assert (await visitor.get("/?touch=k")).body == b"{}"


async def test_a_session_that_never_ends():
    """express-session #557: E1, use does not move the absolute end."""
    clock = FakeClock()
    store = AsyncStore(clock=clock)
    settings = {"session_idle_timeout": 100, "session_absolute_timeout": 250}
    async with serving(Acts, store, **settings) as site:
        visitor = await known(site)
        for expected in [b'{"k": "v"}'] * 3 + [b"{}"]:
            clock.advance(70)
            assert (await visitor.get("/?touch=k")).body == expected


async def test_settings_that_sessions_do_not_hear_of():
    """express-session #1077: E1, a shorter timeout holds for those that are there."""
    clock = FakeClock()
    store = AsyncStore(clock=clock)
    async with serving(Acts, store) as site:
        visitor = await known(site)
    async with serving(Acts, store, session_idle_timeout=100) as site:
        clock.advance(101)
        again = site.visitor(**visitor.cookies)
        assert (await again.get("/?touch=k")).body == b"{}"


# -- what is stored, and read --------------------------------------------------------


@on_every_store
async def test_rows_for_visitors_who_do_nothing(make_store):
    """CVE-2015-5143 CVE-2015-5963 CVE-2015-5964 Django, express-session #330: S1."""
    async with serving([(r"/.*", Counter)], make_store()) as site:
        nobody = signed(encode(ticket_in(signed("x" * 48))))
        for cookies in [{}, {"session": ""}, {"session": "x"}, {"session": nobody}]:
            answer = await site.visitor(**cookies).get("/")
            assert (answer.code, session_cookies(answer)) == (200, [])
        assert await site.records() == []


async def test_an_empty_key_opens_a_session():
    """CVE-2015-3982 Django: K2, empty and malformed ids never reach the store."""
    async with serving(Acts) as site:
        await known(site)
        site.store.forget()
        for inner in ["", " " * 48, "\0" * 48, "x" * 47, "x" * 49, "/" * 48]:
            page = await site.visitor(session=signed(inner)).get("/?touch=k")
            assert page.body == b"{}"
        assert site.store.calls == []


@pytest.mark.parametrize("handle", ["../../../../etc/passwd", "/etc/passwd", "a/../b"])
async def test_an_id_that_is_a_path(tmp_path, handle):
    """CVE-2024-2044 pgAdmin, GO-2024-2730 gorilla (CVE-2024-3400): files are named by hash."""
    (tmp_path / "passwd").write_text("x", encoding="utf-8")
    folder = tmp_path / "sessions"
    store = FileStore(folder)
    async with store:
        assert await store.load([handle]) == [None]
        assert await store.commit([Delete(handle)]) == [Outcome.GONE]
        outside = [path.name for path in tmp_path.iterdir()]
        assert sorted(outside) == ["passwd", "sessions"]


class Unpickled:
    """Runs code where it is unpickled."""

    ran = False

    def __reduce__(self):
        return (setattr, (Unpickled, "ran", True))


async def test_data_that_are_code(tmp_path):
    """CVE-2013-7489 Beaker, CVE-2021-33026 Flask-Caching, CVE-2024-2044 pgAdmin: S4."""
    async with serving(Acts, FileStore(tmp_path)) as site:
        visitor = await known(site)
        records = tmp_path / "tornado_sessions" / "records"
        (file,) = [path for path in records.rglob("*") if path.is_file()]
        expires = file.stat().st_mtime
        file.write_bytes(pickle.dumps(Unpickled()))
        os.utime(file, (expires, expires))
        assert (await visitor.get("/?touch=k")).body == b"{}"
        assert Unpickled.ran is False


def blocks(raw):
    """Give what is at each place of *raw*, by the length of a block of AES."""
    return [raw[at : at + 16] for at in range(len(raw) - 15)]


async def test_blocks_that_look_alike():
    """CVE-2012-3458 Beaker: AES-GCM and no ECB: nothing repeats, nothing can be moved."""
    long, settings = "A" * 4096, {"session_encryption_keys": [b"k" * 32]}
    async with serving(Acts, **settings) as site:
        visitor = await known(site, f"set=a:{long}&set=b:{long}&set=k:v")
        values = await site.values()
        seen = [block for raw in values.values() for block in blocks(raw[6:])]
        assert len(set(seen)) == len(seen)
        handle = ticket_in(visitor.cookie).handle
        spliced = values["a"][:2048] + values["b"][2048:]
        for raw in (values["b"], spliced):
            await site.store.inner.commit([Apply(handle, set={"a": raw})])
            stranger = site.visitor(**visitor.cookies)
            assert (await stranger.get("/?touch=a")).body == b"{}"
            visitor = await known(site, f"set=a:{long}&set=b:{long}")
            values = await site.values()
            handle = ticket_in(visitor.cookie).handle


@on_every_store
async def test_a_record_that_fails_for_ever(make_store):
    """express-session #824 #925: S6, it is dropped, and the visitor begins anew."""
    store = make_store()
    async with serving(Acts, store) as site:
        visitor = await known(site)
        store.unreadable.add(ticket_in(visitor.cookie).handle)
        for _ in range(2):
            assert (await visitor.get("/?touch=k")).code == 200
        await visitor.get("/?set=k:again")
        assert (await visitor.get("/?touch=k")).body == b'{"k": "again"}'


async def test_sessions_that_fill_the_memory():
    """express-session #128 #284: R4, what has expired is freed, though nobody asks."""
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    async with serving(Acts, store, session_idle_timeout=100) as site:
        for _ in range(20):
            await known(site)
        clock.advance(101)
        kept = await known(site)
        assert await site.manager.sweep() == 20
        assert [info.handle async for info in site.manager.iterate()] == [
            ticket_in(kept.cookie).handle
        ]


async def test_a_value_that_hangs_the_request():
    """express-session #41 #302, express #1506: S4, what cannot be stored is a 500."""

    class Odd(Page):
        def get(self):
            loop = []
            loop.append(loop)
            self.session["k"] = loop if self.request.path == "/loop" else object()

    async with serving(Odd) as site:
        for path in ("/loop", "/object"):
            answer = await site.visitor().get(path)
            assert (answer.code, session_cookies(answer)) == (500, [])
        assert await site.records() == []


# -- caches, cookies, headers --------------------------------------------------------

LOOKS = {
    "get": lambda session: session.get("k"),
    "getitem": lambda session: session["k"],
    "contains": lambda session: "k" in session,
    "not contains": lambda session: "absent" in session,
    "iter": list,
    "len": len,
    "bool": bool,
    "keys": lambda session: list(session.keys()),
    "equality": lambda session: session == {},
    "flashes": lambda session: session.flashes(),
    "principal": lambda session: session.principal,
    "handle": lambda session: session.handle,
    "is_new": lambda session: session.is_new,
    "repr": repr,
}


@pytest.mark.parametrize("look", LOOKS)
async def test_a_cache_gives_one_visitors_page_to_another(look):
    """CVE-2023-30861 CVE-2026-27205 Flask, express-session #362 #588: T6, any look."""

    class Looks(Page):
        def get(self):
            if self.request.path == "/look":
                LOOKS[look](self.session)

        def post(self):
            self.session["k"] = "v"

    async with serving(Looks) as site:
        visitor = site.visitor()
        (first,) = [await visitor.post()]
        assert first.headers["Cache-Control"] == "no-store"
        for who in [visitor, site.visitor()]:
            assert (await who.get("/look")).headers["Vary"] == "Cookie"
        assert "Vary" not in (await visitor.get("/")).headers


@pytest.mark.parametrize("bound", [False, True], ids=["Tornado's", "the session's"])
async def test_a_secret_that_compresses(bound):
    """CVE-2014-9720 Tornado (BREACH): no page holds the same secret twice, or the token."""

    class Form(Page):
        def get(self):
            self.session["k"] = "v"
            self.write(self.xsrf_token)

        def post(self):
            self.write("posted")

    settings = {"xsrf_cookies": True, "compress_response": True}
    async with serving(Form, session_xsrf=bound, **settings) as site:
        visitor = site.visitor()
        await visitor.get()
        pages = [(await visitor.get()).body.decode() for _ in range(10)]
        assert len(set(pages)) == 10
        assert ticket_in(visitor.cookie).token not in "".join(pages)
        for token in pages:
            assert (await visitor.post(body=f"_xsrf={token}")).body == b"posted"


async def test_a_cookie_that_other_sites_may_send():
    """express-session #662: K3, SameSite is Lax unless asked otherwise."""
    async with serving(Acts) as site:
        (morsel,) = session_cookies(await site.visitor().get("/?set=k:v"))
        assert morsel["samesite"] == "Lax"


def test_cookies_that_take_for_ever():
    """CVE-2024-52804 Tornado, CVE-2024-7592 Python: K2, reading them is linear, and capped."""

    def seconds(header):
        began = time.process_time()
        for _ in range(5):
            candidates(header, "session")
        return time.process_time() - began

    for part in ['session="\\', "session=", "session=x;", ";", '\\"', "session" * 3]:
        short, long = part * 20_000, part * 200_000
        assert seconds(long) < 100 * max(seconds(short), 0.001)
    assert len(candidates("session=x;" * 1000, "session")) == MAX_CANDIDATES


@pytest.mark.parametrize(
    "kwargs",
    [
        {"domain": "example.com; Secure"},  # CVE-2026-35536
        {"path": "/; Domain=example.com"},
        {"samesite": "Lax; Domain=example.com"},
        {"Domain": "example.com"},  # CVE-2026-91991
        {"max_age": "1; Domain=example.com"},  # CVE-2026-123535
        {"max-age": "1"},
    ],
    ids=str,
)
def test_attributes_that_bring_others_along(kwargs):
    """CVE-2026-35536 CVE-2026-91991 CVE-2026-123535 Tornado: K3."""
    with pytest.raises(ConfigurationError, match="session_cookie_kwargs"):
        SessionConfig(cookie_kwargs=kwargs)


def test_a_tornado_with_holes():
    """CVE-2025-67724 CVE-2025-67725 CVE-2025-67726 CVE-2025-47287: the floor is above.

    Likewise GHSA-pcg2-g6cj-q92c and GHSA-3hv7-mjh2-fv65.
    """
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (floor,) = re.findall(r'"tornado>=([\d.]+)"', project)
    floor = tuple(map(int, floor.split(".")))
    assert floor >= (6, 5, 8)


async def test_a_secure_cookie_that_never_arrives(caplog):
    """express-session #281 #628: K5, S1, nothing is stored that cannot be delivered."""
    async with serving(Counter, session_secure=True) as site:
        visitor = site.visitor()
        for _ in range(3):
            answer = await visitor.post()
            assert (answer.code, session_cookies(answer)) == (200, [])
        assert await site.records() == []
    assert len([m for m in caplog.messages if "session_secure=True" in m]) == 1


# -- a store that fails --------------------------------------------------------------


async def test_a_store_that_fails_logs_people_in():
    """express-session #99 #216, ASVS 16.5.3: T3, F1, no session is a 503, not a guess."""

    class Secret(SessionMixin, RequestHandler):
        def get(self):
            self.write(f"hello {self.current_user}")

    async with serving([("/secret", Secret), (r"/.*", Acts)]) as site:
        visitor = await known(site, "set=k:v&login=alice")
        site.store.failing = {"load"}
        answer = await visitor.get("/secret")
        assert (answer.code, b"hello" in answer.body) == (503, False)
        site.store.failing = set()
        assert (await visitor.get("/secret")).body == b"hello alice"
