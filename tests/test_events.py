"""Events: everybody who asked is told, and nobody can do harm by listening."""

import asyncio
import logging

import pytest

from tornado_sessions import SessionEvent, SessionManager
from tornado_sessions.events import Events


async def test_subscribers_are_told_in_order():
    """C3: each subscriber gets each event, in the order of subscription."""
    events, told = Events(), []
    events.subscribe(lambda event: told.append(("first", event)))
    events.subscribe(lambda event: told.append(("second", event)))
    events.emit("ended", "handle", "revoked", "alice")
    event = SessionEvent("ended", "handle", "revoked", "alice")
    assert told == [("first", event), ("second", event)]


async def test_a_subscription_ends():
    """C3: after unsubscribing nothing comes any more; doing it twice is harmless."""
    events, told = Events(), []
    unsubscribe = events.subscribe(told.append)
    stays = []
    events.subscribe(stays.append)
    unsubscribe()
    unsubscribe()
    events.emit("created", "handle")
    assert (told, len(stays)) == ([], 1)


@pytest.mark.parametrize("kind", [RuntimeError, asyncio.CancelledError])
async def test_a_failing_subscriber_harms_nobody(caplog, kind):
    """S9: it is logged without session data, and the others are told all the same."""
    events, told = Events(), []

    def fail(event):
        raise kind("no mail server")

    events.subscribe(fail)
    events.subscribe(told.append)
    with caplog.at_level(logging.ERROR, "tornado_sessions"):
        events.emit("login", "handle", None, "alice")
    assert len(told) == 1
    (record,) = caplog.records
    assert "login" in record.getMessage()
    assert record.exc_info[1].args == ("no mail server",)


async def test_subscribing_while_being_told():
    """C3: who subscribes or leaves during an event does not disturb that event."""
    events, told = Events(), []

    def once(event):
        told.append("once")
        leave()
        events.subscribe(lambda event: told.append("late"))

    leave = events.subscribe(once)
    events.subscribe(lambda event: told.append("other"))
    events.emit("created", "h")
    assert told == ["once", "other"]
    events.emit("created", "h")
    assert told == ["once", "other", "other", "late"]


async def test_the_life_of_a_session_is_told():
    """E6, S9, C3: created, login, rotated, dropped, ended; no token, no values."""
    async with SessionManager() as manager:
        told = []
        manager.subscribe(told.append)
        session = await manager.load([])
        session["secret"] = "value of the session"
        await manager.commit(session)
        handle = session.handle
        session.login("alice")
        await manager.commit(session)
        session.regenerate_id()
        await manager.commit(session)
        slow = await manager.load([session.ticket])
        slow["late"] = 1
        assert await manager.revoke(handle, "stolen laptop")
        await manager.commit(slow)
    assert [(event.kind, event.reason) for event in told] == [
        ("created", None),
        ("login", None),
        ("rotated", None),
        ("ended", "stolen laptop"),
        ("dropped", "ended meanwhile"),
    ]
    assert {event.handle for event in told} == {handle}
    assert session.ticket.token not in repr(told)
    assert "value of the session" not in repr(told)


async def test_a_failing_subscriber_does_not_fail_the_commit():
    """T3: what was stored is stored, whatever a subscriber does."""
    async with SessionManager() as manager:
        manager.subscribe(lambda event: 1 / 0)
        session = await manager.load([])
        session["n"] = 1
        await manager.commit(session)
        assert (await manager.load([session.ticket]))["n"] == 1


async def test_each_subscription_ends_by_itself():
    """Though it is of the same function: what was ended twice ends no other."""
    events, told = Events(), []
    first, _second = events.subscribe(told.append), events.subscribe(told.append)
    first()
    first()
    events.emit("created", "handle")
    assert len(told) == 1
