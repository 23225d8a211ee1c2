"""What somebody with a planted cookie, an old socket or a long story can reach: nothing.

Whoever can plant a cookie in a browser, from another subdomain or over plain http, knows
a session that its owner will log in on.
"""

import asyncio

import pytest
from tornado.websocket import WebSocketClosedError

from httpkit import (
    Acts,
    Page,
    acting,
    answered,
    serving,
    session_cookies,
    signed,
    ticket_in,
)
from httpkit_stores import Gate, on_every_store
from socketkit import Socket, a_socket, connect, routes
from tornado_sessions import websocket
from tornado_sessions.cookie import encode

POLICY_VIOLATION = 1008


class Refreshes(Acts):
    """Also reads the session again."""

    async def act_refresh(self, _):
        await self.session.refresh()


async def planted_in(site, path="/"):
    """Return who knows a session, and who is about to log in on it."""
    planted = site.visitor()
    await planted.get(f"{path}?set=k:planted")
    return planted, planted.twin()


# -- requests that are under way while somebody logs in ------------------------------


@on_every_store
@pytest.mark.parametrize("keys", [None, [b"k" * 32]], ids=["plain", "encrypted"])
async def test_a_login_under_way_takes_nothing_over(make_store, keys):
    """C6: a login as somebody else, sent before, is not handed what came after."""
    gate = Gate()
    settings = {"session_encryption_keys": keys}
    async with serving(acting(a=gate), make_store(), **settings) as site:
        planted, victim = await planted_in(site)

        async def logs_in():
            await victim.get("/?login=victim")
            return await victim.get("/?set=address:secret")

        login = planted.get("/?wait=a&login=mallory")
        answer, _ = await answered(login, gate, logs_in())
        assert (answer.code, len(session_cookies(answer))) == (200, 1)
        assert (await planted.get("/?touch=k")).body == b'{"k": "planted"}'
        page = await victim.get("/?touch=k")
        assert page.body == b'{"address": "secret", "k": "planted"}'
        names = [record.meta.principal for record in await site.records()]
        assert sorted(names) == ["mallory", "victim"]


async def test_what_a_login_under_way_wrote_is_in_its_own_session():
    """C6 C1: what that request set and took away is in the session that it began."""
    gate = Gate()
    async with serving(acting(a=gate)) as site:
        planted, victim = await planted_in(site)
        login = planted.get("/?wait=a&login=bob&set=mine:1&set=k:changed")
        await answered(login, gate, victim.get("/?login=ada"))
        page = await planted.get("/?touch=k")
        assert page.body == b'{"k": "changed", "mine": "1"}'
        assert (await victim.get("/?touch=k")).body == b'{"k": "planted"}'
        assert [k for k in site.kinds if k[0] == "login"] == [("login", None)] * 2


@on_every_store
async def test_reading_again_puts_no_cookie_over_a_login(make_store):
    """C6: who reads again, finds a login and begins anew, replaces no cookie."""
    gate = Gate()
    handler = type("Waits", (Refreshes,), {"gates": {"a": gate}})
    async with serving(handler, make_store()) as site:
        planted, victim = await planted_in(site)
        slow = planted.get("/?wait=a&refresh=1&set=x:1")
        answer, _ = await answered(slow, gate, victim.get("/?login=victim"))
        assert (answer.code, session_cookies(answer)) == (200, [])
        assert len(await site.records()) == 1


# -- sockets that were opened before somebody logs in --------------------------------


@on_every_store
async def test_a_socket_from_before_a_login_ends_nothing(make_store):
    """C6 E5: nobody is logged out by a socket that is older than the login."""
    async with serving(routes(a_socket()), make_store()) as site:
        planted, victim = await planted_in(site, "/acts")
        socket = await connect(planted)
        await victim.get("/acts?login=victim")
        assert await socket.say("destroy") is None
        assert (await victim.get("/acts?touch=k")).body == b'{"k": "planted"}'
        assert ("dropped", "earlier epoch") in site.kinds


async def test_a_socket_of_a_login_under_way_is_watched():
    """W1 C6: a login at the handshake that got a session of its own ends with it."""
    gate = Gate()

    class LogsIn(Socket):
        async def prepare(self):
            await gate.pass_through()
            self.session.login("bob")

    async with serving(routes(LogsIn)) as site:
        planted, victim = await planted_in(site, "/acts")
        opening = asyncio.ensure_future(connect(planted))
        await gate.arrival()
        await victim.get("/acts?login=ada")
        gate.open()
        socket = await opening
        assert await site.manager.revoke_all("bob") == 1
        assert await socket.closed() == (POLICY_VIOLATION, "revoked")


