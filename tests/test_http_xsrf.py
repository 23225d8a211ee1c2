"""XSRF tokens that belong to the session, as forms and scripts send them (K1, K2, C6)."""

import re
from urllib.parse import urlencode

import pytest
import tornado
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.web import RequestHandler, authenticated

from httpkit import (
    SECRET,
    Page,
    serving,
    session_cookies,
    signed,
    ticket_in,
)
from httpkit_stores import AsyncStore, FakeClock, on_both_paths
from tornado_sessions import ConfigurationError, SessionConfig, SessionMixin
from tornado_sessions.carrier import CookieCarrier
from tornado_sessions.cookie import encode
from tornado_sessions.xsrf import Binding, belongs, token_of

HIDDEN = re.compile(r'<input type="hidden" name="_xsrf" value="([^"]+)"/>')
SETTINGS = {"session_xsrf": True, "xsrf_cookies": True}
KEYS = {0: SECRET, 1: "n" + SECRET}


class Bare(Page):
    """A page without a form."""

    def get(self):
        self.session.get("n")
        self.write("hello")


class Form(Page):
    """A page with a form, and what the form does."""

    def get(self):
        self.write(self.xsrf_form_html())

    async def post(self):
        for name in self.get_arguments("do"):
            what, _, argument = name.partition(":")
            getattr(self, f"do_{what}")(argument)
        self.write(f"as {self.current_user} {self.session.get('n')} ")
        if self.get_argument("again", ""):
            self.write(self.xsrf_form_html())

    put = delete = patch = post

    def do_login(self, principal):
        self.session.login(principal)

    def do_set(self, number):
        self.session["n"] = number

    def do_renew(self, _):
        self.session.regenerate_id()

    def do_destroy(self, _):
        self.session.destroy()


class Manual(Form):
    session_autoload = False

    async def post(self):
        await self.load_session()
        await super().post()


def serve(store=None, form=Form, **more):
    routes = [("/bare", Bare), ("/manual", Manual), ("/.*", form)]
    return serving(routes, store, **{**SETTINGS, **more})


def token_in(answer):
    """Return the token of the form in an answer."""
    return HIDDEN.search(answer.body.decode())[1]


async def form_of(visitor, path="/"):
    """Load the page with the form; return its token."""
    answer = await visitor.get(path)
    assert answer.code == 200
    return token_in(answer)


async def send(visitor, token, *acts, path="/", **more):
    """Send the form, and return the status and what the page says."""
    fields = [("_xsrf", token), *[("do", act) for act in acts], *more.items()]
    answer = await visitor.post(path, urlencode(fields))
    return answer.code, answer.body.decode().strip()


async def logged_in(site, principal="alice"):
    visitor = site.visitor()
    token = await form_of(visitor)
    assert await send(visitor, token, f"login:{principal}", "set:1") == (
        200,
        f"as {principal} 1",
    )
    return visitor


# -- visitors without a session -------------------------------------------------------


@on_both_paths
async def test_a_page_without_a_form_begins_nothing(make_store):
    """S1: no session, no call and no cookie of either kind, with or without a cookie."""
    async with serve(make_store()) as site:
        visitor = site.visitor()
        for cookies in ({}, {"session": "forged"}):
            answer = await site.visitor(**cookies).get("/bare")
            assert answer.headers.get_list("Set-Cookie") == []
        assert site.store.calls == []
        assert visitor.cookies == {}


@on_both_paths
async def test_the_first_form_needs_no_session(make_store):
    """S1: a login form works for a stranger, and no session is stored before it is sent."""
    async with serve(make_store()) as site:
        visitor = site.visitor()
        token = await form_of(visitor)
        assert set(visitor.cookies) == {"_xsrf"}
        assert site.store.calls == []
        assert await send(visitor, token, "login:alice") == (200, "as alice None")
        assert ticket_in(visitor.cookie).epoch == 0


