"""A value that cannot be stored, where the answer to that is not a plain 500 (S4, S8)."""

import pytest

from httpkit import Page, serving, session_cookies, ticket_in
from httpkit_stores import on_every_store, soon, until


class Refused(Page):
    """POST wants to store what cannot be stored; the error page is the subclass's."""

    def initialize(self):
        self.pages = self.application.settings.setdefault("pages", [])

    def post(self, action):
        if action == "login":
            self.session.login("ada")
        self.session["n"] = object()

    def write_error(self, status_code, **kwargs):
        self.pages.append(status_code)
        self.answer(status_code)


class Envelope(Refused):
    """Says what went wrong in a body, with a 200."""

    def answer(self, status_code):
        self.set_status(200)
        self.finish({"error": status_code})


class Elsewhere(Refused):
    def answer(self, status_code):
        self.redirect("/oops")


@on_every_store
@pytest.mark.parametrize(("page", "status"), [(Envelope, 200), (Elsewhere, 302)])
async def test_an_error_page_may_have_any_status(make_store, page, status):
    """S4, T5: it is made once, and nothing that was refused is stored with it."""
    async with serving([(r"/(.*)", page)], make_store()) as site:
        answer = await site.visitor().post()
        pages = site.application.settings["pages"]
        assert (answer.code, pages, site.store.calls) == (status, [500], [])
    assert session_cookies(answer) == []


@on_every_store
async def test_a_login_stands_beside_what_is_refused(make_store):
    """S7, S4: with such a page as with a 500."""
    async with serving([(r"/(.*)", Elsewhere)], make_store()) as site:
        answer = await site.visitor().post("/login")
        record = await site.record()
    (cookie,) = session_cookies(answer)
    assert (answer.code, record.meta.principal, record.values) == (302, "ada", {})
    assert ticket_in(cookie).handle == record.handle


class AfterTheFlush(Page):
    """Touches the session for the first time when headers have left."""

    async def get(self):
        self.write("half")
        await soon(self.flush())
        self.session["n"] = object()


@on_every_store
async def test_what_is_refused_after_the_flush_ends_the_response(make_store, caplog):
    """S4, T4: the client is not left waiting, and the log says once what is wrong."""
    async with serving(AfterTheFlush, make_store()) as site:
        answer = await site.visitor().get()
        assert (answer.code, answer.body) == (200, b"half")
        await until(lambda: "CodecError" in caplog.text)
        assert site.store.calls == []
    assert [one.exc_info is not None for one in caplog.records].count(True) == 1
