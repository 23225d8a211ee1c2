"""Over the whole run of the suite: is anything secret told to anybody (S9)?

What is a secret: each token that the library issued or was shown, as it is and as it
stands in the signed cookie, those that the servers of tests issued in processes of their
own included; and each piece of a stored value that is long and odd enough to be recognised.

What is told: each log record of every logger, wanted or not, with its traceback; each
traceback that `serve_traceback` would show; each body of an error page; each warning; what
a test, or a server that it started, leaves on stderr; each event; each exception of ours; and the repr of each session,
with its record, ticket and plan, as often as one is about to be stored.

A secret is 22 characters long, like a token. Of what is told, only pieces of that form and
length are kept, so the run may be of any length; and who was first, the secret or the
words, makes no difference.
"""

import base64
import contextlib
import logging
import os
import re
import sys
import traceback

import pytest
from tornado.http1connection import HTTP1Connection
from tornado.httputil import ResponseStartLine
from tornado.simple_httpclient import _HTTPConnection
from tornado.web import RequestHandler

from tornado_sessions import SessionError, tokens
from tornado_sessions.codecs import JSONCodec
from tornado_sessions.cookie import decode
from tornado_sessions.events import Events, SessionEvent
from tornado_sessions.plan import Planner

SIZE = 22
"""Characters of a token: 128 bits."""
LONGEST = 2000
"""Characters of one run in which a secret is looked for."""
_RUN = re.compile(rf"[A-Za-z0-9_-]{{{SIZE},}}")
_RAW_RUN = re.compile(rb"[A-Za-z0-9_-]{%d,}" % SIZE)
_SIGNED = re.compile(r"=2(?:\|[^|;]*){3}\|\d+:([A-Za-z0-9+/=]+)\|")
"""What Tornado signed: the version, a key, a time, a name, and then the content."""
_PLAIN = 6
"""A piece of a value with fewer different characters is no secret: ``xxxx``."""


class Watch:
    """What is secret, and what was told."""

    def __init__(self):
        self.secrets = {}
        """What each is, by its text."""
        self.told = {}
        """Where each piece was told first, and by what."""
        self.kinds = set()
        """The ways in which anything was told."""

    def token(self, token):
        """Keep a secret that is one as a whole."""
        self.secrets[token] = "token"
        # In the cookie it is base64, after 22 characters that are none of it.
        signed = base64.b64encode(token[2:20].encode()).decode()
        self.secrets[signed[:SIZE]] = "cookie"

    def cookie(self, header):
        """Keep the token in a ``Set-Cookie`` header that somebody got, if there is one."""
        for content in _SIGNED.findall(header):
            ticket = decode(base64.b64decode(content))
            if ticket is not None:
                self.token(ticket.token)

    def value(self, raw):
        """Keep what is recognisable of an encoded value."""
        for run in _RAW_RUN.findall(raw):
            piece = run[:SIZE].decode()
            if len(set(piece)) >= _PLAIN:
                self.secrets.setdefault(piece, "value")

    def tell(self, kind, text):
        """Hear what somebody may read."""
        self.kinds.add(kind)
        for run in _RUN.findall(text):
            for start in range(min(len(run), LONGEST) - SIZE + 1):
                piece = run[start : start + SIZE]
                if piece not in self.told:
                    test = os.environ.get("PYTEST_CURRENT_TEST", "no test")
                    self.told[piece] = (kind, test)

    def leaks(self):
        """Return what should not have been told: which secret, by what, in which test."""
        return [
            (secret, self.secrets[secret], *self.told[secret])
            for secret in self.secrets.keys() & self.told.keys()
        ]


_watches: list[Watch] = []


def watch():
    """Return the watch that is on: the last one, so that a test can have its own."""
    return _watches[-1]


def tell(kind, text):
    """Let the watch hear, if there is one."""
    if _watches:
        watch().tell(kind, text)


@contextlib.contextmanager
def watching():
    """Have a watch for a while; those before it hear nothing meanwhile."""
    with contextlib.ExitStack() as stack:
        if not _watches:
            _listen_in(stack.enter_context(pytest.MonkeyPatch.context()))
        _watches.append(Watch())
        stack.callback(_watches.pop)
        yield watch()


def _listen_in(patch):
    for module in list(sys.modules.values()):
        if getattr(module, "digest", None) is _real_digest:
            patch.setattr(module, "digest", _digest)
    for owner, name, before, after in (
        (JSONCodec, "encode", None, lambda raw, *_: watch().value(raw)),
        (Planner, "plan", None, _planned),
        (Events, "emit", _emitted, None),
        (Events, "tell", _emitted_whole, None),
        (SessionError, "__init__", None, lambda _, error, *rest: _failed(error)),
        (RequestHandler, "send_error", _sent_error, None),
        (_HTTPConnection, "headers_received", _received, None),
        (HTTP1Connection, "write_headers", _wrote_headers, None),
        (HTTP1Connection, "write", _wrote, None),
    ):
        patch.setattr(owner, name, _around(getattr(owner, name), before, after))
    _hear_all_loggers(patch)


def _around(original, before, after):
    """Return *original* with something done before it, or after with its result."""

    def method(*args, **kwargs):
        if before is not None:
            before(*args, **kwargs)
        result = original(*args, **kwargs)
        if after is not None:
            after(result, *args, **kwargs)
        return result

    return method


_real_digest = tokens.digest


def _digest(token):
    watch().token(token)
    return _real_digest(token)


def _received(_connection, _first_line, headers):
    for header in headers.get_list("Set-Cookie"):
        watch().cookie(header)


def _planned(plan, _planner, session, **_):
    for one in (session, session.record, session.ticket, plan):
        watch().tell("repr", f"{one!r} {one}")


def _emitted(_events, *args, **kwargs):
    watch().tell("event", repr(SessionEvent(*args, **kwargs)))


def _emitted_whole(_events, event):
    watch().tell("event", repr(event))


def _failed(error):
    watch().tell("exception", f"{error!r} {error}")


def _sent_error(_handler, _status=500, **kwargs):
    if "exc_info" in kwargs:
        lines = traceback.format_exception(*kwargs["exc_info"])
        watch().tell("traceback", "".join(lines))


def _wrote_headers(connection, start_line, headers, chunk=None):
    fails = isinstance(start_line, ResponseStartLine) and start_line.code >= 400
    connection.is_error_page = fails
    if chunk:
        _wrote(connection, chunk)


def _wrote(connection, chunk):
    if connection.is_error_page:
        watch().tell("error page", bytes(chunk).decode("utf-8", "replace"))


def _hear_all_loggers(patch):
    """Hear what is logged at any level; who listens to it otherwise notices nothing."""
    enabled, handle = logging.Logger.isEnabledFor, logging.Logger.handle
    plain = logging.Formatter()

    def handle_wanted(logger, record):
        with contextlib.suppress(TypeError, ValueError):  # the handlers report that
            watch().tell("log", plain.format(record))
        if enabled(logger, record.levelno):
            handle(logger, record)

    patch.setattr(logging.Logger, "isEnabledFor", lambda logger, level: True)
    patch.setattr(logging.Logger, "handle", handle_wanted)
