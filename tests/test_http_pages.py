"""Where application code does not run, or is not asked: 405, 400, 403, templates."""

import pytest
from tornado.template import DictLoader
from tornado.web import HTTPError, authenticated

from httpkit import Counter, Page, named, serving, session_cookies
from httpkit_stores import on_every_store

NO_TYPE = {"Content-Type": "multipart/form-data"}


class Shows(Counter):
    """Shows the session in its error page, which it renders from a template."""

    def get(self):
        self.session.flash("hello")
        self.session["n"] = self.session.get("n", 0) + 1

    def prepare(self):
        if self.request.path == "/prepare":
            raise HTTPError(418)

    def write_error(self, status_code, **kwargs):
        self.render("error.html")


PAGES_BY_NAME = DictLoader(
    {
        "error.html": "{{ session.get('n') }} {{ len(flashes) }} {{ current_user }}",
        "list.html": "{% for f in flashes %}{{ f.category }}:{{ f.message }};{% end %}",
        "call.html": "{% for f in flashes() %}{{ f.message }};{% end %}",
        "none.html": "nothing to see",
    }
)
# Tornado keeps one loader for each path.
TEMPLATES = {"template_loader": PAGES_BY_NAME, "template_path": "pages"}


def fetch_405(visitor):
    return visitor.fetch(method="BREW", allow_nonstandard_methods=True)


def fetch_400(visitor):
    return visitor.post(body="nonsense", headers=NO_TYPE)


def fetch_403(visitor):
    return visitor.post(body="no=token")


def fetch_418(visitor):
    return visitor.get("/prepare")


def fetch_405_after_prepare(visitor):
    return visitor.fetch(method="DELETE")


PAGES = [
    (fetch_405, 405),
    (fetch_400, 400),
    (fetch_403, 403),
    (fetch_418, 418),
    (fetch_405_after_prepare, 405),
]


@on_every_store
@pytest.mark.parametrize(("fetch", "status"), PAGES, ids=named)
async def test_error_pages_have_the_session(make_store, fetch, status):
    """T1: 405, bad body, XSRF and prepare() error pages show the visitor's session."""
    settings = {**TEMPLATES, "xsrf_cookies": fetch is fetch_403}
    async with serving(Shows, make_store(), **settings) as site:
        visitor = site.visitor()
        await visitor.get()
        site.store.forget()
        answer = await fetch(visitor)
        assert (answer.code, answer.body) == (status, b"1 1 None")
        assert site.store.calls == ["load", "commit"]
        assert answer.headers["Vary"] == "Cookie"
        assert (await fetch(visitor)).body == b"1 0 None"


@pytest.mark.parametrize("name", ["list.html", "call.html"])
@on_every_store
async def test_templates_take_flashes(make_store, name):
    """T1: ``flashes`` and ``flashes()`` yield each message once, oldest first."""

    class Renders(Shows):
        def post(self):
            self.session.flash("first", "error")
            self.session.flash("second")

        def get(self):
            self.render(name)

    async with serving(Renders, make_store(), **TEMPLATES) as site:
        visitor = site.visitor()
        await visitor.post()
        shown = (await visitor.get()).body
        again = (await visitor.get()).body
    expected = {"list.html": b"error:first;info:second;", "call.html": b"first;second;"}
    assert (shown, again) == (expected[name], b"")


@on_every_store
async def test_a_template_that_shows_no_flashes_leaves_them(make_store):
    """S1 S2 T6: rendering alone takes no flash and stores nothing, but varies."""

    class Renders(Shows):
        def post(self):
            self.session.flash("first")

        def get(self):
            self.render("none.html")

    async with serving(Renders, make_store(), **TEMPLATES) as site:
        stranger = await site.visitor().get()
        assert (site.store.calls, session_cookies(stranger)) == ([], [])
        assert stranger.headers["Vary"] == "Cookie"
        visitor = site.visitor()
        await visitor.post()
        site.store.forget()
        await visitor.get()
    assert site.store.calls == ["load"]


@on_every_store
async def test_a_flash_survives_a_redirect_and_is_shown_once(make_store):
    """S1: a flash begins a session, is there after the redirect, and then gone."""

    class Renders(Shows):
        def post(self):
            self.session.flash({"any": ["plain", "data"]}, "warning")
            self.redirect("/")

        def get(self):
            self.write(
                {"all": [[f.category, f.message] for f in self.session.flashes()]}
            )

    async with serving(Renders, make_store()) as site:
        visitor = site.visitor()
        assert len(session_cookies(await visitor.post())) == 1
        first, second = await visitor.get(), await visitor.get()
    assert first.body == b'{"all": [["warning", {"any": ["plain", "data"]}]]}'
    assert second.body == b'{"all": []}'


class Account(Page):
    @authenticated
    def get(self):
        self.write(self.current_user)

    def post(self):
        self.session.login(self.get_argument("user"))

    def delete(self):
        self.session.destroy()


@on_every_store
async def test_authenticated_goes_by_the_principal(make_store):
    """E6 K4: ``@authenticated`` lets in who has logged in, until the logout."""
    async with serving(Account, make_store(), login_url="/login") as site:
        visitor = site.visitor()
        answer = await visitor.get("/account")
        assert (answer.code, answer.headers["Location"]) == (
            302,
            "/login?next=%2Faccount",
        )
        assert session_cookies(answer) == []
        await visitor.post("/?user=ada")
        assert (await visitor.get("/account")).body == b"ada"
        await visitor.fetch(method="DELETE")
        assert visitor.cookie is None
        assert (await visitor.get("/account")).code == 302
        assert site.kinds[-1] == ("ended", "destroyed")


@on_every_store
async def test_xsrf_works_with_a_login(make_store):
    """T1: the XSRF check, which asks for current_user, works before prepare()."""

    class Form(Account):
        def get(self):
            self.write(self.xsrf_token)

    async with serving(Form, make_store(), xsrf_cookies=True) as site:
        visitor = site.visitor()
        token = (await visitor.get()).body.decode()
        answer = await visitor.post(f"/?user=ada&_xsrf={token}")
        assert answer.code == 200
        token = (await visitor.get()).body.decode()
        assert (await visitor.post(f"/?user=bob&_xsrf={token}")).code == 200
        (info,) = await site.manager.sessions_of("bob")
        assert info.principal == "bob"


async def test_two_sets_of_cookies_do_not_disturb_each_other():
    """T1: cookies that the application sets survive, next to the session cookie."""

    class Both(Page):
        def get(self):
            self.set_cookie("mine", "1")
            self.add_header("Set-Cookie", "raw=2; Path=/")
            self.session["n"] = 1

    async with serving(Both) as site:
        visitor = site.visitor()
        await visitor.get()
    assert set(visitor.cookies) == {"mine", "raw", "session"}
