"""The pages of the example chat in a real Chromium: odd input, any width, any hurry."""

import pytest

from chat_visitor import open_chat
from chromiumkit import PATIENCE_MS, scroll_width

pytestmark = pytest.mark.slow
MARKUP = "<img src=x onerror=alert(1)><b>hi</b>"
LONG_NAME = "W" * 40
LONG_TEXT = "W" * 500
SUBMIT_AND_RELOAD = """
(wait) => {
  document.body.id = "left";
  document.querySelector("main form").requestSubmit();
  setTimeout(() => location.reload(), wait);
}
"""


@pytest.fixture
async def chat(tmp_path):
    """The chat as a process, on a database of its own."""
    async with open_chat(tmp_path) as running:
        yield running


@pytest.fixture
async def visit(chromium, chat):
    """Open a fresh profile of some width, and gather what its browser complains of."""
    profiles = []

    async def visit(width=1280):
        size = {"width": width, "height": 844}
        profile = await chromium.new_context(base_url=chat.url, viewport=size)
        profile.set_default_timeout(PATIENCE_MS)
        profiles.append(profile)
        page = await profile.new_page()
        page.on("console", lambda message: visit.complaints.append(message.text))
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        page.on("dialog", lambda dialog: visit.complaints.append(dialog.message))
        return page

    visit.complaints = []
    yield visit
    for profile in profiles:
        await profile.close()


async def log_in(page, name):
    """Log in, and wait until the room is open."""
    await page.goto("/login")
    await give_name(page, name)


async def give_name(page, name):
    """Fill in the form for the log-in, and wait until the room is open."""
    await page.get_by_label("Your name").fill(name)
    await page.get_by_role("button", name="Log in").click()
    await page.locator("body.room[data-connection=open]").wait_for()


async def say(page, text):
    """Say something in the room, and see it there."""
    await page.locator("#text").fill(text)
    await page.keyboard.press("Enter")
    await page.locator(".line:not(.waiting)", has_text=text).wait_for()


async def test_markup_is_text(visit):
    """Markup in a name, a room or a line is shown as it was typed, and never run."""
    ada, ben = await visit(), await visit()
    await log_in(ada, MARKUP)
    await log_in(ben, "Ben")
    await say(ada, f"{MARKUP} there")
    text = ben.locator(".line .text", has_text=MARKUP)
    assert await text.inner_text() == f"{MARKUP} there"
    assert await ben.locator(".line .by b").inner_text() == MARKUP
    await ben.locator(".person", has_text=MARKUP).wait_for()

    await ada.locator(".new-room summary").click()
    await ada.get_by_label("Name of the new room").fill("<u>Crow's nest")
    await ada.get_by_role("button", name="Open").click()
    await ada.get_by_role("heading", name="<u>Crow's nest").wait_for()
    await ben.locator("#rooms a", has_text="<u>Crow's nest").wait_for()
    await ben.goto("/devices")
    assert await ben.locator("main img, main b, main u").count() == 0
    assert visit.complaints == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
async def test_no_sideways_scrolling(visit, width):
    """No page is wider than the screen, whatever is in it, and nothing is complained of."""
    ada, phone = await visit(width), await visit()
    await log_in(ada, LONG_NAME)
    await say(ada, LONG_TEXT)
    await ada.locator(".new-room summary").click()
    await ada.get_by_label("Name of the new room").fill("W" * 24)
    await ada.get_by_role("button", name="Open").click()
    await ada.get_by_role("heading", name="W" * 24).wait_for()
    assert width >= await scroll_width(ada)
    for path in ("/rooms/1", "/devices"):
        await ada.goto(path)
        await ada.locator("[data-connection=open]").wait_for()
        assert width >= await scroll_width(ada), path

    await ada.goto("/rooms/1")
    await ada.locator("#text").fill(LONG_TEXT)
    await log_in(phone, LONG_NAME)
    await phone.goto("/devices")
    await phone.get_by_role("button", name="Log out all others").click()
    await ada.locator("#ended[open]").wait_for()
    assert width >= await scroll_width(ada)
    await ada.get_by_role("link", name="Log in again").click()
    await ada.get_by_role("heading", name="Come aboard").wait_for()
    assert width >= await scroll_width(ada)
    assert visit.complaints == []


async def test_reload_during_the_login(visit):
    """Whoever reloads while the log-in is under way may try again, and is in (C6)."""
    for number in range(12):
        page = await visit()
        await page.goto("/login")
        await page.get_by_label("Your name").fill(f"Ada {number}")
        await page.evaluate(SUBMIT_AND_RELOAD, 2 * number)
        await page.locator(":is(#say, #name):not(#left *)").wait_for()
        if await page.locator("#name").count():  # the answer was lost
            await give_name(page, f"Ada {number}")
        await page.goto("/devices")
        assert f"Wherever Ada {number} is" in await page.inner_text("main")
        await page.close()
    assert visit.complaints == []


async def test_the_way_back_leads_nowhere(visit):
    """After the log-out the Back button shows nothing of what was said."""
    page = await visit()
    await log_in(page, "Ada")
    await say(page, "for our eyes only")
    async with page.expect_navigation():
        await page.get_by_role("button", name="Log out").click()
    await page.go_back()
    await page.get_by_role("heading", name="Come aboard").wait_for()
    assert "for our eyes only" not in await page.content()
    assert visit.complaints == []


