"""The example shop over HTTP, in this process."""

import asyncio

import pytest

from cart_visitor import FULL
from examples.cart.catalog import PRODUCTS

UNCHANGED = "Your cart is unchanged."


async def test_shelf_shows_every_product(visitor):
    """Every product stands on the shelf, with its price and a form."""
    page = await visitor.get("/")

    assert len(PRODUCTS) == page.text.count('action="/cart/add"')
    assert all(product.name in page.text for product in PRODUCTS.values())
    assert "€129.00" in page.text


async def test_add_redirects_and_says_so_once(visitor):
    """An added item is announced once, and a reload does not add it again (T2)."""
    answer = await visitor.send("/cart/add", sku="gale-kite")
    first, second = await visitor.get("/"), await visitor.get("/")

    assert (answer.status, answer.headers["Location"]) == (303, "/#gale-kite")
    assert first.notes == [("success", "Gale kite is in your cart.")]
    assert second.notes == []
    assert 1 == first.item_count == second.item_count


@pytest.mark.parametrize(
    "quantity", ["abc", "-1", "1.5", "", "1_0", "٣", "9" * 5000, "100", "<b>"]
)
async def test_bad_quantity_changes_nothing(customer, quantity):
    """A quantity that is none is refused with a reason, and nothing is lost."""
    page = await customer.submit("/cart/quantity", sku="gale-kite", quantity=quantity)

    [(category, message)] = page.notes
    assert category == "error"
    assert "99" in message
    assert page.lines == FULL


@pytest.mark.parametrize("sku", ["no-such-thing", "", "../secret", "Gale-Kite"])
@pytest.mark.parametrize("form", ["add", "quantity", "step", "remove"])
async def test_unknown_product_changes_nothing(customer, form, sku):
    """A product the shop does not have is refused with a reason."""
    path = f"/cart/{form}"
    page = await customer.submit(path, sku=sku, quantity="1", step="up")

    assert [("error", f"We do not sell that. {UNCHANGED}")] == page.notes
    assert await customer.cart() == FULL


async def test_form_without_fields_changes_nothing(customer):
    """A form that lacks its fields is refused with a reason."""
    for form in ("add", "quantity", "step", "remove"):
        page = await customer.submit(f"/cart/{form}")
        assert [category for category, _ in page.notes] == ["error"]

    assert await customer.cart() == FULL


async def test_quantity_is_set(customer):
    """The quantity field sets the quantity, and zero removes the line."""
    page = await customer.submit("/cart/quantity", sku="gale-kite", quantity="7")
    assert page.lines == {"watch-mug": 2, "gale-kite": 7}
    assert page.found(r'id="total">([^<]+)') == "€267.00"

    page = await customer.submit("/cart/quantity", sku="gale-kite", quantity="0")
    assert page.notes == [("success", "Gale kite is out of your cart.")]
    assert page.lines == {"watch-mug": 2}


async def test_steps(customer):
    """Plus and minus move by one, and below one the line is gone."""
    page = await customer.submit("/cart/step", sku="watch-mug", step="up")
    assert page.lines["watch-mug"] == 3

    page = await customer.submit("/cart/step", sku="gale-kite", step="down")
    assert page.lines == {"watch-mug": 3}

    page = await customer.submit("/cart/step", sku="watch-mug", step="sideways")
    assert [("error", f"A step is up or down. {UNCHANGED}")] == page.notes
    assert page.lines == {"watch-mug": 3}


async def test_no_more_than_we_pack(customer):
    """More than the most is refused; what was in the cart stays."""
    await customer.submit("/cart/quantity", sku="gale-kite", quantity="99")
    page = await customer.submit("/cart/add", sku="gale-kite")

    message = "We pack at most 99 of each: Gale kite stays at 99."
    assert [("error", message)] == page.notes
    assert await customer.cart() == {"watch-mug": 2, "gale-kite": 99}


async def test_remove_and_empty(customer):
    """One line goes alone; emptying takes them all."""
    page = await customer.submit("/cart/remove", sku="watch-mug")
    assert page.lines == {"gale-kite": 1}

    page = await customer.submit("/cart/empty")
    assert page.lines == {}
    assert "Nothing in it but wind" in page.text


async def test_two_tabs_lose_nothing(customer):
    """Thirty adds at once are thirty more items, of one or of two products (C2)."""
    skus = ["watch-mug", "gale-kite"] * 15
    await asyncio.gather(*(customer.send("/cart/add", sku=sku) for sku in skus))

    assert await customer.cart() == {"watch-mug": 17, "gale-kite": 16}


async def test_first_items_of_two_tabs(visitor):
    """Two tabs that add their first item at once share one session."""
    await visitor.get("/")
    skus = ["watch-mug", "gale-kite"]
    await asyncio.gather(*(visitor.send("/cart/add", sku=sku) for sku in skus))

    assert await visitor.cart() == {"watch-mug": 1, "gale-kite": 1}


async def test_visitors_have_carts_of_their_own(customer, new_visitor):
    """Nobody sees the cart of another."""
    assert await new_visitor().cart() == {}
    assert await customer.cart() == FULL
