"""Cookies that nobody should send: anonymous, no error, no store call (K1, K2)."""

import asyncio
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from httpkit import SECRET, Counter, serving, session_cookies, signed, ticket_in
from httpkit_stores import AsyncStore, on_both_paths
from tornado_sessions.cookie import Ticket, encode
from tornado_sessions.tokens import random_id

DAY = 86400


def unknown():
    """Return the text of a ticket that no store knows."""
    return encode(Ticket(random_id(), random_id(), 0))


def flipped(value):
    """Change the last digit of the signature."""
    return value[:-1] + ("0" if value[-1] != "0" else "1")


def aged(days):
    return signed(unknown(), clock=lambda: time.time() - days * DAY)


FORGED = {
    "garbage": lambda: "garbage",
    "empty": lambda: "",
    "quotes": lambda: '""',
    "bars": lambda: "2|1:0|10:1|7:session|0:|" + "0" * 64,
    "lengths": lambda: "2|99999999999999999999:0|",
    "minus": lambda: "2|-1:0|10:1|7:session|0:|0",
    "key": lambda: signed(unknown()).replace("|1:0|", "|1:7|", 1),
    "version": lambda: signed(unknown()).replace("2|", "3|", 1),
    "other secret": lambda: signed(unknown(), secret="another"),
    "other name": lambda: signed(unknown(), name="user"),
    "version 1": lambda: signed(unknown(), version=1),
    "flipped": lambda: flipped(signed(unknown())),
    "cut": lambda: signed(unknown())[:-10],
    "oversized": lambda: signed(unknown() * 100),
    "too old": lambda: aged(31),
    "not a ticket": lambda: signed("user=7"),
    "longer": lambda: signed(unknown() + "AAA"),
    "latin": lambda: "\xe9\xff",
}


@pytest.mark.parametrize("kind", FORGED)
@pytest.mark.parametrize("secret", [SECRET, {0: SECRET, 1: "new"}], ids=["str", "dict"])
async def test_forged_cookies_are_anonymous(kind, secret):
    """K1 K2 S1: no error and no store call for a value that does not verify."""
    versions = {"cookie_secret": secret}
    if isinstance(secret, dict):
        versions["key_version"] = 1
    async with serving(Counter, **versions) as site:
        visitor = site.visitor(session=FORGED[kind]())
        answer = await visitor.get()
        assert (answer.code, answer.body) == (200, b'{"n": null}')
        assert session_cookies(answer) == []
        assert site.store.calls == []
        answer = await visitor.post()
        assert (answer.code, len(session_cookies(answer))) == (200, 1)
        assert (await visitor.get()).body == b'{"n": 1}'


@on_both_paths
async def test_a_valid_cookie_of_an_unknown_session_is_not_adopted(make_store):
    """K2: one load; what begins then has another handle, and the event says why."""
    async with serving(Counter, make_store()) as site:
        visitor = site.visitor(session=signed(unknown()))
        planted = ticket_in(visitor.cookie)
        answer = await visitor.get()
        assert (answer.code, session_cookies(answer)) == (200, [])
        assert site.store.calls == ["load"]
        assert site.kinds == [("refused", "unknown")]
        await visitor.post()
        assert ticket_in(visitor.cookie).handle != planted.handle
        assert ticket_in(visitor.cookie).token != planted.token
        assert site.store.record.handle != planted.handle


@on_both_paths
async def test_a_wrong_token_opens_nothing(make_store):
    """K2 E5: knowing the handle opens nothing, though the signature be good."""
    async with serving(Counter, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        ticket = ticket_in(visitor.cookie)._replace(token=random_id())
        answer = await site.visitor(session=signed(encode(ticket))).get()
        assert answer.body == b'{"n": null}'


async def with_cookies(visitor, *values):
    header = "; ".join(f"session={value}" for value in values)
    return await visitor.get(headers={"Cookie": header})


DECOYS = {
    "forged": lambda: ["garbage", flipped(signed(unknown()))],
    "unknown": lambda: [signed(unknown())],
    "many": lambda: [flipped(signed(unknown())) for _ in range(20)],
}


@pytest.mark.parametrize("decoys", DECOYS)
@pytest.mark.parametrize("first", [True, False])
@on_both_paths
async def test_the_first_duplicate_that_resolves_wins(make_store, decoys, first):
    """K2: planted cookies of the same name do not shadow the real one, in any order."""
    async with serving(Counter, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        others, real = DECOYS[decoys](), [visitor.cookie]
        values = real + others if first else others + real
        site.store.forget()
        answer = await with_cookies(site.visitor(), *values)
        assert answer.body == b'{"n": 1}'
        assert session_cookies(answer) == []
        assert site.store.calls == ["load"]


@pytest.mark.parametrize("order", [1, -1])
@on_both_paths
async def test_of_two_good_duplicates_the_first_wins(make_store, order):
    """K2: browsers send the most specific cookie first, so that is the one."""
    async with serving(Counter, make_store()) as site:
        one, two = site.visitor(), site.visitor()
        await one.post()
        await two.post()
        await two.post()
        answer = await with_cookies(site.visitor(), *[one.cookie, two.cookie][::order])
    assert answer.body == (b'{"n": 1}' if order == 1 else b'{"n": 2}')


DICT_SECRET = {"cookie_secret": {0: "old", 1: SECRET}, "key_version": 1}
PIECES = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([b"session=", b"2|1:0|", b"; ", b'"', b"=", b"session", b"\\073"]),
)
HEADERS = st.lists(PIECES, max_size=8).map(b"".join)
LINE_ENDS = b"\r\n"
CONTROLS = {*range(0x20), 0x7F} - set(b"\t")


@settings(max_examples=300, deadline=None)
@given(HEADERS)
@example(b"session=" + b"\xff" * 300)
@example(b"session=2|1:1|10:9999999999|7:session|4:AAAA|" + b"a" * 64)
def test_any_bytes_as_a_cookie(header):
    """K2: whatever the header holds: no 5xx, and no store call without a signature."""
    header = header.translate(None, LINE_ENDS)
    statuses, calls = sent_raw(header)
    assert calls == []
    # Control characters are refused before the request has a handler.
    assert statuses == [400 if CONTROLS & set(header) else 200] * 2


def sent_raw(header):
    """Send a Cookie header as it is, with both kinds of secret."""
    return asyncio.run(_sent_raw(header))


async def _sent_raw(header):
    statuses, store = [], AsyncStore()
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: %s\r\n\r\n"
    for secret in ({"cookie_secret": SECRET}, DICT_SECRET):
        async with serving(Counter, store, **secret) as site:
            answer = await site.exchange(request % header)
            statuses.append(int(answer.split(b" ", 2)[1]))
    return statuses, store.calls
