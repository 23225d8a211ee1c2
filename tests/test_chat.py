"""The example chat over HTTP, in this process: log-in, rooms, devices."""

import asyncio
import re
from datetime import datetime, timedelta, timezone

import pytest

from chat_visitor import chat_here
from examples.chat.devices import ago, browser_of

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1"
)
EDGE = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 "
    "(KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0"
)


@pytest.fixture
async def guest(tmp_path):
    """Open a chat on files of its own, and bring people to it."""
    async with chat_here(tmp_path) as bring:
        yield bring


async def test_strangers_are_asked_for_a_name(guest):
    """Without a log-in every page leads to it, and forms are refused (S1)."""
    stranger = guest()
    for path in ("/", "/rooms/1", "/devices"):
        answer = await stranger.get(path)
        assert answer.headers["Location"].startswith("/login"), path
    for path in ("/rooms", "/devices/end", "/devices/end-others", "/devices/end-all"):
        assert (await stranger.send(path)).status == 403, path
    assert stranger.session_cookie == ""


async def test_login_leads_to_a_room(guest):
    """The name that was given is shown, and the first room is open."""
    ada = await guest().log_in("  Ada   Lovelace ")
    answer = await ada.get("/")
    page = await ada.get(answer.headers["Location"])
    assert "Logged in as Ada Lovelace" in page.text
    assert page.found(r'id="room-name">([^<]+)') == "Harbour"
    assert (await ada.get("/login")).headers["Location"] == "/"


@pytest.mark.parametrize("name", ["", "   ", "x" * 41, "a\u200bb", "\u202eadA"])
async def test_bad_names_are_refused(guest, name):
    """A name that is none is refused with a reason, and nobody is logged in."""
    page = await guest().submit("/login", name=name)
    assert page.notes == [("error", "Please give a name of 1 to 40 letters.")]
    assert "Log out" not in page.text


async def test_names_are_text(guest):
    """Names of people and of rooms are shown as typed, never run as markup."""
    ada = await guest().log_in("<script>alert(1)</script>")
    page = await ada.submit("/rooms", name="<img src=x>")
    assert "<script>alert" not in page.text
    assert "<img src=x>" not in page.text
    assert page.text.count("&lt;img src=x&gt;") >= 2


async def test_another_name_is_another_session(guest):
    """Who logs in as somebody else in the same browser ends the session before (C3)."""
    ada = await guest().log_in("Ada")
    twin = guest()
    twin.cookies = dict(ada.cookies)
    await ada.log_in("Ben")
    assert "Logged in as Ben" in (await ada.devices()).text
    assert (await twin.devices()).status == 302


async def test_the_same_name_again_is_no_new_login(guest):
    """A second tab whose form was still open leaves the first one's socket alone (W3)."""
    ada = await guest().log_in("Ada")
    here = await ada.enter()
    before = ada.session_cookie
    await ada.log_in("Ada")
    assert ada.session_cookie == before
    await here.say("still me")
    await here.line("still me")


async def test_rooms(guest):
    """A room is opened once, whatever the case of its name, and there is an end to it."""
    ada = await guest().log_in("Ada")
    first = await ada.send("/rooms", name="Crow's nest")
    again = await ada.send("/rooms", name="CROW'S NEST")
    assert first.headers["Location"] == again.headers["Location"]
    page = await ada.submit("/rooms", name="x" * 25)
    assert page.status == 302
    for number in range(30):
        await ada.send("/rooms", name=f"Room {number}")
    assert (await ada.send("/rooms", name="One more")).headers["Location"] == "/"
    assert (await ada.get("/rooms/99")).status == 404
    assert (await ada.get("/rooms/4")).text.count('href="/rooms/') == 30


async def test_devices_are_listed(guest):
    """Each session of the user is a line, this one first; nobody else's is there."""
    desk, phone, ben = guest(), guest(), guest()
    phone.agent, ben.agent = IPHONE, EDGE
    for one, name in ((desk, "Ada"), (phone, "Ada"), (ben, "Ben")):
        await one.log_in(name)
    page = await desk.devices()
    assert page.devices == [("Firefox on Linux", True), ("Safari on iPhone", False)]
    assert "127.0.0.1 · logged in just now" in page.text
    assert (await ben.devices()).devices == [("Edge on Windows", True)]


