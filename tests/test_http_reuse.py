"""A stolen copy of the cookie: who is let in, who hears of it, and what ends (E5)."""

import asyncio

from httpkit import Acts, serving, session_cookies, ticket_in
from httpkit_stores import FakeClock, on_both_paths, on_every_store
from socketkit import a_socket, connect, routes

AFTER, GRACE = 600, 30
ROTATING = {"session_rotate_after": AFTER, "session_rotate_grace": GRACE}
ELSEWHERE = {"X-Real-Ip": "203.0.113.9", "User-Agent": "curl/8.0"}


def serve(make_store, clock, handlers=Acts, **settings):
    return serving(handlers, make_store(clock=clock), **ROTATING, **settings)


async def robbed(site):
    """Return somebody who is logged in, and a thief with a copy of the cookie."""
    owner = site.visitor()
    await owner.get("/acts?set=k:1&login=ada")
    return owner, owner.twin()


async def moves_on(visitor, clock):
    """Have the visitor's token replaced for its age, and the new one presented."""
    clock.advance(AFTER)
    (morsel,) = session_cookies(await visitor.get("/acts"))
    await visitor.get("/acts")
    return ticket_in(morsel)


def alarms(site):
    return [event for event in site.events if event.kind == "reuse"]


@on_every_store
async def test_the_alarm_says_what_is_known(make_store):
    """E5: whose session it was, who came with the copy, and how old that was."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        owner, thief = await robbed(site)
        ticket = await moves_on(owner, clock)
        clock.advance(3 * GRACE)
        answer = await thief.get("/acts", headers={**ELSEWHERE, **thief.headers})
        assert (answer.body, session_cookies(answer)) == (b"{}", [])
        (alarm,) = alarms(site)
        assert (alarm.handle, alarm.principal) == (ticket.handle, "ada")
        assert (alarm.ip, alarm.user_agent) == ("203.0.113.9", "curl/8.0")
        assert alarm.age == 3 * GRACE
        assert site.kinds[-2:] == [("reuse", None), ("ended", "reuse")]
        assert (await owner.get("/acts")).body == b"{}"
        assert len(alarms(site)) == 1


@on_every_store
async def test_an_older_copy_is_older_than_the_alarm_says(make_store):
    """E5: of a token from before the last one it is known that it is at least so old."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        owner, thief = await robbed(site)
        await moves_on(owner, clock)
        await moves_on(owner, clock)
        clock.advance(1)
        await thief.get("/acts")
        assert [alarm.age for alarm in alarms(site)] == [1]
        assert site.kinds[-1] == ("ended", "reuse")


@on_every_store
async def test_a_thief_who_moves_first_does_not_win(make_store):
    """E5: the owner comes with what the thief has replaced, and that ends it for both."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        owner, thief = await robbed(site)
        await moves_on(thief, clock)
        clock.advance(GRACE)
        assert (await owner.get("/acts")).body == b"{}"
        assert site.kinds[-2:] == [("reuse", None), ("ended", "reuse")]
        assert (await thief.get("/acts")).body == b"{}"
        await owner.get("/acts?login=ada&set=k:2")
        assert (await owner.get("/acts")).body == b'{"k": "2"}'
        assert (await thief.get("/acts")).body == b"{}"


@on_every_store
async def test_a_thief_in_step_is_found_when_out_of_step(make_store):
    """E4 E5: within the grace both get the same successor; who is later is the alarm."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        owner, thief = await robbed(site)
        ticket = await moves_on(thief, clock)
        clock.advance(GRACE - 1)
        (morsel,) = session_cookies(await owner.get("/acts"))
        assert ticket_in(morsel) == ticket
        assert alarms(site) == []
        await moves_on(owner, clock)
        clock.advance(GRACE)
        await thief.get("/acts")
        assert site.kinds[-2:] == [("reuse", None), ("ended", "reuse")]


