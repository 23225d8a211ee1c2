"""The mapping by itself: what handlers may do with it, without a server."""

import inspect
from datetime import datetime, timezone

import pytest

from httpkit_stores import AsyncStore, FakeClock
from tornado_sessions import CodecError, Session, SessionManager


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    return AsyncStore(clock=clock)


@pytest.fixture
async def manager(store):
    async with SessionManager(store) as manager:
        yield manager


async def new(manager):
    return await manager.load([])


async def stored(manager, **values):
    """Return a session that was stored and loaded again."""
    session = await new(manager)
    session.update(values)
    await session.save()
    return await manager.load([session.ticket])


async def test_it_is_a_mapping(manager):
    """S5: a session does what a dict does, in the order of insertion."""
    session = await new(manager)
    session.update({"a": 1, "b": [2]}, c=None)
    assert dict(session) == {"a": 1, "b": [2], "c": None}
    assert list(session) == ["a", "b", "c"]
    assert session.setdefault("b", 3) == [2]
    assert session.pop("a") == 1
    assert session.get("a", 5) == 5
    assert ("a" in session, "b" in session) == (False, True)
    assert session == {"b": [2], "c": None}
    with pytest.raises(KeyError):
        del session["a"]
    with pytest.raises(KeyError):
        session["a"]
    session.clear()
    assert (len(session), bool(session)) == (0, False)


@pytest.mark.parametrize("key", [1, None, b"a", ("a",)])
async def test_keys_are_strings(manager, key):
    """S5: anything but a str is refused at once, and is never found."""
    session = await new(manager)
    with pytest.raises(TypeError, match="keys must be str"):
        session[key] = 1
    assert key not in session
    assert session.get(key) is None
    with pytest.raises(KeyError):
        session[key]


async def test_access_is_no_io(manager, store):
    """S3: reading, writing and looking around call no store."""
    session = await stored(manager, a=1)
    store.forget()
    session["a"] += 1
    assert (dict(session), len(session)) == ({"a": 2}, 1)
    session.flash("x")
    session.flashes()
    session.login("ada")
    session.destroy()
    assert repr(session)
    assert store.calls == []


async def test_modified_tells_what_a_commit_would_write(manager):
    """S2 S3: reading is no change; assigning the same value is none either."""
    session = await stored(manager, a=[1], b=2)
    assert session["a"] == [1]
    session["b"] = 2
    assert not session.modified
    session["a"].append(2)
    assert session.modified
    session["a"].pop()
    assert not session.modified
    del session["b"]
    assert session.modified
    session["b"] = 2
    assert not session.modified


@pytest.mark.parametrize(
    "intend",
    [
        lambda session: session.login("ada"),
        lambda session: session.regenerate_id(),
        lambda session: session.destroy(),
        lambda session: session.flash("x"),
        lambda session: setattr(session, "persistent", True),
        lambda session: session.clear(),
        lambda session: session.update(bad=object()),
    ],
)
async def test_intents_count_as_changes(manager, intend):
    """S2: what the commit has to carry out makes a session modified."""
    session = await stored(manager, a=1)
    intend(session)
    assert session.modified


async def test_a_deleted_key_stays_deleted(manager):
    """S3: del and set again in one request leave exactly the last state."""
    session = await stored(manager, a=1, b=2)
    del session["a"]
    session["b"] = 3
    del session["b"]
    session["c"] = 4
    del session["c"]
    session["a"] = 5
    await session.save()
    assert dict(await manager.load([session.ticket])) == {"a": 5}


async def test_clear_keeps_who_is_logged_in(manager):
    """S5: clear() removes the keys; principal, handle and flashes go on."""
    session = await stored(manager, a=1)
    session.login("ada")
    session.flash("still there")
    handle = session.handle
    session.clear()
    await session.save()
    again = await manager.load([session.ticket])
    assert (dict(again), again.principal, again.handle) == ({}, "ada", handle)
    assert [flash.message for flash in again.flashes()] == ["still there"]


