"""The example chat in a real Chromium: an end at one device is the end at another."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from backends import backend_url
from chat_visitor import open_chat
from chromiumkit import PATIENCE_MS

pytestmark = pytest.mark.slow
WITHIN = 8.0
"""Seconds to wait for what takes one: the machine may be busy with a second browser."""
SERVERS = [
    ("sqlite", 1),
    *((backend, 2) for backend in ("sqlite", "file", "redis", "mongo")),
    ("mongo-replica-set", 2),
]


@pytest.fixture(params=SERVERS, ids=lambda param: f"{param[1]}-on-{param[0]}")
async def servers(request, tmp_path):
    """The addresses of two servers on one store, which may be one and the same."""
    backend, number = request.param
    options = ("--store", backend_url(backend, tmp_path))
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(open_chat(tmp_path, *options))
            for _ in range(number)
        ]
        yield opened[0].url, opened[-1].url


class Device:
    """A browser profile of its own, with a room open in it."""

    def __init__(self, page, url):
        self.page = page
        self.url = url
        self.closed = asyncio.get_running_loop().create_future()
        page.on("websocket", self._watch)

    def _watch(self, socket):
        socket.on("close", self._note_end)

    def _note_end(self, _socket):
        if not self.closed.done():
            self.closed.set_result(asyncio.get_running_loop().time())

    async def log_in(self, name):
        """Log in as a person does, and wait until the room is open."""
        await self.page.goto(f"{self.url}/login")
        await self.page.get_by_label("Your name").fill(name)
        await self.page.get_by_role("button", name="Log in").click()
        await self.page.locator("body.room[data-connection=open]").wait_for()

    async def say(self, text):
        """Say something in the room, and see it there."""
        await self.page.get_by_label("Message to").fill(text)
        await self.page.keyboard.press("Enter")
        await self.page.locator(".line:not(.waiting)", has_text=text).wait_for()

    async def open_devices(self, others):
        """Open the page of devices in another tab, which lists so many others."""
        tab = await self.page.context.new_page()
        await tab.goto(f"{self.url}/devices")
        assert await tab.locator(".device").count() == 1 + others
        return tab

    async def ended(self, started):
        """Wait until the socket is closed, and print how long after *started*."""
        closed = await asyncio.wait_for(self.closed, WITHIN)
        print(f"closed after {closed - started:.3f} seconds")

    async def notice(self):
        """Read the reason and the title that a person who was thrown out sees."""
        await self.page.locator("#ended[open]").wait_for()
        reason, title = "#ended-reason", "#ended-title"
        return await self.page.inner_text(reason), await self.page.inner_text(title)


async def press(tab, button):
    """Press a button, and wait for the next page; return when it was pressed."""
    started = asyncio.get_running_loop().time()
    async with tab.expect_navigation():
        await tab.get_by_role("button", name=button).click()
    return started


@pytest.fixture
async def device(chromium):
    """Hand out devices, each a fresh profile."""
    profiles = []

    async def fresh(url):
        profile = await chromium.new_context()
        profile.set_default_timeout(PATIENCE_MS)
        profiles.append(profile)
        return Device(await profile.new_page(), url)

    yield fresh
    for profile in profiles:
        await profile.close()


async def test_one_device_ends_another(device, servers):
    """Logged out from another device, a socket closes and the page says why (W1, E6).

    That takes less than a second. The test waits eight times as long, since it shares
    the machine with browsers and databases, and prints what it took from the click to
    the close (``pytest -rP``).
    """
    desk, phone = await device(servers[0]), await device(servers[1])
    await desk.log_in("Ada")
    await phone.log_in("Ada")
    await desk.say("for your eyes only")
    await phone.page.get_by_label("Message to").fill("half a sentence")

    tab = await desk.open_devices(others=1)
    started = await press(tab, "Log out Chrome")
    await phone.ended(started)
    assert await phone.notice() == ("1008 revoked", "Logged out from another device")
    assert "half a sentence" in await phone.page.inner_text("#unsent")
    assert "for your eyes only" not in await phone.page.content()
    assert "That device is logged out." in await tab.inner_text(".notes")
    assert not desk.closed.done()
    await desk.say("still here")

    await phone.page.goto(f"{phone.url}/devices")
    assert "/login" in phone.page.url
    await phone.log_in("Ada")


async def test_log_out_everywhere(device, servers):
    """One button closes every socket of the user, here and elsewhere (W1, E6)."""
    desk, phone, ben = [await device(url) for url in (*servers, servers[1])]
    for one, name in ((desk, "Ada"), (phone, "Ada"), (ben, "Ben")):
        await one.log_in(name)

    tab = await desk.open_devices(others=1)
    started = await press(tab, "Log out everywhere")
    await phone.ended(started)
    await desk.ended(started)
    assert await phone.notice() == ("1008 revoked", "Logged out from another device")
    assert await desk.notice() == ("1008 destroyed", "You logged out")
    assert "You are logged out everywhere." in await tab.inner_text(".notes")
    assert not ben.closed.done()
    await ben.say("still here")


@pytest.mark.parametrize("servers", [("sqlite", 2)], indirect=True, ids=["2-on-sqlite"])
async def test_log_out_closes_the_other_tabs(device, servers):
    """Log-out in one tab is the end of the others in that browser, at any server (W1)."""
    desk, phone = await device(servers[0]), await device(servers[1])
    await desk.log_in("Ada")
    await phone.log_in("Ada")
    # Cookies know no ports, so the other server meets the same browser.
    tab = Device(await desk.page.context.new_page(), servers[1])
    await tab.page.goto(f"{tab.url}/rooms/2")
    await tab.page.locator("[data-connection=open]").wait_for()
    await tab.ended(await press(desk.page, "Log out"))
    assert await tab.notice() == ("1008 destroyed", "You logged out")
    assert not phone.closed.done()
    await phone.say("still here")
