"""Cookies that were verified before are known again, and only those (K1, K2)."""

import time

import pytest
from tornado.web import create_signed_value

from httpkit import SECRET, acting, serving
from httpkit_stores import PATIENCE
from tornado_sessions.cookie import decode
from tornado_sessions.verified import REMEMBERED, VerifiedCookies

DAY = 86400
CONTENT = b"h" * 48
TICKET = decode(CONTENT)


def signed(content=CONTENT, secret=SECRET, **options):
    return create_signed_value(secret, "session", content, **options).decode()


def same(ticket):
    """Tell whether *ticket* is ours, whatever its age."""
    return ticket is not None and ticket._replace(age=0.0) == TICKET


@pytest.fixture
def known():
    return VerifiedCookies(DAY)


def test_what_was_verified_is_recalled(known):
    """K1: with its content; what was not is left to Tornado."""
    value = signed()
    assert known.recall(value, SECRET) is None
    known.remember(value, SECRET, TICKET)
    assert same(known.recall(value, SECRET))
    assert known.recall(signed(b"x" * 48), SECRET) is None


@pytest.mark.parametrize("place", range(0, 160, 7))
def test_each_character_counts(known, place):
    """K2: a value that differs anywhere was not verified."""
    value = signed()
    known.remember(value, SECRET, TICKET)
    place %= len(value)
    other = "0" if value[place] != "0" else "1"
    assert known.recall(value[:place] + other + value[place + 1 :], SECRET) is None


def test_an_old_value_is_too_old(known):
    """K1: its age is looked at each time."""
    value = signed(clock=lambda: time.time() - DAY - 1)
    known.remember(value, SECRET, TICKET)
    assert known.recall(value, SECRET) is None
    value = signed(clock=lambda: time.time() - DAY + 60)
    known.remember(value, SECRET, TICKET)
    assert same(known.recall(value, SECRET))


def test_how_old_it_is(known):
    """K3: a ticket says so when it is verified, and each time it is recalled."""
    value = signed(clock=lambda: time.time() - 1000)
    ages = [known.remember(value, SECRET, TICKET).age, known.recall(value, SECRET).age]
    assert all(1000 <= age < 1000 + PATIENCE for age in ages)


def test_another_secret(known):
    """K1: what one secret verified, another one has to verify again."""
    value = signed()
    known.remember(value, SECRET, TICKET)
    assert known.recall(value, "another secret") is None
    known.remember(signed(secret="another secret"), "another secret", TICKET)
    assert known.recall(value, SECRET) is None


def test_a_key_that_is_taken_away(known):
    """K1: also if the dict that holds the keys is changed in its place."""
    keys = {1: "first secret", 2: "second secret"}
    value = signed(secret=keys, key_version=1)
    known.remember(value, keys, TICKET)
    assert same(known.recall(value, keys))
    del keys[1]
    assert known.recall(value, keys) is None


def test_it_is_bounded(known):
    """K2: the oldest are forgotten; those in use are not."""
    first = signed()
    known.remember(first, SECRET, TICKET)
    for number in range(3 * REMEMBERED):
        known.remember(f"2|1:0|10:9999999999|7:session|4:YWJj|{number}", SECRET, TICKET)
        if number % 1000 == 0:
            assert same(known.recall(first, SECRET))
    assert len(known._recent) + len(known._before) <= REMEMBERED
    for number in range(REMEMBERED):
        known.remember(
            f"2|1:0|10:9999999999|7:session|4:YWJj|x{number}", SECRET, TICKET
        )
    assert known.recall(first, SECRET) is None


def test_it_keeps_no_secret(known):
    """S9: a dump of the memory of the server shows no cookie that opens a session."""
    value = signed()
    known.remember(value, SECRET, TICKET)
    kept = repr([known._recent, known._before, known._key])
    assert value[-20:] not in kept
    assert CONTENT.decode() not in kept


async def test_requests_know_their_cookie():
    """K1, K2: one visitor's second request, and a forger's."""
    async with serving(acting()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        for _ in range(3):
            assert (await visitor.get("/?touch=k")).body == b'{"k": "1"}'
        good = visitor.cookie
        forged = good[:-1] + ("0" if good[-1] != "0" else "1")
        answer = await site.visitor(session=forged).get("/?touch=k")
        assert answer.body == b"{}"
