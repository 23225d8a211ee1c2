"""Answers that come late: none puts an outdated cookie into the browser (C3, C6, E4)."""

import asyncio

import pytest

from httpkit import Acts, acting, answered, serving, session_cookies, ticket_in
from httpkit_stores import FakeClock, Gate, on_every_store, on_waiting_stores, soon

AFTER, GRACE = 600, 30
ROTATING = {"session_rotate_after": AFTER, "session_rotate_grace": GRACE}


def serve(make_store, clock, handler=Acts, **settings):
    return serving(handler, make_store(clock=clock), **ROTATING, **settings)


async def late(slow, gate, quick):
    """Return the answer to *slow*, which waits at *gate* while *quick* is answered."""
    answer, other = await answered(slow, gate, quick)
    assert (answer.code, other.code) == (200, 200)
    return answer


@on_every_store
async def test_an_answer_that_extends_a_cookie_undoes_no_login(make_store):
    """C6: a persistent cookie from before the login is not sent again after it."""
    gate, clock = Gate(), FakeClock()
    handler = acting(a=gate)
    async with serve(make_store, clock, handler, session_persistent=True) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        slow = visitor.twin().get("/?touch=k&wait=a&set=slow:1")
        answer = await late(slow, gate, visitor.get("/?login=ada"))
        assert session_cookies(answer) == []
        visitor.keep(answer.headers)
        assert (await visitor.get()).body == b'{"k": "1", "slow": "1"}'
        assert (await site.record()).meta.principal == "ada"


def saving(gate):
    """Return a handler that can also save in between, and count."""

    class Saves(acting(a=gate)):
        async def act_save(self, _):
            await self.save_session()

        async def act_add(self, key):
            await self.session.mutate(key, lambda n: n + 1, default=0)

        async def act_refresh(self, _):
            await self.session.refresh()

    return Saves


@on_every_store
async def test_an_answer_after_a_save_undoes_no_login(make_store):
    """C6: the same if what the request changed was saved before the login."""
    gate, clock = Gate(), FakeClock()
    async with serve(make_store, clock, saving(gate), session_persistent=True) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        slow = visitor.twin().get("/?set=slow:1&save=1&wait=a")
        answer = await late(slow, gate, visitor.get("/?login=ada"))
        assert session_cookies(answer) == []
        visitor.keep(answer.headers)
        assert (await visitor.get()).body == b'{"k": "1", "slow": "1"}'


@on_every_store
async def test_an_answer_after_a_lost_race_undoes_no_login(make_store):
    """C6 C2: the same if the request learns of the login from a key that it changes."""
    gate, clock = Gate(), FakeClock()
    async with serve(make_store, clock, saving(gate), session_persistent=True) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        slow = visitor.twin().get("/?set=slow:1&save=1&wait=a&add=n")
        answer = await late(slow, gate, visitor.get("/?login=ada&add=n"))
        assert session_cookies(answer) == []
        visitor.keep(answer.headers)
        assert (await visitor.get()).body == b'{"k": "1", "n": 1, "slow": "1"}'


@on_every_store
async def test_a_session_that_begins_is_stored_once(make_store):
    """P7: nobody else can have replaced its token, so that is not asked again."""
    async with serve(make_store, FakeClock(), saving(Gate())) as site:
        answer = await site.visitor().get("/?set=k:1&save=1")
        assert len(session_cookies(answer)) == 1
        assert site.store.calls == ["commit"]


@on_every_store
async def test_an_answer_that_signs_a_cookie_anew_undoes_no_login(make_store):
    """C6 K1: what was signed with an old key is not sent again after a login."""
    gate, clock = Gate(), FakeClock()
    keys = {"cookie_secret": {0: "0" * 64, 1: "1" * 64}, "key_version": 0}
    async with serve(make_store, clock, acting(a=gate), **keys) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        site.application.settings["key_version"] = 1
        slow = visitor.twin().get("/?touch=k&wait=a")
        answer = await late(slow, gate, visitor.get("/?login=ada"))
        assert session_cookies(answer) == []
        visitor.keep(answer.headers)
        assert (await visitor.get()).body == b'{"k": "1"}'


async def left_behind(site, visitor, clock):
    """Let a token be replaced for its age; return a twin that kept the old one."""
    await visitor.get("/?set=k:1")
    twin = visitor.twin()
    clock.advance(AFTER)
    assert len(session_cookies(await visitor.get())) == 1
    return twin


