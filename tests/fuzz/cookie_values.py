"""Whom the carrier believes: what was signed, remembered or not, and nobody else (K1)."""

import time
from types import SimpleNamespace
from typing import Any

from tornado.httputil import HTTPHeaders
from tornado.web import Application, RequestHandler, create_signed_value

from fuzz.material import Material
from tornado_sessions import SessionManager
from tornado_sessions.carrier import CookieCarrier
from tornado_sessions.cookie import MAX_CANDIDATES, Ticket, encode
from tornado_sessions.stores.memory import MemoryStore

SECRET = "a secret made up for the tests"
SECRETS: tuple[dict[str, Any], ...] = (
    {"cookie_secret": SECRET},
    {"cookie_secret": {0: "x", 1: SECRET}, "key_version": 1},
)
TICKET = Ticket("h" * 22, "t" * 22, 7)


def signed(settings, text, age=0, name="session"):
    return create_signed_value(
        settings["cookie_secret"],
        name,
        text,
        key_version=settings.get("key_version"),
        clock=lambda: time.time() - age,
    ).decode()


class Signer:
    """A handler and its carrier, with one kind of secret, and a cookie that is good."""

    def __init__(self, settings):
        self.carrier = CookieCarrier(SessionManager(MemoryStore()))
        self.good = signed(settings, encode(TICKET))
        self.others = (
            signed(settings, "user=7"),
            signed(settings, encode(TICKET), age=40 * 86400),
            signed(settings, encode(TICKET), name="user"),
        )
        connection = SimpleNamespace(set_close_callback=lambda callback: None)
        request = SimpleNamespace(connection=connection, headers=HTTPHeaders())
        self.handler = RequestHandler(Application(**settings), request)

    def tickets(self, header):
        self.handler.request.headers["Cookie"] = header
        return self.carrier.tickets(self.handler)


SIGNERS = [Signer(settings) for settings in SECRETS]


def fuzz(data):
    material = Material(data)
    signer = material.choice(SIGNERS)
    values, good = [], 0
    while material and len(values) < MAX_CANDIDATES:
        kind = material.byte()
        if kind < 32:
            values.append(signer.good)
            good += 1
        elif kind < 64:
            values.append(material.choice(signer.others))
        elif kind < 192:
            values.append(changed(signer.good, material))
            good += values[-1] == signer.good
        else:
            values.append(material.raw().decode("latin-1").replace(";", ""))
    header = "; ".join(f"session={value}" for value in values)
    found = [ticket._replace(age=0.0) for ticket in signer.tickets(header)]
    assert found == [TICKET] * good


def changed(value, material):
    """Return *value* with a piece replaced, so that its end is what it was."""
    start = material.byte() % len(value)
    piece = material.raw().decode("latin-1").replace(";", "")
    end = start + material.byte() % 8
    other = value[:start] + piece + value[end:]
    # Quotes and blanks around a value are no part of it.
    return other if other.strip().strip('"') != value else value