async def test_a_server_that_restarts(visit, chat):
    """A lost connection is said and comes back, with what was typed meanwhile (F2)."""
    ada, ben = await visit(), await visit()
    await log_in(ada, "Ada")
    await log_in(ben, "Ben")
    await chat.stop()
    await ada.locator("[data-connection=lost]").wait_for()
    await ada.locator("#text").fill("said to a closed door")
    await ada.keyboard.press("Enter")
    await ada.locator(".waiting").wait_for()
    await chat.open()
    for page in (ada, ben):
        await page.locator("[data-connection=open]").wait_for()
    await ben.locator(".line", has_text="said to a closed door").wait_for()
    await ada.locator(".line:not(.waiting)", has_text="a closed door").wait_for()


async def test_more_than_a_server_takes_at_once(visit, chat):
    """What it refuses goes back into the field, all of it, before what is typed."""
    ada = await visit()
    await log_in(ada, "Ada")
    await chat.stop()
    await ada.locator("[data-connection=lost]").wait_for()
    for number in range(9):
        await ada.locator("#text").fill(f"line {number}")
        await ada.keyboard.press("Enter")
    await ada.locator("#text").fill("and")
    await chat.open()
    await ada.locator("#refused:not([hidden])").wait_for()
    await ada.locator(".waiting").first.wait_for(state="detached")
    told = ada.locator(".line:not(.waiting) .text")
    assert await told.all_inner_texts() == [f"line {number}" for number in range(6)]
    assert await ada.input_value("#text") == "line 6 line 7 line 8 and"


async def test_a_form_that_does_not_leave(visit):
    """A page that is still here after a form was sent hears of the end all the same."""
    ada = await visit()
    await log_in(ada, "Ada")
    await ada.evaluate("""() => {
      const form = document.createElement("form");
      form.action = "/nowhere";
      document.body.append(form);
      const left = new Event("submit", { bubbles: true, cancelable: true });
      form.dispatchEvent(left); // as pressed, and stopped: no navigation follows
    }""")
    phone = await visit()
    await log_in(phone, "Ada")
    await phone.goto("/devices")
    await phone.get_by_role("button", name="Log out all others").click()
    await ada.locator("#ended[open]").wait_for()
    assert await ada.inner_text("#ended-reason") == "1008 revoked"


async def test_ended_while_the_server_was_away(visit, chat):
    """Who was logged out while not connected hears it at once when they are again (W4)."""
    ada = await visit()
    await log_in(ada, "Ada")
    await ada.context.set_offline(True)
    await ada.locator("[data-connection=lost]").wait_for()
    phone = await visit()
    await log_in(phone, "Ada")
    await phone.goto("/devices")
    await phone.get_by_role("button", name="Log out all others").click()
    await phone.get_by_text("1 device is logged out").wait_for()
    await ada.context.set_offline(False)
    await ada.locator("#ended[open]").wait_for()
    assert await ada.inner_text("#ended-reason") == "1008 anonymous"
    assert await ada.locator("main").count() == 0


async def test_a_low_screen(visit):
    """What one writes with can be scrolled to where there is no room for all of it."""
    ada = await visit(320)
    await log_in(ada, "Ada")
    assert await ada.evaluate("document.body.offsetHeight") == 844
    await ada.set_viewport_size({"width": 320, "height": 256})
    await ada.mouse.move(150, 20)  # not where the talk itself would scroll
    await ada.mouse.wheel(0, 1000)
    await ada.wait_for_function("""() => {
      const { top, bottom } = document.getElementById("say").getBoundingClientRect();
      return top >= 0 && bottom <= innerHeight;
    }""")


async def test_the_notice_of_the_end_leads_to_the_log_in(visit):
    """Escape leaves it where it is, and if the browser insists, there is a way on."""
    ada, phone = await visit(), await visit()
    await log_in(ada, "Ada")
    await log_in(phone, "Ada")
    await phone.goto("/devices")
    await phone.get_by_role("button", name="Log out all others").click()
    await ada.locator("#ended[open]").wait_for()
    await ada.evaluate("document.getElementById('ended').close()")
    await ada.get_by_role("heading", name="Come aboard").wait_for()


async def test_somebody_else_in_another_tab(visit):
    """A page that comes back after another log-in says nothing under that name (C6)."""
    ada, ben = await visit(), await visit()
    await log_in(ada, "Ada")
    await log_in(ben, "Ben")
    await ada.context.set_offline(True)
    await ada.locator("[data-connection=lost]").wait_for()
    await ada.locator("#text").fill("for Ada's friends")
    await ada.keyboard.press("Enter")
    theirs = [one for one in await ben.context.cookies() if one["name"] == "chat"]
    await ada.context.add_cookies(theirs)
    await ada.context.set_offline(False)
    await ada.locator("#ended[open]").wait_for()
    assert await ada.inner_text("#ended-reason") == "1008 anonymous"
    assert "for Ada's friends" in await ada.inner_text("#unsent")
    assert await ben.locator(".line", has_text="friends").count() == 0
