"""The example shop over HTTP: orders, customers, and people who mean no good."""

import asyncio
import re

import pytest

from cart_visitor import FULL, fill, serve_here
from examplekit import FragileStore


async def test_order(customer):
    """An order is confirmed with all its lines, and the cart is empty after it."""
    page = await customer.submit("/checkout")

    assert "Thank you" in page.text
    assert "2 &times; Night-watch mug" in page.text
    assert page.found(r'id="total">([^<]+)') == "€63.00"
    assert re.fullmatch(r"LW-[0-9A-F]{6}", page.found(r'id="order-number">([^<]+)'))
    assert page.item_count == 0
    assert await customer.cart() == {}
    assert page.text.count("LW-") == (await customer.get("/order")).text.count("LW-")


async def test_nothing_to_order(visitor):
    """An empty cart cannot be ordered, and without an order there is no receipt."""
    page = await visitor.submit("/checkout")
    assert page.notes == [("error", "There is nothing in your cart to order.")]

    answer = await visitor.get("/order")
    assert (answer.status, answer.headers["Location"]) == (302, "/")


async def test_two_tabs_order_once(customer):
    """Of two tabs that order at once, one gets the cart and one hears why not (C2)."""
    answers = await asyncio.gather(*(customer.send("/checkout") for _ in range(2)))

    places = sorted(answer.headers["Location"] for answer in answers)
    assert places == ["/cart", "/order"]


async def test_an_order_loses_nothing_added_meanwhile(customer):
    """What one tab adds while another orders is ordered or still in the cart (C2)."""
    adds = [customer.send("/cart/add", sku="field-windsock") for _ in range(10)]
    await asyncio.gather(customer.send("/checkout"), *adds)

    receipt = await customer.get("/order")
    ordered = re.search(r"(\d+) &times; Field windsock", receipt.text)
    left = (await customer.cart()).get("field-windsock", 0)
    assert left + (int(ordered[1]) if ordered else 0) == 10


async def test_login_keeps_the_cart(customer):
    """Log-in changes the token in the cookie; cart and handle stay."""
    before, handle = customer.session_cookie, await handle_of(customer)
    page = await customer.submit("/login", name="  Ada   Lovelace ")

    assert ("success", "Welcome, Ada Lovelace. Your cart came with you.") in page.notes
    assert page.lines == FULL
    assert before != customer.session_cookie
    assert handle == await handle_of(customer)
    assert "Thank you, Ada Lovelace" in (await customer.submit("/checkout")).text


async def test_the_next_person_finds_nothing_of_the_last_one(customer):
    """Who logs in where somebody else is logged in begins with an empty cart (S7)."""
    await customer.submit("/login", name="Ada")
    before = await handle_of(customer)
    await customer.submit("/checkout")
    await customer.send("/cart/add", sku="field-windsock")
    page = await customer.submit("/login", name="Ben")

    assert ("success", "Welcome, Ben.") in page.notes
    assert await customer.cart() == {}
    assert (await customer.get("/order")).headers["Location"] == "/"
    assert before != await handle_of(customer)
    await customer.send("/cart/add", sku="field-windsock")
    assert "field-windsock" in (await customer.submit("/login", name="Ben")).lines


async def test_cookie_from_before_login_opens_nothing(customer, new_visitor):
    """Whoever kept the cookie from before the log-in is a stranger after it (C6)."""
    thief = new_visitor()
    thief.cookies["session"] = customer.session_cookie
    await customer.submit("/login", name="Ada")

    page = await thief.get("/cart")
    assert page.lines == {}
    assert "Ada" not in page.text
    assert await customer.cart() == FULL


@pytest.mark.parametrize("name", ["", "   ", "x" * 41, "a\u200bb", "\u202eadA"])
async def test_bad_names_are_refused(customer, name):
    """A name that is none is refused with a reason, and nobody is logged in."""
    page = await customer.submit("/login", name=name)

    assert page.notes == [("error", "Please give a name of 1 to 40 letters.")]
    assert "Log out" not in page.text
    assert await customer.cart() == FULL


async def test_names_are_text(visitor):
    """A name is shown as it was typed, never run as markup."""
    page = await visitor.submit("/login", name="<script>alert(1)</script>")

    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text