@on_every_store
async def test_a_successor_undoes_no_login(make_store):
    """C6 E4: a successor that was handed out before the login is not sent after it."""
    gate, clock = Gate(), FakeClock()
    async with serve(make_store, clock, acting(a=gate)) as site:
        visitor = site.visitor()
        twin = await left_behind(site, visitor, clock)
        slow = twin.get("/?touch=k&wait=a")
        answer = await late(slow, gate, visitor.get("/?login=ada"))
        assert session_cookies(answer) == []
        visitor.keep(answer.headers)
        assert (await visitor.get()).body == b'{"k": "1"}'


async def rotates_too_late(site, visitor, clock, gate):
    """Return an answer under way whose rotation met another, and the gate it waits at."""
    await visitor.get("/?set=k:1")
    clock.advance(AFTER)
    slow = asyncio.ensure_future(visitor.twin().get("/?touch=k&wait=a"))
    await gate.arrival()
    await visitor.get()
    loading = site.store.park("load")
    gate.open()
    await loading.arrival()
    return slow, loading


@on_waiting_stores
async def test_a_successor_that_was_met_late_undoes_no_login(make_store):
    """C5 C6 E4: nor one that a request met when its own rotation came too late."""
    gate, clock = Gate(), FakeClock()
    async with serve(make_store, clock, acting(a=gate)) as site:
        visitor = site.visitor()
        slow, loading = await rotates_too_late(site, visitor, clock, gate)
        committing = site.store.park("commit")
        loading.open()
        await committing.arrival()
        await visitor.get("/?login=ada")
        committing.open()
        assert session_cookies(await soon(slow)) == []
        assert (await visitor.get()).body == b'{"k": "1"}'


@pytest.mark.parametrize(("data", "code"), [("", 200), ("&set=slow:1", 503)])
@on_waiting_stores
async def test_a_successor_undoes_no_login_where_the_store_fails(
    make_store, data, code
):
    """C6 E4 F1: nor where the store cannot be asked whether it is still the one."""
    gate, clock = Gate(), FakeClock()
    async with serve(make_store, clock, acting(a=gate)) as site:
        visitor = site.visitor()
        twin = await left_behind(site, visitor, clock)
        slow = asyncio.ensure_future(twin.get("/?touch=k&wait=a" + data))
        await gate.arrival()
        await visitor.get("/?login=ada")
        site.store.failing.add("commit")
        gate.open()
        answer = await soon(slow)
        site.store.failing.clear()
        assert (answer.code, session_cookies(answer)) == (code, [])
        assert (await visitor.get()).body == b'{"k": "1"}'


@on_waiting_stores
async def test_a_rotation_that_comes_too_late_where_the_store_fails(make_store):
    """C5 F1: what a request has read is answered, since nothing of it is lost."""
    gate, clock = Gate(), FakeClock()
    async with serve(make_store, clock, acting(a=gate)) as site:
        visitor = site.visitor()
        slow, loading = await rotates_too_late(site, visitor, clock, gate)
        site.store.failing.add("load")
        loading.open()
        answer = await soon(slow)
        site.store.failing.clear()
        assert (answer.code, answer.body) == (200, b'{"k": "1"}')
        assert session_cookies(answer) == []


@on_every_store
async def test_a_late_successor_is_the_one_of_then(make_store):
    """E4: an answer that took longer than the token lived carries the one after it."""
    gate, clock = Gate(), FakeClock()
    async with serve(make_store, clock, acting(a=gate)) as site:
        visitor = site.visitor()
        twin = await left_behind(site, visitor, clock)
        parked = asyncio.ensure_future(twin.get("/?touch=k&wait=a"))
        await gate.arrival()
        await visitor.get()
        clock.advance(AFTER)
        assert len(session_cookies(await visitor.get())) == 1
        gate.open()
        (morsel,) = session_cookies(await soon(parked))
        assert ticket_in(morsel) == ticket_in(visitor.cookie)


@pytest.mark.parametrize("persistent", [True, False])
@on_every_store
async def test_a_request_that_was_left_behind_for_long(make_store, persistent):
    """C5 E4: having read the session anew, it neither sends nor replaces a token.

    Its own was replaced twice meanwhile, so what it could send is outdated.
    """
    gate, clock = Gate(), FakeClock()
    settings = {"session_persistent": persistent}
    async with serve(make_store, clock, saving(gate), **settings) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        slow = visitor.twin().get("/?touch=k&wait=a&refresh=1&set=slow:1")
        answer = await late(slow, gate, overtakes(visitor, clock))
        assert session_cookies(answer) == []
        assert (await visitor.get()).body == b'{"k": "1", "slow": "1"}'
        await overtakes(visitor, clock)
        assert ("ended", "reuse") not in site.kinds


