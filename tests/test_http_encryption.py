"""Sessions whose values are encrypted at rest, on their way through requests."""

import asyncio
import json
import logging
from pathlib import Path

import pytest
from pymongo import MongoClient
from redis import Redis

from backends import backend_url
from httpkit import Acts, Page, acting, answered, serving, session_cookies, ticket_in
from httpkit_stores import FakeClock, Gate, on_both_paths, on_every_store
from mongokit import shared_mongo
from rediskit import shared_redis
from socketkit import a_socket, connect, routes
from test_encryption import NEW, OLD
from test_http_values import KEYS, VALUES, Switch, did, keeping
from tornado_sessions.stores.base import Apply, Outcome
from tornado_sessions.stores.url import store_from_url

VALUE = "the-secret-value"
ENCRYPTED = {"session_encryption_keys": [NEW]}


def fill(session):
    session.update(a=VALUE, b=[VALUE], c=3)


def everything(session):
    return str(dict(session))


async def put(site, handle, **raw):
    """Put stored bytes into a record, as one who can write to the database."""
    change = Apply(handle, set=raw)
    assert await site.store.inner.commit([change]) == [Outcome.APPLIED]


@on_every_store
async def test_values_come_back_as_they_were(make_store):
    """S4 S5 S9: every type and any key, and what is stored shows none of it."""
    wanted = {**VALUES, **dict.fromkeys(KEYS, VALUE)}
    switch = Switch()
    seen: dict[str, object] = {}
    async with serving(keeping(switch), make_store(), **ENCRYPTED) as site:
        visitor = site.visitor()
        await did(site, visitor, switch, lambda session: session.update(wanted))
        await did(site, visitor, switch, seen.update)
        stored = await site.values()
    assert seen == wanted
    assert len(stored) == len(wanted)
    assert not any(VALUE.encode() in raw or b"text" in raw for raw in stored.values())


@on_every_store
async def test_only_what_changed_is_written(make_store):
    """S2 S3: who reads writes nothing; who writes leaves the other values' bytes alone."""
    switch = Switch()
    async with serving(keeping(switch), make_store(), **ENCRYPTED) as site:
        visitor = site.visitor()
        await did(site, visitor, switch, fill)
        before = await site.values()
        await did(site, visitor, switch, everything)
        assert site.store.calls == ["load"]
        await did(site, visitor, switch, fill)
        assert site.store.calls == ["load"]
        await did(site, visitor, switch, lambda session: session["b"].append(1))
        after = await site.values()
        assert {name for name in after if after[name] != before[name]} == {"b"}
        answer = await did(site, visitor, switch, everything)
    assert json.loads(answer.body)["answer"] == str(
        {"a": VALUE, "b": [VALUE, 1], "c": 3}
    )


@on_every_store
async def test_flashes(make_store):
    """S4 S9: messages are shown once, and are encrypted until then."""
    switch = Switch()
    async with serving(keeping(switch), make_store(), **ENCRYPTED) as site:
        visitor = site.visitor()
        await did(site, visitor, switch, lambda session: session.flash(VALUE))
        assert VALUE.encode() not in b"".join((await site.values()).values())
        shown = {"act": lambda session: [one.message for one in session.flashes()]}
        answer = await did(site, visitor, switch, shown["act"])
        assert json.loads(answer.body) == {"answer": [VALUE]}
        answer = await did(site, visitor, switch, shown["act"])
        assert json.loads(answer.body) == {"answer": []}


@on_every_store
async def test_a_new_token_changes_no_value(make_store):
    """S3 E4: login and regenerate_id leave the stored bytes alone: the handle stays."""
    async with serving(Acts, make_store(), **ENCRYPTED) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        before = await site.values()
        await visitor.get("/?login=ada")
        await visitor.get("/?renew=1")
        assert (await visitor.get()).body == b'{"k": "1"}'
        assert await site.values() == before


# -- whoever can write to the database -------------------------------------------


def swapped_keys(mine, _):
    return {"a": mine["b"], "b": mine["a"]}


def swapped_sessions(_, other):
    return {"a": other["a"]}


def flipped(mine, _):
    return {"a": mine["a"][:-1] + bytes([mine["a"][-1] ^ 1])}


def truncated(mine, _):
    return {"a": mine["a"][:-1]}


def emptied(_, __):
    return {"a": b""}


