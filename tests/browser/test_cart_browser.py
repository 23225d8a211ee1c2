"""The example shop in a real Chromium."""

import asyncio
import signal

import pytest

from backends import backend_url
from cart_visitor import open_shop
from chromiumkit import PATIENCE_MS, scroll_width

pytestmark = pytest.mark.slow
LONG_NAME = "Wilhelmina Featherstonehaugh-Carrington"


@pytest.fixture
async def shop(tmp_path):
    """The shop as a process, on a database of its own."""
    async with open_shop(tmp_path) as running:
        yield running


@pytest.fixture
async def window(chromium, shop):
    """A fresh browser profile without JavaScript: the shop needs none."""
    context = await chromium.new_context(base_url=shop.url, java_script_enabled=False)
    context.set_default_timeout(PATIENCE_MS)
    yield context
    await context.close()


@pytest.fixture
async def tab(window):
    """A tab that shows the shelf."""
    page = await window.new_page()
    await page.goto("/")
    return page


async def add(tab, sku):
    """Click "Add to cart", and wait until the next page is there."""
    async with tab.expect_navigation():
        await tab.click(f"#{sku} button")


async def press(tab, name):
    """Click a button by its name, and wait until the next page is there."""
    async with tab.expect_navigation():
        await tab.get_by_role("button", name=name, exact=True).click()


async def log_in(tab, name, at=""):
    """Log in as a person does."""
    await tab.goto(f"{at}/login")
    await tab.get_by_label("Your name").fill(name)
    await press(tab, "Log in")


async def items(tab):
    """Read the number beside "Cart"."""
    return int((await tab.inner_text("#item-count")).split()[0])


async def cart(tab, at=""):
    """Read the cart off the cart page."""
    await tab.goto(f"{at}/cart")
    fields = await tab.get_by_role("spinbutton").all()
    return [
        (await field.get_attribute("aria-label"), await field.input_value())
        for field in fields
    ]


FULL = [("Quantity of Storm lantern", "1"), ("Quantity of Night-watch mug", "2")]


async def fill(tab):
    """Put a lantern and two mugs into the cart."""
    for sku in ("storm-lantern", "watch-mug", "watch-mug"):
        await add(tab, sku)


async def test_cart_is_full_after_kill_9(shop, tab):
    """The server is killed and started again; the cart is still full (F2)."""
    await fill(tab)
    await shop.stop(signal.SIGKILL)
    await shop.open()

    await tab.reload()
    assert await items(tab) == 3
    assert await cart(tab) == FULL


@pytest.mark.parametrize("backend", ["sqlite", "redis", "mongo"])
async def test_a_purchase_at_two_servers(chromium, tmp_path, backend):
    """A purchase goes from one server to another and over a restart of both (F2)."""
    options = ("--store", backend_url(backend, tmp_path))
    async with (
        open_shop(tmp_path, *options) as one,
        open_shop(tmp_path, *options) as two,
    ):
        profile = await chromium.new_context(java_script_enabled=False)
        profile.set_default_timeout(PATIENCE_MS)
        tab = await profile.new_page()
        await tab.goto(one.url)
        await add(tab, "storm-lantern")
        await tab.goto(two.url)
        await add(tab, "watch-mug")
        await add(tab, "watch-mug")
        await log_in(tab, "Ada", two.url)
        await asyncio.gather(one.stop(signal.SIGKILL), two.stop(signal.SIGKILL))
        await asyncio.gather(one.open(), two.open())

        assert await cart(tab, one.url) == FULL
        await press(tab, "Place order")
        assert "2 \N{MULTIPLICATION SIGN} Night-watch mug" in await tab.inner_text(
            "main"
        )
        assert await cart(tab, two.url) == []
        await press(tab, "Log out")
        await tab.goto(one.url)
        assert "Log in" in await tab.inner_text("header")
        await profile.close()


async def test_two_tabs_lose_nothing(window, tab):
    """Two tabs add the same thing at the same time, 20 times: 40 are there (C2)."""
    other = await window.new_page()
    await other.goto("/")
    for done in range(20):
        await asyncio.gather(add(tab, "storm-lantern"), add(other, "storm-lantern"))
        await tab.goto("/")
        assert 2 * (done + 1) == await items(tab)

    assert await cart(tab) == [("Quantity of Storm lantern", "40")]


async def test_first_items_of_two_tabs(chromium, shop):
    """In a fresh profile, the first item of each of two tabs is kept."""
    for _ in range(3):
        profile = await chromium.new_context(base_url=shop.url)
        tabs = [await profile.new_page() for _ in range(2)]
        for tab in tabs:
            await tab.goto("/")
        await asyncio.gather(add(tabs[0], "gale-kite"), add(tabs[1], "watch-mug"))
        assert len(await cart(tabs[0])) == 2
        await profile.close()


async def test_login_keeps_the_cart(window, tab):
    """Log-in gives a new cookie and keeps the cart; log-out leaves neither."""
    await fill(tab)
    before = await session_cookie(window)
    await log_in(tab, "Ada")

    assert "Welcome, Ada" in await tab.inner_text("[role=status]")
    assert await cart(tab) == FULL
    assert before["value"] != (await session_cookie(window))["value"]

    await press(tab, "Log out")
    assert "You are logged out" in await tab.inner_text("[role=status]")
    assert await items(tab) == 0
    assert await cart(tab) == []


async def test_cookie_is_out_of_reach(window, tab):
    """The cookie ends with the browser, and scripts and other sites miss it (K3)."""
    await fill(tab)
    cookie = await session_cookie(window)

    assert (
        cookie["httpOnly"],
        cookie["sameSite"],
        cookie["expires"],
    ) == (True, "Lax", -1)


async def session_cookie(window):
    """Find the session cookie among the cookies of a profile."""
    cookies = await window.cookies()
    return next(cookie for cookie in cookies if cookie["name"] == "session")


async def test_change_and_order_by_keyboard(tab):
    """Steppers, quantity field, and order work without JavaScript and mouse."""
    await fill(tab)
    await tab.goto("/cart")
    await press(tab, "One more: Night-watch mug")
    await press(tab, "One less: Storm lantern")
    field = tab.get_by_label("Quantity of Night-watch mug", exact=True)
    assert await field.input_value() == "3"

    await field.fill("5")
    async with tab.expect_navigation():
        await field.press("Enter")
    assert await cart(tab) == [("Quantity of Night-watch mug", "5")]

    await press(tab, "Place order")
    assert "5 \N{MULTIPLICATION SIGN} Night-watch mug" in await tab.inner_text("main")
    assert await items(tab) == 0


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
async def test_no_sideways_scrolling(chromium, shop, width):
    """No page is wider than the screen, and the browser complains of nothing."""
    size = {"width": width, "height": 844}
    profile = await chromium.new_context(base_url=shop.url, viewport=size)
    page, complaints = await profile.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto("/")
    await fill(page)
    for name in ("", LONG_NAME):
        if name:
            await log_in(page, name)
        for path in ("/", "/login", "/cart"):
            await page.goto(path)
            await page.click("summary")
            assert width >= await scroll_width(page), path
    await press(page, "Place order")
    assert width >= await scroll_width(page)
    assert complaints == []
    await profile.close()
