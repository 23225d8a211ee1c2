"""What standards ask for and no rule of the design says so: see docs/requirements.md."""

import base64
import logging

import pytest

from httpkit import Acts, Page, serving, session_cookies, signed, ticket_in
from httpkit_stores import FakeClock, on_every_store
from tornado_sessions.cookie import encode

HOUR = 3600


class Trouble(Acts):
    """Also stores what cannot be stored, under a key of the visitor's choice."""

    async def act_break(self, key):
        self.session[key] = object()


@on_every_store
async def test_every_session_of_everybody_ends(make_store):
    """R4 E6, ASVS 7.4.5: who looks after the site can end all sessions there are."""
    async with serving(Acts, make_store()) as site:
        visitors = [site.visitor() for _ in range(5)]
        for number, visitor in enumerate(visitors):
            await visitor.get(f"/?set=k:v&login=user{number % 2}")
        await visitors[0].get("/?destroy=1&set=k:v")  # nobody's
        infos = [info async for info in site.manager.iterate()]
        ended = [await site.manager.revoke(info.handle) for info in infos]
        assert ended == [True] * 5
        assert await site.manager.count() == 0
        for visitor in visitors:
            assert (await visitor.get("/?touch=k")).body == b"{}"


@on_every_store
async def test_a_renewed_token_voids_the_one_before(make_store):
    """E4 C6, ASVS 7.2.4: after regenerate_id() the old cookie opens nothing, at once."""
    async with serving(Acts, make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:v&login=alice")
        before = visitor.twin()
        await visitor.get("/?renew=1")
        assert (await before.get("/?touch=k")).body == b"{}"
        assert (await visitor.get("/?touch=k")).body == b'{"k": "v"}'


@on_every_store
async def test_a_new_session_has_all_its_time(make_store):
    """E1, NIST 5.2: destroy() and login() again is a re-authentication: both clocks."""
    clock = FakeClock()
    settings = {"session_idle_timeout": HOUR, "session_absolute_timeout": HOUR}
    async with serving(Acts, make_store(clock=clock), **settings) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:old&login=alice")
        clock.advance(HOUR - 1)
        await visitor.get("/?destroy=1&set=k:new&login=alice")
        clock.advance(HOUR - 1)
        assert (await visitor.get("/?touch=k")).body == b'{"k": "new"}'
        clock.advance(1)
        assert (await visitor.get("/?touch=k")).body == b"{}"


async def test_a_cookie_ends_with_the_browser():
    """K3, NIST 5.1: unless it was asked for, a cookie is not persistent."""
    async with serving(Acts) as site:
        visitor = site.visitor()
        for query in ("set=k:v", "login=alice", "renew=1"):
            (morsel,) = session_cookies(await visitor.get(f"/?{query}"))
            assert (morsel["expires"], morsel["max-age"]) == ("", "")
        (morsel,) = session_cookies(await visitor.get("/?persist=1"))
        assert morsel["expires"]
        assert int(morsel["max-age"]) > 0


async def test_a_cookie_says_nothing_of_the_visitor():
    """K3, NIST 5.1.1: two random ids and a small number are all that it says."""
    async with serving(Acts) as site:
        visitor = site.visitor()
        await visitor.get("/?set=email:alice@example.com&login=alice")
        ticket = ticket_in(visitor.cookie)
        content = base64.b64decode(visitor.cookie.split("|")[4].split(":")[1])
        assert content.decode() == encode(ticket)
        assert (len(ticket.handle), len(ticket.token), ticket.epoch) == (22, 22, 0)
        assert b"alice" not in content


async def test_an_ended_session_is_forgotten_by_the_browser():
    """K4, NIST 5.1: the cookie of a session that is found to be over is cleared."""
    clock = FakeClock()
    async with serving(Acts) as site:
        site.store.clock = clock
        visitor = site.visitor()
        await visitor.get("/?set=k:v")
        cookies = dict(visitor.cookies)
        store = site.store
        clock.advance(HOUR)
        async with serving(Acts, store, session_idle_timeout=HOUR) as shorter:
            again = shorter.visitor(**cookies)
            assert (await again.get("/?touch=k")).body == b"{}"
            assert again.cookies == {}


LINES = "x\nERROR:root:forged\r\n\x1b[2J"


async def test_nobody_writes_lines_into_the_log(caplog):
    """S9, ASVS 16.4.1: keys, principals and cookies come as one line, however they are."""
    caplog.set_level(logging.DEBUG)
    async with serving(Trouble) as site:
        visitor = site.visitor()
        await visitor.get("/", headers={"User-Agent": "x"})
        for action in ("set", "login", "break"):
            await visitor.get(f"/?{action}=x%0AERROR:root:forged%0D%0A%1B[2J")
        site.store.unreadable.add(ticket_in(visitor.cookie).handle)
        await visitor.get("/?touch=k")
        await site.visitor(session=signed(LINES)).get("/?touch=k")
    ours = [r for r in caplog.records if r.name.startswith("tornado_sessions")]
    assert ours
    for record in ours:
        assert record.getMessage().isprintable()
    assert "\nERROR:root:forged" not in caplog.text


@pytest.mark.parametrize("path", ["/", "/missing/page"])
async def test_error_pages_tell_nothing(path):
    """S9, ASVS 16.5.1: the page of a store that failed says no more than its number."""

    class Shows(Page):
        def get(self):
            self.write(str(self.session.get("k")))

    async with serving([(r"/", Shows), (r"/acts", Acts)]) as site:
        visitor = site.visitor()
        await visitor.get("/acts?set=k:secret")
        site.store.failing = {"load"}
        page = await visitor.get(path)
        assert page.code == (503 if path == "/" else 404)
        for word in ("Traceback", "StoreError", "commit", "secret", visitor.cookie):
            assert word not in page.body.decode()