def in_plain_text(_, __):
    return {"a": b'"admin"'}


@pytest.mark.parametrize(
    "damage",
    [swapped_keys, swapped_sessions, flipped, truncated, emptied, in_plain_text],
)
@on_every_store
async def test_what_was_not_written_for_this_place(make_store, damage, caplog):
    """S6 S9: a warning, an event and a new session; nothing of it is ever believed."""
    switch = Switch()
    async with serving(keeping(switch), make_store(), **ENCRYPTED) as site:
        visitor, other = site.visitor(), site.visitor()
        await did(site, visitor, switch, fill)
        mine = await site.record()
        await did(site, other, switch, fill)
        (theirs,) = [one for one in await site.records() if one.handle != mine.handle]
        await put(site, mine.handle, **damage(mine.values, theirs.values))
        site.events.clear()
        answer = await did(site, visitor, switch, lambda s: s.get("a"))
        assert (answer.code, answer.body) == (200, b'{"answer": null}')
        assert [(e.kind, e.handle) for e in site.events] == [
            ("undecodable", mine.handle)
        ]
        assert [one.handle for one in await site.records()] == [theirs.handle]
        answer = await did(site, visitor, switch, fill)
        assert (answer.code, len(session_cookies(answer))) == (200, 1)
        answer = await did(site, other, switch, lambda s: s["a"])
        assert json.loads(answer.body) == {"answer": VALUE}
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    text = warning.getMessage()
    assert text.startswith(f"dropped the session {mine.handle}: session key 'a': ")
    assert not any(secret in caplog.text for secret in (VALUE, NEW, "admin"))


@on_every_store
async def test_an_older_value_of_the_same_place(make_store):
    """S6: what the page about encryption says is not noticed: a value that was put back."""
    switch = Switch()
    async with serving(keeping(switch), make_store(), **ENCRYPTED) as site:
        visitor = site.visitor()
        await did(site, visitor, switch, lambda session: session.update(a="before"))
        before = await site.record()
        await did(site, visitor, switch, lambda session: session.update(a="after"))
        await put(site, before.handle, **before.values)
        answer = await did(site, visitor, switch, lambda session: session["a"])
        assert json.loads(answer.body) == {"answer": "before"}
        assert "undecodable" not in [event.kind for event in site.events]


@pytest.mark.parametrize("damage", [swapped_keys, in_plain_text])
@on_every_store
async def test_mutate_believes_nothing(make_store, damage):
    """S6 C2: mutate() of a value that is not its own begins a new session, from default."""

    class Adds(Page):
        async def get(self):
            self.session.setdefault("b", 100)
            self.write({"a": await self.session.mutate("a", lambda n: n + 1, 0)})

    async with serving(Adds, make_store(), **ENCRYPTED) as site:
        visitor = site.visitor()
        await visitor.get()
        mine = await site.record()
        await put(site, mine.handle, **damage(mine.values, None))
        site.events.clear()
        assert (await visitor.get()).body == b'{"a": 1}'
        assert [event.kind for event in site.events] == ["undecodable", "created"]
        assert (await site.record()).handle != mine.handle
        assert (await visitor.get()).body == b'{"a": 2}'


# -- sockets ---------------------------------------------------------------------


@on_every_store
async def test_sockets(make_store):
    """W3 C2: a socket saves, counts and reads again what others wrote, all encrypted."""
    store = make_store()
    two_keys = {"session_encryption_keys": [OLD, NEW]}
    async with (
        serving(routes(a_socket()), store, **ENCRYPTED) as site,
        serving(routes(a_socket()), store, **two_keys) as later,
    ):
        visitor = site.visitor()
        await visitor.get(f"/acts?set=k:{VALUE}")
        socket = await connect(visitor)
        assert await socket.say("read k") == VALUE
        await socket.say("set k changed")
        await socket.say("save")
        assert [await socket.say("add n 2") for _ in range(2)] == [2, 4]
        stored = await site.values()
        assert {raw[:2] for raw in stored.values()} == {b"\xc1\xff"}
        assert (await visitor.get("/acts")).body == b'{"k": "changed", "n": 4}'
        await visitor.get("/acts?set=k:again")
        assert await socket.say("read k") == "changed"
        await socket.say("refresh")
        assert await socket.say("read k") == "again"
        other = await connect(later.visitor(**visitor.cookies))
        assert await other.say("add n 1") == 5
        assert (await later.values())["n"][:6] != stored["n"][:6]


