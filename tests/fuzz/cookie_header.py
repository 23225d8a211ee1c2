"""Which values a Cookie header has for the name, and what a verified one says (K2)."""

from tornado_sessions.cookie import (
    MAX_CANDIDATES,
    MAX_VALUE,
    Ticket,
    candidates,
    decode,
    encode,
)

NAMES = ("session", "__Host-session", "$e.s+s^i*o|n")


def fuzz(data):
    header = data.decode("latin-1")
    for name in NAMES:
        found = candidates(header, name)
        assert len(found) <= MAX_CANDIDATES
        assert all(0 < len(one) <= MAX_VALUE for one in found)
        assert all(";" not in one and one in header for one in found)
    read(data)
    read(data[:48])


def read(inner):
    ticket = decode(inner)
    if ticket is not None:
        assert type(ticket) is Ticket
        assert encode(ticket).encode() == inner
        assert ticket.token in ticket.handle or ticket.token not in repr(ticket)


def grown(size):
    yield b"session=;" * (size // 9)
    yield b"session" * (size // 7)
    yield b";" * size
    yield b"; " * (size // 2)
    yield b";" + b" " * size
    yield b";session" + b" " * size
    yield b"; session" * (size // 9)
    yield b";session=" + b'"' * size
    yield b";session=" + b" " * size
    yield (b";" + b" " * 60 + b"session" + b" " * 60) * (size // 128)
