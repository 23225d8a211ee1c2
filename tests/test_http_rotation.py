"""New tokens: by age, by login, by two at once, and in the wrong hands (C5, C6, E4, E5)."""

import asyncio

import pytest

from httpkit import Acts, acting, answered, serving, session_cookies, ticket_in
from httpkit_stores import FakeClock, Gate, on_every_store

AFTER, GRACE = 600, 30
ROTATING = {"session_rotate_after": AFTER, "session_rotate_grace": GRACE}


def serve(make_store, clock, handler=Acts):
    return serving(handler, make_store(clock=clock), **ROTATING)


async def rotated(site, visitor, clock):
    """Let a visitor's token be replaced for its age; return a twin that kept the old."""
    await visitor.get("/?set=k:1")
    before = visitor.twin()
    clock.advance(AFTER)
    (morsel,) = session_cookies(await visitor.get())
    assert ticket_in(morsel).token != ticket_in(before.cookie).token
    assert ("rotated", None) in site.kinds
    return before


@on_every_store
async def test_a_token_is_replaced_at_its_age(make_store):
    """E4 P7: not before its age; then with one commit that carries no data."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        first = ticket_in(visitor.cookie)
        clock.advance(AFTER - 1)
        assert session_cookies(await visitor.get()) == []
        clock.advance(1)
        site.store.forget()
        (morsel,) = session_cookies(await visitor.get())
        assert site.store.calls == ["load", "commit"]
        (change,) = site.store.changes
        assert not change.set
        ticket = ticket_in(morsel)
        assert (ticket.handle, ticket.epoch) == (first.handle, first.epoch)
        assert ticket.token != first.token
        assert (await visitor.get()).body == b'{"k": "1"}'


@on_every_store
async def test_requests_that_rotate_at_once_converge(make_store):
    """C5 E4: two requests that rotate at once get the same successor, and both data."""
    gate, clock = Gate(), FakeClock()
    async with serve(make_store, clock, acting(a=gate)) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        clock.advance(AFTER)
        slow = visitor.twin().get("/?touch=k&wait=a&set=slow:1")
        answers = await answered(slow, gate, visitor.get("/?set=quick:1"))
        assert [answer.code for answer in answers] == [200, 200]
        tickets = {ticket_in(*session_cookies(answer)) for answer in answers}
        assert len(tickets) == 1
        answer = await visitor.get()
    assert answer.body == b'{"k": "1", "quick": "1", "slow": "1"}'


@on_every_store
async def test_a_burst_converges_though_every_answer_be_lost(make_store):
    """C1 C5 E4: eight at once make one successor, and who got none of them is given it."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k0:1")
        clock.advance(AFTER)
        keys = [f"k{number}" for number in range(1, 9)]
        burst = [visitor.twin().get(f"/?set={key}:1") for key in keys]
        answers = await asyncio.gather(*burst)
        tickets = {ticket_in(*session_cookies(answer)) for answer in answers}
        assert len(tickets) == 1
        assert site.kinds.count(("rotated", None)) == 1
        clock.advance(50 * GRACE)
        (morsel,) = session_cookies(await visitor.get())
        assert {ticket_in(morsel)} == tickets
        assert set(await site.values()) == {"k0", *keys}


@on_every_store
async def test_a_lost_answer_logs_nobody_out(make_store):
    """E4: who never got the successor is handed it again, however late."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        visitor = site.visitor()
        left_behind = await rotated(site, visitor, clock)
        clock.advance(50 * GRACE)
        (morsel,) = session_cookies(await left_behind.get())
    assert ticket_in(morsel) == ticket_in(visitor.cookie)


@on_every_store
async def test_a_handler_that_ignores_the_session_rotates_too(make_store):
    """E4 T6: the answer that carries a new token varies and is not to be cached."""

    class Ignores(Acts):
        def post(self):
            self.write("hello")

    clock = FakeClock()
    async with serve(make_store, clock, Ignores) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        clock.advance(AFTER)
        answer = await visitor.post()
    assert len(session_cookies(answer)) == 1
    assert answer.headers["Vary"] == "Cookie"
    assert answer.headers["Cache-Control"] == "no-store"


@on_every_store
async def test_an_ended_session_is_not_handed_out_again(make_store):
    """C3 E4: no successor goes to a slow request whose session ended meanwhile."""
    gate, clock = Gate(), FakeClock()
    async with serve(make_store, clock, acting(a=gate)) as site:
        visitor = site.visitor()
        left_behind = await rotated(site, visitor, clock)
        slow = left_behind.get("/?touch=k&wait=a&set=k:2")
        answer, _ = await answered(slow, gate, visitor.get("/?destroy=1"))
        assert (answer.code, session_cookies(answer)) == (200, [])
        assert ("dropped", "ended meanwhile") in site.kinds
        assert await site.records() == []


@on_every_store
async def test_the_previous_token_lives_for_the_grace(make_store):
    """E4 E5: once the successor was presented, the old token is good for the grace."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        visitor = site.visitor()
        left_behind = await rotated(site, visitor, clock)
        await visitor.get()
        clock.advance(GRACE - 1)
        assert (await left_behind.twin().get()).body == b'{"k": "1"}'
        clock.advance(1)
        assert (await left_behind.twin().get()).body == b"{}"
        assert ("ended", "reuse") in site.kinds