async def test_flashes_are_no_keys(manager):
    """S5: messages are not among the keys, and no key can be taken for a message."""
    session = await new(manager)
    session["\0flash:1"] = ["info", "mine"]
    session.flash("theirs", "warning")
    assert list(session) == ["\0flash:1"]
    assert [(f.message, f.category) for f in session.flashes()] == [
        ("theirs", "warning")
    ]
    assert session.flashes() == []
    assert session["\0flash:1"] == ["info", "mine"]


async def test_what_is_known_of_it(manager, store, clock):
    """E2: times are aware and in UTC, and is_new ends with the first commit."""
    session = await new(manager)
    now = datetime.fromtimestamp(clock(), timezone.utc)
    assert session.is_new
    assert (session.created_at, session.last_seen_at) == (now, now)
    before = session.expires_at
    session["a"] = 1
    await session.save()
    assert not session.is_new
    assert session.expires_at == before
    assert session.expires_at.timestamp() == store.record.meta.expires_at
    clock.advance(5)
    again = await manager.load([session.ticket])
    assert (again.created_at, again.handle) == (now, session.handle)


async def test_the_repr_names_keys_only(manager):
    """S9: the repr shows handle and keys."""
    session = await new(manager)
    assert repr(session) == "<Session new keys=[]>"
    session = await stored(manager, card="4111")
    assert repr(session) == f"<Session handle={session.handle!r} keys=['card']>"


@pytest.mark.parametrize("principal", [7, None, b"ada"])
async def test_a_principal_is_a_string(manager, principal):
    """E6: login() names what to do with another type."""
    session = await new(manager)
    with pytest.raises(TypeError, match=r"use str\(id\)"):
        session.login(principal)


@pytest.mark.parametrize("principal", ["", "x" * 1025, "\ud800"])
async def test_a_principal_is_of_reasonable_length(manager, principal):
    """S8: login() refuses what an index could not hold."""
    session = await new(manager)
    with pytest.raises(ValueError, match="principal"):
        session.login(principal)
    assert session.principal is None


async def test_persistent_takes_three_values(manager):
    """K3: True, False, or None for "as configured"; anything else is an error."""
    session = await new(manager)
    for value in (True, False, None):
        session.persistent = value
        assert session.persistent is value
    with pytest.raises(TypeError):
        session.persistent = "yes"


async def test_a_codec_error_names_the_key(manager):
    """S4: save() raises it, with the key as an attribute; nothing is stored."""
    session = await new(manager)
    session["fine"] = 1
    session["a.b"] = {"deep": [object()]}
    with pytest.raises(CodecError, match=r"'a\.b'.*builtins\.object") as raised:
        await session.save()
    assert raised.value.key == "a.b"
    assert await manager.count() == 0


async def test_refresh_reads_again(manager):
    """S3: refresh() drops what was not saved and shows what others saved."""
    session = await stored(manager, a=1)
    other = await manager.load([session.ticket])
    other["a"] = 2
    await other.save()
    session["mine"] = 1
    await session.refresh()
    assert dict(session) == {"a": 2}
    await manager.revoke(session.handle)
    await session.refresh()
    assert (dict(session), session.is_new) == ({}, True)


async def test_after_destroy_comes_another_session(manager, store):
    """C3: what is written after destroy() has another handle and no principal."""
    session = await stored(manager, a=1)
    old = session.handle
    session.login("ada")
    session.destroy()
    assert (dict(session), session.principal, session.is_new) == ({}, None, True)
    session["b"] = 2
    await session.save()
    assert store.record.handle == session.handle != old
    assert (dict(store.record.values), store.record.meta.principal) == (
        {"b": b"2"},
        None,
    )


async def test_saving_twice_writes_once(manager, store):
    """S2 P7: save() with nothing new makes no store call."""
    session = await stored(manager, a=[1])
    store.forget()
    session["a"].append(2)
    await session.save()
    await session.save()
    assert store.calls == ["commit"]


def test_intents_are_not_coroutines():
    """S1: what only records is a plain method; what does I/O is a coroutine."""
    for name in ("login", "regenerate_id", "destroy", "flash", "flashes"):
        assert not inspect.iscoroutinefunction(getattr(Session, name))
    for name in ("save", "refresh", "mutate"):
        assert inspect.iscoroutinefunction(getattr(Session, name))
