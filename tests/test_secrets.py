"""The watch that `secretkit` keeps over the whole run, and what public objects show."""

import dataclasses
import logging
import traceback

import pytest

import tornado_sessions
from examplekit import Visitor, open_example, visitors
from httpkit import Acts, serving, ticket_in
from secretkit import watching
from tornado_sessions import SessionError

SECRET_VALUE = "Canary-0f3a-value-91bc-of-a-session"
log = logging.getLogger("tests.secrets")
log.setLevel(logging.WARNING)  # the watch hears what nobody else does


class Telling(Acts):
    """Tells what it should not, in the way that the query says."""

    async def act_log(self, _):
        log.debug("the token is %s", self.session.ticket.token)

    async def act_value(self, key):
        log.debug("the value is %s", self.session[key])

    async def act_raise(self, _):
        raise ValueError(self.session.ticket.token)

    async def act_page(self, _):
        self.set_status(403)
        self.write(self.session.ticket.token)

    async def act_cookie(self, _):
        log.debug("%s", self.request.headers["Cookie"])

    async def act_fail(self, _):
        raise SessionError(self.session.ticket.token)


async def told(query, **settings):
    """Return the leaks of one request in a session that has a value."""
    with watching() as watch:
        async with serving(Telling, **settings) as site:
            visitor = site.visitor()
            await visitor.get(f"/?set=k:{SECRET_VALUE}")
            answer = await visitor.get(f"/?{query}=k")
        return {(what, kind) for _, what, kind, _ in watch.leaks()}, answer, watch


@pytest.mark.parametrize(
    ("query", "leak"),
    [
        ("log", ("token", "log")),
        ("value", ("value", "log")),
        ("raise", ("token", "traceback")),
        ("page", ("token", "error page")),
        ("cookie", ("cookie", "log")),
        ("fail", ("token", "exception")),
    ],
)
async def test_the_watch_bites(query, leak):
    """S9: what an application tells by mistake is found, whatever the way."""
    leaks, _, _ = await told(query)
    assert leaks & {leak, (leak[0], "log")}


async def test_the_watch_knows_tokens_of_other_processes(tmp_path):
    """S9: what a server of its own issued is a secret, and what it says is heard."""
    with watching() as watch:
        async with open_example("cart", tmp_path) as shop:
            with visitors(Visitor) as bring:
                visitor = bring(shop.url)
                await visitor.get("/login")
                await visitor.send("/login", name="Ada")
        assert "a program" in watch.kinds
        assert watch.leaks() == []
        watch.tell("a program", f"the cookie is {visitor.session_cookie}")
        assert [(what, kind) for _, what, kind, _ in watch.leaks()] == [
            ("cookie", "a program")
        ]


async def test_the_watch_is_quiet_when_all_is_well():
    """S9: with tracebacks on the error pages nothing is told either, and all was heard."""
    leaks, answer, watch = await told("set=no-colon&unknown", serve_traceback=True)
    assert leaks == set()
    assert answer.code == 500
    assert b"AttributeError" in answer.body
    assert {"log", "repr", "event", "traceback", "error page"} <= watch.kinds


async def test_public_objects_show_no_secret():
    """S9: the repr and str of each object that an application holds name handles only."""
    async with serving(Acts) as site:
        visitor = site.visitor()
        await visitor.get(f"/?set=k:{SECRET_VALUE}&login=ada")
        ticket = ticket_in(visitor.cookie)
        session = await site.manager.load([ticket])
        objects = [session, session.record, session.record.meta, session.ticket]
        objects += [site.manager, site.manager.config, site.store.inner, ticket]
        objects += [*site.events, *(await site.manager.sessions_of("ada"))]
        objects += [session.items(), session.keys(), site.manager.plan(session)]
        session.flash(SECRET_VALUE)
        objects += [session, site.manager.plan(session)]
        shown = [f"{one!r} {one} {[one]}" for one in objects]
        secrets = (ticket.token, SECRET_VALUE, visitor.cookie)
    assert [one for one in shown if any(secret in one for secret in secrets)] == []


async def test_exceptions_show_no_secret():
    """S9: nor do the errors of a value that cannot be stored, with all their causes."""
    async with serving(Acts) as site:
        session = await site.manager.load([])
        session["k"] = [SECRET_VALUE, object()]
        with pytest.raises(SessionError) as caught:
            await site.manager.commit(session)
        session["k"] = SECRET_VALUE * 100_000
        with pytest.raises(SessionError) as large:
            await site.manager.commit(session)
    for error in (caught.value, large.value):
        assert SECRET_VALUE not in "".join(traceback.format_exception(error))
        assert SECRET_VALUE not in repr(error)


def test_no_public_dataclass_has_a_secret_field():
    """S9: a generated repr shows every field, so none of them may be a secret."""
    for name in tornado_sessions.__all__:
        kind = getattr(tornado_sessions, name)
        if dataclasses.is_dataclass(kind):
            shown = {field.name for field in dataclasses.fields(kind) if field.repr}
            assert shown & {"token", "ticket", "values", "cookie", "salt"} == set()