async def test_a_stranger_needs_the_token_too():
    """K2: a login cannot be forged: neither without the cookie nor with another one."""
    async with serve() as site:
        one, other = site.visitor(), site.visitor()
        token = await form_of(one)
        await form_of(other)
        assert (await send(site.visitor(), token, "login:eve"))[0] == 403
        assert (await send(other, token, "login:eve"))[0] == 403
        assert site.store.calls == []


# -- the token belongs to the session -------------------------------------------------


@on_both_paths
@pytest.mark.parametrize("key", ["_xsrf", "X-XSRFToken", "X-CSRFToken"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_forms_and_headers_are_accepted(make_store, key, method):
    """K2: where Tornado looks for a token: in the body, the query, and two headers."""
    async with serve(make_store()) as site:
        visitor = await logged_in(site)
        del visitor.cookies["_xsrf"]
        token = await form_of(visitor)
        assert set(visitor.cookies) == {"session"}  # nothing but the session is needed
        fields, headers = {"do": "set:2"}, visitor.headers
        (fields if key == "_xsrf" else headers)[key] = token
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        query = f"?{urlencode(fields)}" if method == "DELETE" else ""
        body = {} if method == "DELETE" else {"body": urlencode(fields)}
        answer = await visitor.fetch(f"/{query}", headers, method=method, **body)
        assert (answer.code, answer.body.decode().strip()) == (200, "as alice 2")


WRONG = {
    "none": lambda token, other: "",
    "another session's": lambda token, other: other,
    "cut": lambda token, other: token[:-13],
    "cut mask": lambda token, other: token[:2] + token[3:],
    "flipped": lambda token, other: token[:40] + "0f"[token[40] == "0"] + token[41:],
    "unmasked": lambda token, other: token.split("|")[2],
    "version 1": lambda token, other: "1" + token[1:],
    "letters": lambda token, other: "letters",
    "no ascii": lambda token, other: "2|\u0663|\u0663|1",
    "long": lambda token, other: token * 100,
    "zero": lambda token, other: f"2|{'0' * 32}|{'0' * 32}|0",
}


@on_both_paths
@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("key", ["_xsrf", "X-XSRFToken"])
async def test_a_wrong_token_is_a_403(make_store, kind, key):
    """K2: nothing is changed, no cookie goes out, and the session goes on."""
    async with serve(make_store()) as site:
        visitor, other = await logged_in(site), await logged_in(site, "bob")
        token = WRONG[kind](await form_of(visitor), await form_of(other))
        if key != "_xsrf" and not token.isascii():
            return
        before = await site.records()
        site.store.forget()
        if key == "_xsrf":
            answer = await visitor.post("/", urlencode({"_xsrf": token, "do": "set:2"}))
        else:
            answer = await visitor.post(
                "/?do=set:2", headers={**visitor.headers, key: token}
            )
        assert answer.code == 403
        assert answer.headers.get_list("Set-Cookie") == []
        assert site.store.calls == ["load"]
        assert await site.records() == before
        assert (await send(visitor, await form_of(visitor), "set:3"))[0] == 200


@on_both_paths
async def test_the_token_changes_at_login(make_store):
    """C6 K1: forms of before a login, of a stranger too, are refused after it."""
    async with serve(make_store()) as site:
        visitor = site.visitor()
        stranger = await form_of(visitor)
        await send(visitor, stranger, "set:1")
        anonymous = await form_of(visitor)
        for act in ("login:alice", "login:alice", "login:bob", "renew:"):
            before = await form_of(visitor)
            assert (await send(visitor, before, act))[0] == 200
            for old in (before, anonymous, stranger):
                assert (await send(visitor, old, "set:2"))[0] == 403
        assert await send(visitor, await form_of(visitor)) == (200, "as bob 1")


@on_both_paths
async def test_the_token_ends_with_the_session(make_store):
    """K4: after a logout the visitor is a stranger, whose forms work as a stranger's."""
    async with serve(make_store()) as site:
        visitor = await logged_in(site)
        token = await form_of(visitor)
        assert (await send(visitor, token, "destroy:"))[0] == 200
        assert visitor.cookie is None
        assert (await send(visitor, token, "set:2"))[0] == 403
        assert await send(visitor, await form_of(visitor), "login:bob", "set:2") == (
            200,
            "as bob 2",
        )


@on_both_paths
async def test_the_form_of_the_answer_to_a_login_is_the_new_one(make_store):
    """C6: rendered after login(), in the same request, it already has the new token."""
    async with serve(make_store()) as site:
        visitor = site.visitor()
        token = await form_of(visitor)
        for act in ("login:alice", "login:bob", "renew:", "set:5", "destroy:", "set:6"):
            fields = {"_xsrf": token, "do": act, "again": "1"}
            answer = await visitor.post("/", urlencode(fields))
            assert answer.code == 200, act
            token = token_in(answer)
        assert (await send(visitor, token))[0] == 200


async def test_rotation_by_age_keeps_the_forms_that_are_open():
    """E4: a form that was open when the token was replaced is still accepted."""
    clock = FakeClock()
    async with serve(AsyncStore(clock=clock), session_rotate_after=60) as site:
        visitor = await logged_in(site)
        token, before = await form_of(visitor), ticket_in(visitor.cookie)
        for _ in range(3):
            clock.advance(61)
            await visitor.get("/bare")
        assert ticket_in(visitor.cookie).token != before.token
        assert ("rotated", None) in site.kinds
        assert await send(visitor, token, "set:2") == (200, "as alice 2")


@on_both_paths
async def test_tabs_do_not_disturb_each_other(make_store):
    """K2: a form is good however many others were loaded or sent since."""
    async with serve(make_store()) as site:
        visitor = site.visitor()
        first, second = await form_of(visitor), await form_of(visitor)
        assert first != second
        # The second tab begins a session; the first one's form is a stranger's still.
        assert await send(visitor, second, "set:1") == (200, "as None 1")
        assert await send(visitor, first, "set:2") == (200, "as None 2")
        third, fourth = await form_of(visitor), await form_of(visitor)
        for token in (third, fourth, third, second, first):
            assert await send(visitor, token) == (200, "as None 2")
        await send(visitor, first, "login:alice")
        fifth, sixth = await form_of(visitor), await form_of(visitor)
        for token in (sixth, fifth, sixth):
            assert await send(visitor, token) == (200, "as alice 2")


async def test_a_second_click_on_the_login_button_is_accepted():
    """C6: sent before the answer to the first arrived, it has the cookie of before."""
    async with serve() as site:
        visitor = site.visitor()
        await send(visitor, await form_of(visitor), "set:1")
        token, again = await form_of(visitor), visitor.twin()
        assert await send(visitor, token, "login:alice") == (200, "as alice 1")
        assert await send(again, token, "login:alice") == (200, "as alice None")
        assert await send(again, await form_of(again)) == (200, "as alice None")


async def test_an_old_cookie_with_its_own_form_sees_nothing():
    """C6: the token of before a login goes with the cookie of before it: a stranger's."""
    async with serve() as site:
        visitor = site.visitor()
        await send(visitor, await form_of(visitor), "set:1")
        token, old = await form_of(visitor), visitor.twin()
        await send(visitor, token, "login:alice")
        assert await send(old, token) == (200, "as None None")
        assert await send(visitor, await form_of(visitor)) == (200, "as alice 1")


@on_both_paths
async def test_a_planted_cookie_proves_nothing(make_store):
    """K2: with a cookie and a form of a dead session beside the real cookie: 403."""
    async with serve(make_store()) as site:
        victim, eve = await logged_in(site), await logged_in(site, "eve")
        token, planted = await form_of(eve), eve.cookie
        await send(eve, token, "destroy:")
        for values in ([planted, victim.cookie], [victim.cookie, planted]):
            header = "; ".join(f"session={value}" for value in values)
            for path in ("/", "/manual"):
                fields = urlencode({"_xsrf": token, "do": "set:evil"})
                answer = await site.visitor().post(
                    path, fields, headers={"Cookie": header}
                )
                assert answer.code == 403
        assert await send(victim, await form_of(victim)) == (200, "as alice 1")


async def test_a_planted_xsrf_cookie_is_no_use_against_a_login():
    """K2: once logged in, Tornado's cookie is not looked at, so planting it is in vain."""
    async with serve() as site:
        victim, eve = await logged_in(site), site.visitor()
        token = await form_of(eve)
        victim.cookies["_xsrf"] = eve.cookies["_xsrf"]
        assert (await send(victim, token, "set:evil"))[0] == 403
        assert (await send(victim, eve.cookies["_xsrf"], "set:evil"))[0] == 403


# -- masks, keys, caches --------------------------------------------------------------


@on_both_paths
async def test_every_response_has_another_mask(make_store):
    """S9: compressed pages do not give the token away (BREACH): no two are the same."""
    async with serve(make_store()) as site:
        visitor = await logged_in(site)
        pages = [token_in(await visitor.get()) for _ in range(20)]
        masks, masked = ({token.split("|")[n] for token in pages} for n in (1, 2))
        assert len(masks) == len(masked) == 20
        for token in pages:
            assert (await send(visitor, token))[0] == 200


async def test_pages_with_a_form_are_not_shared():
    """T6: what has a token, or was checked for one, varies with the cookie."""
    async with serve() as site:
        visitor = site.visitor()
        pages = [await visitor.get(), await visitor.post("/", "")]
        await send(visitor, token_in(pages[0]), "login:alice")
        pages += [await visitor.get(), await visitor.post("/", "")]
        assert [page.code for page in pages] == [200, 403, 200, 403]
        assert ["Cookie" in page.headers["Vary"] for page in pages] == [True] * 4


async def test_the_forms_outlive_a_change_of_the_key():
    """K1: a form of the old cookie_secret is accepted as long as its key is there."""
    store = AsyncStore()
    async with serve(store, cookie_secret=KEYS, key_version=0) as site:
        visitor = await logged_in_with(site)
        old = await form_of(visitor)
    async with serve(store, cookie_secret=KEYS, key_version=1) as site:
        visitor = site.visitor(**visitor.cookies)
        assert (await send(visitor, old))[0] == 200
        new = await form_of(visitor)
    async with serve(store, cookie_secret={1: KEYS[1]}, key_version=1) as site:
        visitor = site.visitor(**visitor.cookies)
        assert (await send(visitor, old))[0] == 403
        assert (await send(visitor, new))[0] == 200


async def logged_in_with(site):
    visitor = site.visitor()
    assert (await send(visitor, await form_of(visitor), "login:alice"))[0] == 200
    return visitor


def test_the_token_says_nothing_and_needs_the_secret():
    """S9: it is an HMAC: not the handle, not the epoch, and another for each of them."""
    one, secret = Binding("the-handle", 3), {"cookie_secret": SECRET}
    token = token_of(secret, one).decode()
    assert belongs(token, secret, [one])
    assert "handle" not in token
    others = [Binding("the-handle", 4), Binding("the-handle|", 3), Binding("other", 3)]
    assert not belongs(token, secret, others)
    assert not belongs(token, {"cookie_secret": SECRET + "2"}, [one])
    assert not belongs(token, secret, [])
    assert not belongs(None, secret, [one])


@settings(deadline=None)
@given(st.text() | st.from_regex(r"2\|[0-9a-f]*\|[0-9a-f]*\|\d*", fullmatch=True))
def test_any_text_is_a_token_or_none(text):
    """K2: whatever was sent: no error, and no way in."""
    assert not belongs(text, {"cookie_secret": SECRET}, [Binding("h", 0)])


# -- failing stores, sessions that are not loaded -------------------------------------


async def test_a_failing_store_is_a_503_and_no_403():
    """T1 F1: who sends a good form while the store is down is not told it was forged."""
    store = AsyncStore()
    async with serve(store) as site:
        visitor = await logged_in(site)
        token = await form_of(visitor)
        store.failing = {"load"}
        assert (await send(visitor, token))[0] == 503
        assert (await send(visitor, "wrong"))[0] == 403
        store.failing = set()
        assert (await send(visitor, token))[0] == 200


async def test_a_form_from_a_page_without_the_store():
    """T1 F1: with "anonymous" a form is bound by what the cookie says, and goes on."""
    store = AsyncStore()
    async with serve(store, session_on_store_error="anonymous") as site:
        visitor = await logged_in(site)
        before = await form_of(visitor)
        store.failing = {"load"}
        during = await form_of(visitor)
        assert await send(visitor, before) == (200, "as None None")
        store.failing = set()
        assert await send(visitor, during) == (200, "as alice 1")


@on_both_paths
async def test_a_session_that_is_loaded_by_hand(make_store):
    """T1: the check comes before the load, and goes by what the cookie says."""
    async with serve(make_store()) as site:
        visitor = site.visitor()
        token = await form_of(visitor, "/manual")
        assert await send(visitor, token, "login:alice", "set:1", path="/manual") == (
            200,
            "as alice 1",
        )
        assert (await send(visitor, token, path="/manual"))[0] == 403
        token = await form_of(visitor, "/manual")
        site.store.forget()
        assert await send(visitor, token, path="/manual") == (200, "as alice 1")
        assert (await send(visitor, "wrong", path="/manual"))[0] == 403
        assert site.store.calls == ["load"]


async def test_forged_cookies_are_told_of_once():
    """K2: the check reads the cookies no second time."""
    async with serve() as site:
        visitor = site.visitor(session=signed("not a ticket"))
        token = await form_of(visitor)
        assert site.kinds == [("refused", "malformed")]
        assert (await send(visitor, token, "login:alice"))[0] == 200
        assert site.kinds[:2] == [("refused", "malformed")] * 2
        assert site.kinds[2][0] == "created"
        site.events.clear()
        manual = site.visitor(session=signed("not a ticket"))
        token = await form_of(manual, "/manual")
        assert (await send(manual, token, "login:alice", path="/manual"))[0] == 200
        assert site.kinds[:3] == [("refused", "malformed")] * 2 + [("created", None)]


async def test_a_dead_session_does_not_lock_out():
    """K2: with a cookie of a session that is over, the login form works."""
    async with serve() as site:
        visitor = await logged_in(site)
        await site.manager.revoke_all("alice")
        assert visitor.cookie is not None
        assert await send(visitor, await form_of(visitor), "login:bob") == (
            200,
            "as bob None",
        )


class ByHand(Form):
    """Loads the session before every verb, which is after the check of the form."""

    session_autoload = False

    async def prepare(self):
        await self.load_session()


async def test_a_dead_session_does_not_lock_out_where_it_is_loaded_by_hand():
    """K2: a form that was made for nobody's session is good for a cookie of a dead one."""
    async with serving([("/hand", ByHand), ("/.*", Form)], **SETTINGS) as site:
        visitor = await logged_in(site)
        token = await form_of(visitor, "/hand")
        assert await send(visitor, token, "set:2", path="/hand") == (200, "as alice 2")
        await site.manager.revoke_all("alice")
        token = await form_of(visitor, "/hand")
        sent = await send(visitor, token, "login:bob", path="/hand")
        assert sent == (200, "as bob None")
        assert (await send(visitor, token, "set:3", path="/hand"))[0] == 403


# -- the option ------------------------------------------------------------------------


def test_the_option_needs_the_check():
    """K1: without xsrf_cookies nothing would be checked, so that is refused."""
    app = tornado.web.Application(cookie_secret=SECRET, session_xsrf=True)
    with pytest.raises(ConfigurationError, match="xsrf_cookies=True"):
        CookieCarrier.of(app)
    for wrong in ("yes", 1, None):
        with pytest.raises(ConfigurationError, match="session_xsrf is"):
            SessionConfig(xsrf=wrong)  # type: ignore[arg-type]


async def test_without_the_option_all_is_as_in_tornado():
    """K2: xsrf_cookies alone compares with Tornado's cookie, logged in or not."""
    async with serve(session_xsrf=False) as site:
        visitor = await logged_in(site)
        token = await form_of(visitor)
        assert (await send(visitor, visitor.cookies["_xsrf"]))[0] == 200
        assert (await send(visitor, token))[0] == 200
        del visitor.cookies["_xsrf"]
        assert (await send(visitor, token))[0] == 403


async def test_templates_and_authenticated_go_along():
    """T1: the module of templates gives the same form, and @authenticated is asked after."""

    class Templated(Form):
        @authenticated
        async def post(self):
            await super().post()

        def get(self):
            self.render("form.html")

        def create_template_loader(self, _):
            return tornado.template.DictLoader(
                {"form.html": "{% module xsrf_form_html() %}{{ session.principal }}"}
            )

    async with serving(
        [("/t", Templated), ("/", Form)], login_url="/", **SETTINGS
    ) as site:
        visitor = await logged_in(site)
        page = await visitor.get("/t")
        assert page.body.endswith(b"alice")
        assert await send(visitor, token_in(page), path="/t") == (200, "as alice 1")
        stranger = site.visitor()
        assert (await send(stranger, await form_of(stranger), path="/t"))[0] == 403


async def test_handlers_without_a_session_keep_their_own_check():
    """T1: a plain handler of the same application goes by Tornado's cookie."""

    class Plain(RequestHandler):
        def get(self):
            self.write(self.xsrf_form_html())

        def post(self):
            self.write("done")

    async with serving([("/plain", Plain), ("/", Form)], **SETTINGS) as site:
        visitor = await logged_in(site)
        token = await form_of(visitor, "/plain")
        assert await send(visitor, token, path="/plain") == (200, "done")
        assert (await send(visitor, token))[0] == 403


needs_6_6 = pytest.mark.skipif(
    tornado.version_info < (6, 6), reason="came with Tornado 6.6"
)


@needs_6_6
@on_both_paths
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("xsrf", [{}, {"xsrf_cookies": True}, SETTINGS], ids=str)
async def test_cross_origin_protection_is_untouched(make_store, own, xsrf):
    """T1: Tornado 6.6 refuses other sites before any code runs, with a session or not."""
    routes, protected = [("/.*", Form)], {"cross_origin_protection": True, **xsrf}
    headers = {"Sec-Fetch-Site": "same-origin" if own else "cross-site"}
    async with serving(routes, make_store(), **protected) as site:
        visitor = site.visitor()
        for _ in range(2):
            fields = urlencode({"_xsrf": await form_of(visitor), "do": "login:alice"})
            answer = await visitor.post(
                "/", fields, headers={**visitor.headers, **headers}
            )
            assert answer.code == (200 if own else 403)
            assert bool(session_cookies(answer)) is own
        forged = {"Origin": "https://evil.example", "Host": "shop.example"}
        answer = await visitor.post("/", fields, headers={**visitor.headers, **forged})
        assert answer.code == 403


async def test_the_ticket_that_the_check_goes_by_is_verified():
    """K2: a cookie that is not signed binds no form."""
    async with serve() as site:
        visitor = await logged_in(site)
        ticket = ticket_in(visitor.cookie)
        forged = signed(encode(ticket), secret="x" * 40)
        made_up = token_of(
            {"cookie_secret": SECRET}, Binding(ticket.handle, 0)
        ).decode()
        assert (await send(site.visitor(session=forged), made_up, path="/manual"))[
            0
        ] == 403


class Nowhere(SessionMixin, tornado.web.ErrorHandler):
    """What answers where there is nothing."""


async def test_a_post_to_nowhere_is_a_404():
    """K2: whoever is logged in learns that there is nothing, and not that they may not."""
    more = {
        "default_handler_class": Nowhere,
        "default_handler_args": {"status_code": 404},
    }
    async with serving([("/", Form)], **SETTINGS, **more) as site:
        visitor = await logged_in(site)
        assert (await visitor.post("/nothing")).code == 404