@on_every_store
async def test_a_socket_believes_nothing(make_store):
    """S6 W1: a socket that reads what is not encrypted sees nothing; its save ends it."""
    async with serving(routes(a_socket()), make_store(), **ENCRYPTED) as site:
        visitor = site.visitor()
        await visitor.get(f"/acts?set=k:{VALUE}")
        socket = await connect(visitor)
        handle = ticket_in(visitor.cookie).handle
        await socket.say("set other kept")
        await socket.say("save")
        await put(site, handle, k=b'"admin"')
        await socket.say("refresh")
        await socket.say("set other dropped")
        assert await socket.say("read k") is None
        assert site.events[-1].kind == "undecodable"
        await socket.send("save")
        assert await socket.ended() == (1008, "undecodable")
        assert await site.records() == []


# -- changes of the keys ---------------------------------------------------------


@on_every_store
async def test_keys_are_changed_without_a_logout(make_store):
    """S3 S6: an older key reads, the newest writes, and one removed ends who needs it."""
    switch, store = Switch(), make_store()
    handler = keeping(switch)

    def with_keys(*keys):
        return serving(handler, store, session_encryption_keys=list(keys))

    async with with_keys(OLD) as before, with_keys(NEW, OLD) as both:
        first = before.visitor()
        await did(before, first, switch, fill)
        old = await before.values()
        visitor = both.visitor(**first.cookies)
        await did(both, visitor, switch, everything)
        assert store.calls == ["load"]
        await did(both, visitor, switch, lambda session: session.update(c=4))
        new = await both.values()
        assert {name for name in new if new[name] != old[name]} == {"c"}
    async with with_keys(NEW) as after:
        visitor = after.visitor(**first.cookies)
        answer = await did(after, visitor, switch, lambda session: session["c"])
        assert answer.body == b'{"answer": 4}'
        answer = await did(after, visitor, switch, lambda session: session.get("a"))
        assert (answer.code, answer.body) == (200, b'{"answer": null}')
        assert [event.kind for event in after.events] == ["undecodable"]
        assert await after.records() == []
        await did(after, visitor, switch, fill)
        answer = await did(after, visitor, switch, lambda session: session["a"])
        assert json.loads(answer.body) == {"answer": VALUE}


@on_both_paths
async def test_when_an_old_key_may_go(make_store):
    """E1 S6: after the absolute timeout nothing is left that an old key has written."""
    clock, switch = FakeClock(), Switch()
    store = make_store(clock=clock)
    timeouts = {"session_idle_timeout": 60, "session_absolute_timeout": 600}
    keys = [OLD], [NEW, OLD], [NEW]
    settings = [{"session_encryption_keys": list(one), **timeouts} for one in keys]
    handler = keeping(switch)
    async with serving(handler, store, **settings[0]) as site:
        first = site.visitor()
        await did(site, first, switch, fill)
    async with serving(handler, store, **settings[1]) as site:
        visitor = site.visitor(**first.cookies)
        for _ in range(18):  # a busy visitor, logged in meanwhile, keeps an old value
            clock.advance(33)
            await did(site, visitor, switch, lambda session: session.update(c=clock()))
        answer = await did(site, visitor, switch, lambda session: session.login("ada"))
        assert answer.code == 200
        assert clock.now < (await site.record()).meta.expires_at <= clock.now + 6
    clock.advance(6)
    async with serving(handler, store, **settings[2]) as site:
        visitor = site.visitor(**visitor.cookies)
        answer = await did(site, visitor, switch, lambda session: session.get("a"))
        assert answer.body == b'{"answer": null}'
        assert "undecodable" not in [event.kind for event in site.events]


@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
@on_every_store
async def test_encryption_is_turned(make_store, on, caplog):
    """S6: sessions of the time before are dropped when they are read, never half read."""
    switch, store = Switch(), make_store()
    handler = keeping(switch)
    before, after = ({}, ENCRYPTED) if on else (ENCRYPTED, {})
    async with (
        serving(handler, store, **before) as old,
        serving(handler, store, **after) as new,
    ):
        first = old.visitor()
        await did(old, first, switch, fill)
        visitor = new.visitor(**first.cookies)
        for _ in range(2):
            answer = await did(new, visitor, switch, lambda s: s.get("a"))
            assert (answer.code, answer.body) == (200, b'{"answer": null}')
        assert [event.kind for event in new.events] == ["undecodable"]
        await did(new, visitor, switch, fill)
        answer = await did(new, visitor, switch, lambda session: session["a"])
        assert json.loads(answer.body) == {"answer": VALUE}
    words = "is not encrypted, but" if on else "is encrypted, but"
    assert f"the stored value {words} session_encryption_keys" in caplog.text
    assert VALUE not in caplog.text