# -- sockets that have to close ------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "sent"),
    [("x" * 500, "x" * 123), ("é" * 100, "é" * 61), ("\ud800", "?"), ("", "")],
    ids=["long", "cut between characters", "lone surrogate", "empty"],
)
async def test_any_reason_closes_the_socket(reason, sent):
    """W1: a reason that no close frame can hold is cut; the socket does not stay open."""
    handler = a_socket()
    async with serving(routes(handler)) as site:
        visitor = site.visitor()
        await visitor.get("/acts?login=alice")
        socket = await connect(visitor)
        assert await site.manager.revoke(ticket_in(visitor.cookie).handle, reason)
        assert await socket.closed() == (POLICY_VIOLATION, sent or None)


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_handler_that_fails_to_close(kind, caplog):
    """W1, ASVS 16.5.3: where on_session_end fails, the socket is closed all the same."""

    def fails(self, reason):
        raise RuntimeError("no")

    async def fails_later(self, reason):
        raise RuntimeError("no")

    handler = a_socket(on_session_end=fails if kind == "plain" else fails_later)
    async with serving(routes(handler)) as site:
        visitor = site.visitor()
        await visitor.get("/acts?login=alice")
        socket = await connect(visitor)
        await site.manager.revoke_all("alice")
        assert await socket.closed() == (POLICY_VIOLATION, None)
        assert [r.name for r in caplog.records] == ["tornado.application"]
        with pytest.raises(WebSocketClosedError):
            await handler.open_sockets[0].write_message("still there?")


async def test_a_client_that_does_not_let_go(monkeypatch, caplog):
    """W1: who keeps on_session_end waiting, by not reading, does not keep the socket."""
    monkeypatch.setattr(websocket, "TELLING_TIMEOUT", 0.01)

    async def waits(self, reason):
        await asyncio.get_running_loop().create_future()

    handler = a_socket(on_session_end=waits)
    async with serving(routes(handler)) as site:
        visitor = site.visitor()
        await visitor.get("/acts?login=alice")
        socket = await connect(visitor)
        await site.manager.revoke_all("alice")
        assert await socket.closed() == (POLICY_VIOLATION, None)
        assert handler.open_sockets[0].current_user is None
        assert "TimeoutError" in caplog.text


# -- ways in that are none -----------------------------------------------------------


async def test_a_token_is_taken_from_the_cookie_only():
    """K2: neither the address nor the body nor another header names a session."""
    async with serving(Acts) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:v")
        value = visitor.cookie
        site.store.forget()
        for path in [
            f"/?touch=k&touch=session%3D{value}",
            f"/;session={value}?touch=k",
        ]:
            assert (await site.visitor().get(path)).body == b"{}"
        headers = {"Authorization": f"Bearer {value}", "X-Session": value}
        assert (await site.visitor().get("/?touch=k", headers=headers)).body == b"{}"
        assert site.store.calls == []


async def test_the_cookie_is_the_only_place_for_a_token():
    """K3 S9: neither body nor any header but Set-Cookie carries it, at a login either."""
    async with serving(Acts) as site:
        visitor = site.visitor()
        answer = await visitor.get("/?set=k:v&login=alice")
        token = ticket_in(visitor.cookie).token
        assert session_cookies(answer)
        others = [pair for pair in answer.headers.get_all() if pair[0] != "Set-Cookie"]
        assert visitor.cookie not in answer.body.decode() + repr(others)
        assert token not in answer.body.decode() + repr(others)


async def test_a_session_begun_over_plain_http():
    """K3 E4: at the login over https the cookie is Secure, and what was heard is void."""
    async with serving(Acts) as site:
        visitor = site.visitor()
        (heard,) = session_cookies(await visitor.get("/?set=k:v"))
        assert heard["secure"] == ""
        https = {"X-Scheme": "https", **visitor.headers}
        (safe,) = session_cookies(await visitor.get("/?login=alice", headers=https))
        assert safe["secure"] is True
        eavesdropper = site.visitor(session=heard.value)
        assert (await eavesdropper.get("/?touch=k")).body == b"{}"


async def test_a_login_that_begins_with_nothing():
    """E4 C3: destroy() before login() leaves behind whatever was planted before."""
    async with serving(Acts) as site:
        planted, victim = await planted_in(site)
        await victim.get("/?destroy=1&login=victim&set=own:1")
        assert (await victim.get("/?touch=k")).body == b'{"own": "1"}'
        assert ticket_in(victim.cookie).handle != ticket_in(planted.cookie).handle
        assert (await planted.get("/?touch=k")).body == b"{}"
        assert len(await site.records()) == 1


async def test_a_post_from_another_site_is_refused():
    """T1: with xsrf_cookies, a form without the visitor's token changes nothing."""

    class Form(Page):
        def get(self):
            self.write(self.xsrf_token)

        def post(self):
            self.session["k"] = "v"

    async with serving(Form, xsrf_cookies=True) as site:
        visitor = site.visitor()
        token = (await visitor.get()).body.decode()
        assert (await visitor.post(body="")).code == 403
        assert await site.records() == []
        assert (await visitor.post(body=f"_xsrf={token}")).code == 200
        assert len(await site.records()) == 1


async def test_a_handle_in_a_cookie_of_ones_own():
    """§2, K2: a visitor's own good signature opens no session of another handle."""
    async with serving(Acts) as site:
        visitor, mallory = site.visitor(), site.visitor()
        await visitor.get("/?set=k:v")
        await mallory.get("/?set=mine:1")
        handle = ticket_in(visitor.cookie).handle
        mixed = ticket_in(mallory.cookie)._replace(handle=handle)
        stranger = site.visitor(session=signed(encode(mixed)))
        assert (await stranger.get("/?touch=k")).body == b"{}"