@on_every_store
async def test_reuse_ends_the_session_for_everybody(make_store, caplog):
    """E5 E6: a replaced token that comes back ends the session, reason ``reuse``."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        visitor = site.visitor()
        thief = await rotated(site, visitor, clock)
        await visitor.get()
        clock.advance(GRACE)
        answer = await thief.get()
        assert (answer.body, session_cookies(answer)) == (b"{}", [])
        assert site.kinds[-1] == ("ended", "reuse")
        assert (await visitor.get()).body == b"{}"
        assert await site.records() == []
    assert "a replaced token was used again" in caplog.text


@on_every_store
async def test_a_token_from_two_rotations_ago_is_reuse(make_store):
    """E5: only the last token before the current one has a grace."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        visitor = site.visitor()
        thief = await rotated(site, visitor, clock)
        await visitor.get()
        clock.advance(AFTER)
        await visitor.get()
        await visitor.get()
        assert (await thief.get()).body == b"{}"
        assert site.kinds[-1] == ("ended", "reuse")


@pytest.mark.parametrize("same", [True, False], ids=["same", "another"])
@on_every_store
async def test_two_logins_at_once(make_store, same):
    """C5 C6: both are answered with a cookie, and either of them is logged in."""
    gate = Gate()
    async with serving(acting(a=gate), make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        twin = visitor.twin()
        slow = twin.get(f"/?touch=k&wait=a&login={'ada' if same else 'bob'}")
        answers = await answered(slow, gate, visitor.get("/?login=ada"))
        assert [answer.code for answer in answers] == [200, 200]
        # After a double click the browser takes the second answer, and only that.
        assert [len(session_cookies(answer)) for answer in answers] == [1, 1]
        for last in (visitor, twin):
            assert (await last.get()).body == b'{"k": "1"}'
        names = [record.meta.principal for record in await site.records()]
        assert sorted(names) == (["ada", "ada"] if same else ["ada", "bob"])


@on_every_store
async def test_two_renewals_at_once(make_store):
    """C5: one regenerate_id wins, the other sends no cookie and loses no data."""
    gate = Gate()
    async with serving(acting(a=gate), make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        slow = visitor.twin().get("/?touch=k&wait=a&renew=1&set=slow:1")
        loser, winner = await answered(slow, gate, visitor.get("/?renew=1"))
        assert (loser.code, session_cookies(loser)) == (200, [])
        assert len(session_cookies(winner)) == 1
        assert (await visitor.get()).body == b'{"k": "1", "slow": "1"}'


async def logged_in(site, clock):
    """Return a visitor who has logged in, and one with the cookie from before."""
    visitor = site.visitor()
    await visitor.get("/?set=k:1")
    before = visitor.twin()
    clock.advance(1)
    await visitor.get("/?login=ada")
    site.store.forget()
    return visitor, before


@on_every_store
async def test_a_cookie_from_before_the_login_is_anonymous(make_store):
    """C6: it sees nothing, and for a minute it writes nothing and sends no cookie."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        visitor, before = await logged_in(site, clock)
        clock.advance(59)
        answer = await before.get("/?set=evil:1")
        assert answer.body == b'{"evil": "1"}'
        assert session_cookies(answer) == []
        assert site.store.calls == ["load"]
        assert ("dropped", "earlier epoch") in site.kinds
        assert (await visitor.get()).body == b'{"k": "1"}'
        assert ("ended", "reuse") not in site.kinds


@on_every_store
async def test_a_cookie_from_before_the_login_may_log_in(make_store):
    """C6: the answer to the first login may be lost, so login begins a new session."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        visitor, before = await logged_in(site, clock)
        answer = await before.get("/?set=mine:1&login=ada")
        assert len(session_cookies(answer)) == 1
        assert (await before.get()).body == b'{"mine": "1"}'
        assert (await visitor.get()).body == b'{"k": "1"}'
        assert len(await site.manager.sessions_of("ada")) == 2


@on_every_store
async def test_a_cookie_from_before_the_login_ages(make_store):
    """C6: after a minute it is that of an ordinary new visitor; it ends no session."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        visitor, before = await logged_in(site, clock)
        clock.advance(60)
        assert len(session_cookies(await before.get("/?set=mine:1"))) == 1
        assert (await before.get()).body == b'{"mine": "1"}'
        assert (await visitor.get()).body == b'{"k": "1"}'
        assert site.store.calls.count("commit") == 1