async def test_logout_empties_the_cart(customer):
    """Log-out ends the session, says so, and the next one has another handle."""
    await customer.submit("/login", name="Ada")
    handle = await handle_of(customer)
    page = await customer.submit("/logout")

    assert page.notes == [("info", "You are logged out, and the cart went too.")]
    assert "Log in" in page.text
    assert await customer.cart() == {}
    assert handle != await handle_of(customer)


async def test_a_page_puts_no_cart_into_a_session_that_is_there(customer, new_visitor):
    """C1: an empty one could overwrite what another tab has just put there."""
    await customer.submit("/logout")
    await customer.get("/")
    page = await customer.get("/")
    assert "<dt>Keys</dt><dd>0</dd>" in page.text

    stranger = new_visitor()
    await stranger.get("/")
    page = await stranger.get("/")
    assert "<dt>Keys</dt><dd>1 (cart)</dd>" in page.text


async def test_logout_is_for_good(customer, new_visitor):
    """A copy of the cookie from before the log-out opens nothing (C3)."""
    thief = new_visitor()
    await customer.submit("/login", name="Ada")
    thief.cookies["session"] = customer.session_cookie
    await customer.submit("/logout")

    page = await thief.get("/cart")
    assert page.lines == {}
    assert "Ada" not in page.text


@pytest.mark.parametrize("token", ["", "made-up"])
@pytest.mark.parametrize("form", ["cart/add", "cart/empty", "checkout", "logout"])
async def test_forged_forms_are_refused(customer, form, token):
    """A form without the token of this visitor gets a 403 and changes nothing."""
    page = await customer.send(f"/{form}", sku="gale-kite", _xsrf=token)

    assert page.status == 403
    assert "This form has expired" in page.text
    assert page.item_count == 3
    assert await customer.cart() == FULL


async def test_no_such_page(customer):
    """An unknown address gets a page of the shop; a note waits for the next one."""
    await customer.send("/cart/add", sku="gale-kite")
    page = await customer.get("/nowhere")
    assert page.status == 404
    assert "No such page" in page.text
    assert page.item_count == 4

    page = await customer.get("/")
    assert page.notes == [("success", "Gale kite is in your cart.")]


async def test_store_out_of_reach(tmp_path):
    """Without its store the shop says so, and knows the cart again after (T3)."""
    store = FragileStore()
    async with serve_here(tmp_path, session_store=store) as bring:
        customer = await fill(bring(), FULL)
        store.broken = True
        for page in (await customer.get("/cart"), await customer.send("/cart/empty")):
            assert page.status == 503
            assert "Nothing was changed" in page.text
        assert (await bring().get("/login")).status == 200

        store.broken = False
        assert await customer.cart() == FULL


async def test_only_forms_change_anything(customer):
    """A link cannot change the cart or log anybody out."""
    for path in ("/cart/add?sku=gale-kite", "/cart/empty", "/checkout", "/logout"):
        assert (await customer.get(path)).status == 405

    assert await customer.cart() == FULL


async def test_pages_allow_no_scripts(visitor):
    """Every page forbids scripts and frames, and carries neither."""
    for path in ("/", "/cart", "/login", "/nowhere"):
        page = await visitor.get(path)
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search(r"<script|<style|\sstyle=|\son\w+=", page.text)


async def test_static_files_leave_the_session_alone(new_visitor):
    """A picture or a stylesheet begins no session (S1)."""
    visitor = new_visitor()
    for path in ("/shared/base.css", "/static/art/gale-kite.svg"):
        assert (await visitor.fetch(path)).status == 200

    assert visitor.cookies == {}


async def test_session_panel(customer):
    """The panel names handle, keys and end of the session, but never the token."""
    page = await customer.get("/cart")
    panel = page.found(r'<details class="session">(.*?)</details>')

    assert await handle_of(customer) in panel
    assert "(cart)" in panel
    assert re.search(r"<dt>Expires</dt><dd>\d\d \w+ \d{4}, \d\d:\d\d UTC", panel)
    assert customer.session_cookie not in page.text


async def handle_of(visitor):
    """Read the handle off the session panel."""
    return (await visitor.get("/cart")).found(r"<dd><code>(.*?)</code>")
