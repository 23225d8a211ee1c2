"""Idle, absolute, extension: what the clocks do to visitors (E1-E3), with a fake one."""

from email.utils import parsedate_to_datetime

import pytest

from httpkit import Acts, Page, serving, session_cookies, ticket_in
from httpkit_stores import FakeClock, on_every_store

MINUTE, HOUR, DAY = 60, 3600, 86400


def serve(make_store, clock, **settings):
    return serving(Acts, make_store(clock=clock), **settings)


@on_every_store
async def test_idle_ends_what_is_not_used(make_store):
    """E1: a session lives as long as it is used within the idle timeout, then ends."""
    clock = FakeClock()
    async with serve(make_store, clock, session_idle_timeout=10 * MINUTE) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        for _ in range(5):
            clock.advance(10 * MINUTE - 1)
            assert (await visitor.get()).body == b'{"k": "1"}'
        clock.advance(10 * MINUTE)
        answer = await visitor.get()
        assert answer.body == b"{}"
        assert site.kinds[-1][0] in {"ended", "refused"}
    assert session_cookies(answer) == []


@pytest.mark.parametrize("action", ["set=k:2", "login=ada", "renew=1"])
@on_every_store
async def test_absolute_ends_what_is_used(make_store, action):
    """E1: the absolute timeout ends a session in use; no login or rotation moves it."""
    clock = FakeClock()
    settings = {"session_absolute_timeout": HOUR, "session_rotate_after": 7 * MINUTE}
    async with serve(make_store, clock, **settings) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        handle, tokens = (await site.record()).handle, set()
        for _ in range(5):
            clock.advance(9 * MINUTE)
            await visitor.get()
            clock.advance(MINUTE)
            await visitor.get(f"/?{action}")
            tokens.add((await site.record()).meta.token)
        assert len(tokens) == 5
        assert (await site.record()).handle == handle
        clock.advance(10 * MINUTE - 1)
        assert (await visitor.get()).body != b"{}"
        clock.advance(1)
        assert (await visitor.get()).body == b"{}"


@on_every_store
async def test_shortened_timeouts_hold_for_old_sessions(make_store):
    """E1, E6: the clocks as configured now are enforced, and the end is told once."""
    clock = FakeClock()
    store = make_store(clock=clock)
    for timeout in ("idle", "absolute"):
        async with serving(Acts, store) as site:
            visitor = site.visitor()
            await visitor.get("/?set=k:1")
        clock.advance(HOUR)
        async with serving(Acts, store, **{f"session_{timeout}_timeout": HOUR}) as site:
            answer = await site.visitor(**visitor.cookies).get()
            assert answer.body == b"{}"
            assert site.kinds == [("ended", timeout)]
            await site.visitor(**visitor.cookies).get()
            assert site.kinds == [("ended", timeout), ("refused", "unknown")]


def cookie_end(morsel):
    return parsedate_to_datetime(morsel["expires"]).timestamp()


@on_every_store
async def test_expiry_is_one_value(make_store):
    """E2 K3: record and cookie end at the lesser of idle and absolute, to the second."""
    clock = FakeClock()
    settings = {
        "session_idle_timeout": 10 * MINUTE,
        "session_absolute_timeout": 25 * MINUTE,
        "session_persistent": True,
    }
    async with serve(make_store, clock, **settings) as site:
        visitor, start = site.visitor(), clock()
        ends = []
        for _ in range(4):
            (morsel,) = session_cookies(await visitor.get("/?set=k:1"))
            end = (await site.record()).meta.expires_at
            assert cookie_end(morsel) == end
            assert int(morsel["max-age"]) == end - clock()
            ends.append(end - start)
            clock.advance(6 * MINUTE)
    assert ends == [10 * MINUTE, 16 * MINUTE, 22 * MINUTE, 25 * MINUTE]


@on_every_store
async def test_reading_extends_once_per_share(make_store):
    """E3 S2 P7: reading writes once per 5 % of the idle timeout, and no cookie."""
    clock = FakeClock()
    async with serve(make_store, clock, session_idle_timeout=100 * MINUTE) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        commits = []
        for _ in range(20):
            clock.advance(MINUTE)
            site.store.forget()
            answer = await visitor.get()
            assert session_cookies(answer) == []
            commits.append(site.store.calls.count("commit"))
        assert (await site.record()).meta.expires_at == clock() + 100 * MINUTE
    assert commits == [0, 0, 0, 0, 1] * 4


@on_every_store
async def test_reading_extends_at_least_each_hour(make_store):
    """E3: with a long idle timeout an extension is written after an hour at most."""
    clock = FakeClock()
    async with serve(make_store, clock, session_idle_timeout=14 * DAY) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        for seconds, calls in [(HOUR - 1, ["load"]), (1, ["load", "commit"])]:
            clock.advance(seconds)
            site.store.forget()
            await visitor.get()
            assert site.store.calls == calls


@on_every_store
async def test_a_request_that_ignores_the_session_extends_it(make_store):
    """E3: being used is enough; the handler need not look at the session."""

    class Ignores(Page):
        def post(self):
            self.session["k"] = 1

        def get(self):
            self.write("hello")

    clock = FakeClock()
    settings = {"session_idle_timeout": 10 * MINUTE}
    async with serving(Ignores, make_store(clock=clock), **settings) as site:
        visitor = site.visitor()
        await visitor.post()
        clock.advance(5 * MINUTE)
        site.store.forget()
        answer = await visitor.get()
        assert site.store.calls == ["load", "commit"]
        assert (await site.record()).meta.expires_at == clock() + 10 * MINUTE
    assert "Vary" not in answer.headers


@on_every_store
async def test_a_persistent_cookie_is_sent_again_when_extended(make_store):
    """K3 E3: the cookie of "remember me" keeps up with the server side."""
    clock = FakeClock()
    async with serve(make_store, clock, session_idle_timeout=100 * MINUTE) as site:
        visitor = site.visitor()
        (first,) = session_cookies(await visitor.get("/?set=k:1&persist=1"))
        assert first["max-age"] == str(100 * MINUTE)
        clock.advance(4 * MINUTE)
        assert session_cookies(await visitor.get()) == []
        clock.advance(MINUTE)
        (again,) = session_cookies(await visitor.get())
        assert cookie_end(again) == clock() + 100 * MINUTE
        assert ticket_in(again) == ticket_in(first)
        (ended,) = session_cookies(await visitor.get("/?persist=0"))
        assert (ended["max-age"], ended["expires"]) == ("", "")
        clock.advance(50 * MINUTE)
        assert session_cookies(await visitor.get()) == []
