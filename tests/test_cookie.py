"""The text in the cookie, and how it is found among others (K2, K3)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.httputil import parse_cookie

from tornado_sessions.cookie import MAX_VALUE, Ticket, candidates, decode, encode
from tornado_sessions.tokens import random_id

unhurried = settings(deadline=None)
EPOCHS = st.integers(0, 2**24 - 1)


@unhurried
@given(EPOCHS)
def test_a_ticket_comes_back(epoch):
    """K3: encoding keeps handle, token and epoch, in 48 characters."""
    ticket = Ticket(random_id(), random_id(), epoch)
    text = encode(ticket)
    assert decode(text.encode()) == ticket
    assert len(text) == 48


@unhurried
@given(st.binary(max_size=60))
def test_foreign_bytes_are_no_ticket(inner):
    """K2: what was signed for something else is not taken for a ticket."""
    ticket = decode(inner)
    assert ticket is None or encode(ticket).encode() == inner


@pytest.mark.parametrize("change", [b"", b"=", b"\n", b"\x00", b"AAAA"])
def test_a_ticket_of_another_length_is_none(change):
    """K2: nothing may follow the ticket."""
    text = encode(Ticket(random_id(), random_id(), 1)).encode()
    if change:
        assert decode(text + change) is None
    assert decode(text[:-1]) is None


def test_the_repr_of_a_ticket_is_harmless():
    """S9: the repr of a ticket shows the handle and not the token."""
    ticket = Ticket("the-handle", "the-token", 3)
    assert repr(ticket) == "Ticket(handle='the-handle', epoch=3)"
    assert "the-token" not in f"{ticket} {[ticket]}"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", []),
        ("session=a", ["a"]),
        ("a=1; session=b; c=2", ["b"]),
        ("session=a; session=b", ["a", "b"]),
        ('session="a|b"', ["a|b"]),
        (" session = a ;session=b", ["a", "b"]),
        ("session=a=b", ["a=b"]),
        ("xsession=a; sessions=b; session", []),
        ("session=; session=a", ["a"]),
        ("Session=a", []),
        (f"session={'x' * MAX_VALUE}", ["x" * MAX_VALUE]),
        (f"session={'x' * (MAX_VALUE + 1)}; session=a", ["a"]),
    ],
)
def test_every_value_of_the_name_is_a_candidate(header, found):
    """K2: all duplicates are found, in their order; what is oversized is left out."""
    assert candidates(header, "session") == found


@unhurried
@given(st.text())
def test_what_tornado_finds_is_among_the_candidates(header):
    """K2: for any header, Tornado's own reading is one of the candidates.

    But for cookies whose name has odd spaces around it, which Tornado takes away.
    """
    header = f"{header}; session ={header}"
    value = parse_cookie(header).get("session", "")
    if value.isascii() and value.isalnum():
        assert value in candidates(header, "session")


@unhurried
@given(st.lists(st.sampled_from("ab;= \"'\\,\x00é"), max_size=30).map("".join))
def test_candidates_are_never_an_error(text):
    """K2: any text gives a list of bounded strings."""
    header = f"session={text}; session={text}"
    assert all(0 < len(one) <= MAX_VALUE for one in candidates(header, "session"))