# -- parallel requests -----------------------------------------------------------


@on_every_store
async def test_different_keys_survive(make_store):
    """C1: two requests that set different keys of an encrypted session: both hold."""
    gate = Gate()
    async with serving(acting(a=gate), make_store(), **ENCRYPTED) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:0")
        slow = visitor.get("/?touch=k&wait=a&set=slow:1&set=same:slow")
        await answered(slow, gate, visitor.get("/?set=quick:2&set=same:quick"))
        answer = await visitor.get()
    wanted = {"k": "0", "quick": "2", "same": "slow", "slow": "1"}
    assert json.loads(answer.body) == wanted


@on_every_store
async def test_mutate_loses_nothing(make_store):
    """C2: two servers that count with mutate() in an encrypted session: the exact total."""

    class Counts(Page):
        async def get(self):
            count = await self.session.mutate("n", lambda n: n + 1, default=0)
            self.write({"n": count})

    store = make_store()
    async with (
        serving(Counts, store, **ENCRYPTED) as one,
        serving(Counts, store, session_encryption_keys=[OLD, NEW]) as two,
    ):
        visitor = one.visitor()
        await visitor.get()
        twins = [site.visitor(**visitor.cookies) for site in (one, two) * 10]
        before_rotation = (twin.get() for twin in twins[::2])
        await asyncio.gather(*before_rotation)
        two_keys = {"session_encryption_keys": [NEW, OLD]}
        async with serving(Counts, store, **two_keys) as three:
            others = [three.visitor(**visitor.cookies) for _ in range(10)]
            answers = await asyncio.gather(*(v.get() for v in twins[1::2] + others))
        counts = {json.loads(answer.body)["n"] for answer in answers}
        assert counts == set(range(12, 32))


# -- what lies on the disk -------------------------------------------------------


def bytes_of_files(folder, _):
    return b"".join(p.read_bytes() for p in Path(folder).rglob("*") if p.is_file())


def bytes_in_redis(_, namespace):
    with Redis.from_url(shared_redis("standalone")) as client:
        names = client.keys(f"*{namespace}*")
        dumps = [client.dump(name) for name in names]
        hashes = [client.hgetall(n) for n in names if client.type(n) == b"hash"]
    return repr((names, dumps, hashes)).encode()  # a dump may be compressed


def bytes_in_mongo(_, namespace):
    with MongoClient(shared_mongo()) as client:
        found = [
            document
            for database in client.list_database_names()
            for name in client[database].list_collection_names()
            if namespace in name
            for document in client[database][name].find()
        ]
    return repr(found).encode()


PROBES = {
    "file": bytes_of_files,
    "sqlite": bytes_of_files,
    "redis": bytes_in_redis,
    "mongo": bytes_in_mongo,
}


@pytest.mark.parametrize("kind", PROBES)
async def test_nothing_of_a_value_is_in_the_database(tmp_path, kind):
    """S9: its own bytes show a value without keys, and none with them; names they show."""
    for keys, found in ((None, True), ([NEW], False)):
        url = backend_url(kind, tmp_path)
        store = store_from_url(url)
        switch, namespace = Switch(), url.partition("namespace=")[2]
        settings = {"session_store": store, "session_encryption_keys": keys}
        async with serving(keeping(switch), store, **settings) as site:
            visitor = site.visitor()
            switch.act = fill
            await visitor.get()
            switch.act = lambda session: session.flash(VALUE)
            await visitor.get()
            switch.act = lambda session: session.login("ada-lovelace")
            await visitor.get()
            raw = PROBES[kind](tmp_path, namespace)
            assert (VALUE.encode() in raw) is found
            assert b"ada-lovelace" in raw  # as the page about encryption says
            assert (await site.manager.count()) == 1
            async with store:
                await store.clear()
        for path in tmp_path.iterdir():
            if path.is_file():
                path.unlink()