async def overtakes(visitor, clock):
    """Have the token replaced twice, and wait until it is due again."""
    await visitor.get()
    for _ in range(2):
        clock.advance(AFTER)
        assert len(session_cookies(await visitor.get())) == 1
        answer = await visitor.get()
    clock.advance(AFTER)
    return answer


@on_every_store
async def test_no_token_is_replaced_in_the_grace_of_the_one_before(make_store):
    """E4 E5: after a lost answer, a burst that began with the old token is no reuse.

    The successor is as old as the rotation that was lost, so it would be due at once,
    and what is under way with the token before it would be taken for theft.
    """
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        visitor = site.visitor()
        slow = await left_behind(site, visitor, clock)
        quick = slow.twin()
        clock.advance(AFTER)
        (first,) = session_cookies(await quick.get())
        assert session_cookies(await quick.get()) == []
        (again,) = session_cookies(await slow.get("/?set=k:2"))
        assert ticket_in(again) == ticket_in(first)
        assert (await quick.get()).body == b'{"k": "2"}'
        clock.advance(GRACE)
        assert len(session_cookies(await quick.get())) == 1
        assert ("ended", "reuse") not in site.kinds


@on_every_store
async def test_a_cookie_is_not_extended_just_before_it_is_replaced(make_store):
    """E4 K3: not within the grace before that; the answer could arrive after the new one.

    The next one extends it, or replaces it.
    """
    clock = FakeClock()
    async with serve(make_store, clock, session_persistent=True) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        first = ticket_in(visitor.cookie)
        clock.advance(AFTER - GRACE)
        (morsel,) = session_cookies(await visitor.get("/?set=k:2"))
        assert ticket_in(morsel) == first
        clock.advance(1)
        assert session_cookies(await visitor.get("/?set=k:3")) == []
        clock.advance(GRACE - 1)
        (morsel,) = session_cookies(await visitor.get())
        assert ticket_in(morsel).token != first.token
        assert (await visitor.get()).body == b'{"k": "3"}'


@on_every_store
async def test_a_cookie_that_is_overdue_is_extended_once(make_store):
    """E4 K3: the answer to who presents it first extends it; others may be too late."""
    clock = FakeClock()
    async with serve(make_store, clock, session_persistent=True) as site:
        visitor = site.visitor()
        await left_behind(site, visitor, clock)
        clock.advance(AFTER)
        (morsel,) = session_cookies(await visitor.get("/?set=k:2"))
        assert int(morsel["max-age"]) == site.manager.config.idle_timeout
        clock.advance(1)
        assert session_cookies(await visitor.get("/?set=k:3")) == []
        clock.advance(GRACE - 1)
        (replaced,) = session_cookies(await visitor.get())
        assert ticket_in(replaced).token != ticket_in(morsel).token


@on_waiting_stores
async def test_a_late_confirmation_is_not_that_of_another_token(make_store):
    """E4: a token that was never presented is not confirmed by one before it."""
    clock = FakeClock()
    async with serve(make_store, clock) as site:
        visitor = site.visitor()
        await left_behind(site, visitor, clock)
        twin = visitor.twin()
        gate = site.store.park("commit")
        parked = asyncio.ensure_future(twin.get())  # confirms, once it is let through
        await gate.arrival()
        await visitor.get()
        clock.advance(AFTER)
        assert len(session_cookies(await visitor.get())) == 1
        gate.open()
        await soon(parked)
        assert (await site.record()).meta.confirmed_at is None


@on_waiting_stores
async def test_a_record_that_another_request_replaced(make_store):
    """S6, C6: who finds it broken, and gone by then, clears no cookie that came since."""
    gate = Gate()
    async with serving(acting(a=gate), make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        site.store.unreadable.add((await site.record()).handle)
        slow = visitor.twin().get("/?touch=k&wait=a")
        late, quick = await answered(slow, gate, visitor.get("/?login=ada"))
        assert len(session_cookies(quick)) == 1
        assert session_cookies(late) == []