@on_every_store
async def test_a_login_locks_the_thief_out(make_store):
    """C6 E5: a copy from before it opens nothing, and ends nothing."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        owner, thief = await robbed(site)
        await owner.get("/acts?login=ada")
        clock.advance(AFTER)
        assert (await thief.get("/acts")).body == b"{}"
        assert (await owner.get("/acts")).body == b'{"k": "1"}'
        assert alarms(site) == []


@on_every_store
async def test_several_alarms_end_a_session_once(make_store):
    """E5 E6: each use of a copy is told; the end is told once."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        owner, thief = await robbed(site)
        await moves_on(owner, clock)
        clock.advance(GRACE)
        await asyncio.gather(*(thief.twin().get("/acts") for _ in range(4)))
        assert 1 <= len(alarms(site)) <= 4
        assert site.kinds.count(("ended", "reuse")) == 1


@on_every_store
async def test_a_policy_to_ignore_refuses_and_tells(make_store):
    """E5: with "ignore" the copy opens nothing and ends nothing; each use is told."""
    clock = FakeClock()
    async with serve(make_store, clock, session_on_reuse="ignore") as site:
        owner, thief = await robbed(site)
        await moves_on(owner, clock)
        clock.advance(GRACE)
        for _ in range(2):
            answer = await thief.get("/acts")
            assert (answer.body, session_cookies(answer)) == (b"{}", [])
        assert len(alarms(site)) == 2
        assert (await owner.get("/acts")).body == b'{"k": "1"}'
        assert ("ended", "reuse") not in site.kinds


@on_both_paths
async def test_a_policy_to_ignore_has_its_price(make_store):
    """E5: with "ignore" a thief who moves first stays, and the owner is refused."""
    clock = FakeClock()
    async with serve(make_store, clock, session_on_reuse="ignore") as site:
        owner, thief = await robbed(site)
        await moves_on(thief, clock)
        clock.advance(GRACE)
        assert (await owner.get("/acts")).body == b"{}"
        assert (await thief.get("/acts")).body == b'{"k": "1"}'
        (alarm,) = alarms(site)
        assert await site.manager.revoke(alarm.handle)
        assert (await thief.get("/acts")).body == b"{}"


@on_every_store
async def test_the_sockets_of_both_are_closed(make_store):
    """E5 E6 W1: the owner's and the thief's, and told why."""
    clock, handlers = FakeClock(), routes(a_socket())
    async with serve(make_store, clock, handlers) as site:
        owner, thief = await robbed(site)
        sockets = [await connect(owner), await connect(thief)]
        await moves_on(owner, clock)
        clock.advance(GRACE)
        await thief.get("/acts")
        assert {await socket.closed() for socket in sockets} == {(1008, "reuse")}


@on_both_paths
async def test_the_sockets_stay_with_a_policy_to_ignore(make_store):
    """E5 W1: what does not end closes no socket."""
    clock, handlers = FakeClock(), routes(a_socket())
    async with serve(make_store, clock, handlers, session_on_reuse="ignore") as site:
        owner, thief = await robbed(site)
        socket = await connect(owner)
        await moves_on(owner, clock)
        clock.advance(GRACE)
        await thief.get("/acts")
        assert len(alarms(site)) == 1
        assert await socket.say("who") == "ada"


@on_both_paths
async def test_the_alarm_does_not_wait_for_the_store(make_store):
    """E5 F1: if the session cannot be ended now, it is told; it ends with the next use."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        owner, thief = await robbed(site)
        await moves_on(owner, clock)
        clock.advance(GRACE)
        site.store.failing.add("commit")
        assert (await thief.get("/acts")).code == 503
        assert len(alarms(site)) == 1
        site.store.failing.clear()
        assert (await thief.get("/acts")).body == b"{}"
        assert site.kinds[-1] == ("ended", "reuse")


@on_both_paths
async def test_a_copy_beside_the_current_cookie_is_no_alarm(make_store):
    """E5 K2: a browser that sends both has a duplicate, in another path or domain."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        owner, old = await robbed(site)
        await moves_on(owner, clock)
        clock.advance(GRACE)
        both = f"session={old.cookie}; session={owner.cookie}"
        answer = await owner.get("/acts", headers={"Cookie": both})
        assert answer.body == b'{"k": "1"}'
        assert alarms(site) == []
