"""Nothing that opens a session, and nothing of its content, is told to anybody (S9)."""

import logging

import pytest

from httpkit import Acts, serving, signed, ticket_in
from httpkit_stores import FakeClock, on_every_store
from test_encryption import NEW, OLD, RAW
from test_http_values import break_value
from tornado_sessions.cookie import encode

VALUE = "the-secret-value"


class Acting(Acts):
    """Collects what a developer may print, and fails in all the ways there are."""

    printed: list

    def prepare(self):
        self.printed += [repr(self.session), str(self.session), f"{[self.session]}"]

    async def act_secret(self, number):
        self.session["k"] = VALUE + number

    async def act_crash(self, _):
        raise RuntimeError("a bug of the application")

    async def act_unstorable(self, _):
        self.session["k"] = [VALUE, object()]

    async def act_large(self, _):
        self.session["k"] = VALUE * 100_000

    async def act_late(self, _):
        await self.flush()
        self.session["k"] = VALUE

    async def act_save(self, _):
        await self.flush()
        self.session["k2"] = VALUE
        await self.save_session()

    def on_finish(self):
        self.printed += [repr(self.session), repr(self.session.record)]


async def trouble(site, clock):
    """Drive a visitor through everything that is logged; return the secrets."""
    secrets = {VALUE}
    visitor = site.visitor()
    for query in ("secret=1", "login=ada", "crash=1", "unstorable=1", "large=1"):
        await visitor.get(f"/?{query}")
        secrets |= {visitor.cookie, ticket_in(visitor.cookie).token}
    for query in ("late=1", "save=1"):
        await visitor.get(f"/?{query}")
        await site.visitor().get(f"/?{query}")
    old = visitor.twin()
    clock.advance(600)
    await visitor.get()
    await visitor.get()
    secrets |= {visitor.cookie, ticket_in(visitor.cookie).token}
    site.store.failing = {"commit"}
    await visitor.get("/?secret=2")
    site.store.failing = {"load"}
    await visitor.get()
    site.store.failing = set()
    clock.advance(600)
    await old.get()
    await visitor.get()
    return secrets


async def undecodable(site):
    visitor = site.visitor()
    await visitor.get("/?secret=1")
    ticket = ticket_in(visitor.cookie)
    await break_value(site)
    await visitor.get("/?touch=bad")
    await site.visitor(session=signed(encode(ticket))).get()
    return {ticket.token}


@pytest.mark.parametrize("keys", [None, [NEW, OLD]], ids=["plain", "encrypted"])
@on_every_store
async def test_no_secret_is_logged_or_shown(make_store, keys, caplog):
    """S9: logs, events, reprs and error pages show handles and key names only."""
    caplog.set_level(logging.DEBUG)
    clock = FakeClock()
    printed: list[str] = []
    handler = type("Acting", (Acting,), {"printed": printed})
    store = make_store(clock=clock)
    settings = {"session_rotate_after": 600, "serve_traceback": False}
    settings["session_encryption_keys"] = keys
    async with serving(handler, store, **settings) as site:
        secrets = await trouble(site, clock)
        kinds = {event.kind for event in site.events}
        await site.store.clear()
        secrets |= await undecodable(site)
        told = [repr(event) for event in site.events]
        told += [repr(site.manager), repr(site.manager.config), repr(site.store.inner)]
        told += [repr(info) async for info in site.manager.iterate()]
    assert {"created", "login", "rotated", "ended"} <= kinds
    for words in ("a replaced token", "dropped the session", "no commit today"):
        assert words in caplog.text
    assert "<Session handle=" in "".join(printed)
    shown = [*told, *printed]
    shown += [r.getMessage() for r in caplog.records]
    shown.append(caplog.text)
    for secret in secrets | {NEW, OLD, repr(RAW)[2:-1], RAW.hex()}:
        assert [text for text in shown if secret in text] == []