async def test_one_device_is_ended(guest):
    """What one logs out on another device is logged out, and stays so (C3, E6)."""
    desk, phone = guest(), guest()
    await desk.log_in("Ada")
    await phone.log_in("Ada")
    [handle] = (await desk.devices()).handles
    page = await desk.submit("/devices/end", handle=handle)
    assert page.notes == [("success", "That device is logged out.")]
    assert len(page.devices) == 1
    assert (await phone.devices()).status == 302

    page = await desk.submit("/devices/end", handle=handle)
    assert [category for category, _ in page.notes] == ["error"]


async def test_the_session_of_a_stranger_cannot_be_ended(guest):
    """Whoever learned a handle of somebody else can end nothing with it."""
    ada, ben = guest(), guest()
    await ada.log_in("Ada")
    await ben.log_in("Ben")
    [info] = await guest.manager.sessions_of("Ada")
    page = await ben.submit("/devices/end", handle=info.handle)
    assert page.notes[0][0] == "error"
    assert (await ada.devices()).status == 200


async def test_others_are_ended_and_then_all(guest):
    """One button leaves this session only, the other none (E6)."""
    browsers = [guest() for _ in range(4)]
    for one in browsers:
        await one.log_in("Ada")
    here, *others = browsers
    page = await here.submit("/devices/end-others")
    assert page.notes == [("success", "3 devices are logged out. This one is not.")]
    assert [(await one.devices()).status for one in others] == [302] * 3

    await others[0].log_in("Ada")
    page = await here.submit("/devices/end-all")
    assert page.notes == [("success", "You are logged out everywhere.")]
    assert [(await one.devices()).status for one in browsers] == [302] * 4


async def test_the_sixth_device_ends_the_oldest(guest):
    """At most five devices are logged in; the oldest goes, the others stay (E7)."""
    browsers = [guest() for _ in range(6)]
    for one in browsers:
        await one.log_in("Ada")
    statuses = [(await one.devices()).status for one in browsers]
    assert statuses == [302, 200, 200, 200, 200, 200]


@pytest.mark.parametrize("token", ["", "made-up"])
@pytest.mark.parametrize(
    "form", ["logout", "rooms", "devices/end", "devices/end-others", "devices/end-all"]
)
async def test_forged_forms_are_refused(guest, form, token):
    """A form without the token of this visitor gets a 403 and changes nothing."""
    ada, other = guest(), guest()
    await ada.log_in("Ada")
    await other.log_in("Ada")
    page = await ada.send(f"/{form}", name="Here", _xsrf=token)
    assert page.status == 403
    assert "This form has expired" in page.text
    assert len((await ada.devices()).devices) == 2


async def test_a_request_from_before_the_login_sees_nothing_of_it(guest):
    """Parallel requests with the old cookie are anonymous and overwrite nothing (C6)."""
    ada = guest()
    await ada.send("/login", name="")  # a note waits, so there is a session
    before = guest()
    before.cookies, before.token = dict(ada.cookies), ada.token
    await ada.log_in("Ada")
    late = await asyncio.gather(*(before.fetch("/devices") for _ in range(10)))
    assert {page.status for page in late} == {302}
    assert not any("Set-Cookie" in page.headers for page in late)
    assert (await ada.devices()).status == 200


async def test_pages_load_nothing_from_elsewhere(guest):
    """Every page forbids what is not its own, and carries no inline script or style."""
    ada = await guest().log_in("Ada")
    for path in ("/rooms/1", "/devices", "/nowhere"):
        page = await ada.get(path)
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["Cache-Control"] == "no-store"
        assert not re.search(r"<script>|<style|\sstyle=|\son\w+=|//\w", page.text)


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (IPHONE, ("Safari", "iPhone")),
        (EDGE, ("Edge", "Windows")),
        ("Mozilla/5.0 (Android 14; Mobile; rv:1) Firefox/1", ("Firefox", "Android")),
        ("curl/8.5.0", ("curl", "")),
        ("", ("Unknown browser", "")),
    ],
)
def test_browsers_in_words(agent, words):
    """A user agent is told by browser and system."""
    assert browser_of(agent) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"),
        (59, "just now"),
        (61, "1 minute ago"),
        (7300, "2 hours ago"),
        (200_000, "2 days ago"),
    ],
)
def test_times_in_words(seconds, words):
    """How long ago is told in the largest unit that fits."""
    assert ago(datetime.now(timezone.utc) - timedelta(seconds=seconds)) == words
