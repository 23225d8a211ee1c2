"""The example chat, and what is meant to harm it or comes from a bad line."""

import asyncio
import logging
from urllib.parse import urlencode, urlsplit

import pytest
from tornado.log import app_log

from chat_visitor import chat_here, guests, open_chat
from examplekit import PATIENCE, FragileStore
from examples.chat import sockets
from httpkit_stores import AsyncStore


@pytest.fixture
def store():
    """A store whose calls can be parked."""
    return AsyncStore()


@pytest.fixture
async def guest(tmp_path, store):
    """Open a chat on that store, and bring people to it."""
    async with chat_here(tmp_path, session_store=store) as bring:
        yield bring


async def send_raw(guest, head, body=""):
    """Send a request by hand, with the cookies of a guest; return both ends."""
    address = urlsplit(guest.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    fields = {"Host": address.netloc, **guest.headers}
    lines = [head, *(f"{name}: {value}" for name, value in fields.items())]
    writer.write("\r\n".join([*lines, "", body]).encode())
    await writer.drain()
    return reader, writer


@pytest.mark.slow
async def test_a_huge_form_is_not_read(tmp_path):
    """A form larger than any of ours is refused by its length, before it is sent."""
    async with open_chat(tmp_path) as chat, guests() as bring:
        head = "POST /login HTTP/1.1\r\nContent-Length: 10000000"
        reader, writer = await send_raw(bring(chat.url), head)
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert (await bring(chat.url).log_in("Ada")).session_cookie


async def test_who_is_told_to_go_changes_nothing_any_more(guest):
    """What comes of a page that is somebody else's by now is not done for them (C6)."""
    ben = await guest().log_in("Ben")
    shake = (
        "GET /live/room?as=Ada HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw=="
    )
    reader, writer = await send_raw(ben, shake)
    enter = b'{"enter": 2}'
    no_mask = bytes(4)
    writer.write(b"\x81" + bytes([0x80 + len(enter)]) + no_mask + enter)
    writer.write(b"\x88\x80" + no_mask)  # and hangs up, as RFC 6455 has it
    answer = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    assert b"anonymous" in answer
    assert (await ben.get("/")).headers["Location"] == "/rooms/1"


async def test_a_long_name_is_not_kept(guest):
    """A name as long as a form may be is refused, and nothing of it is stored."""
    page = await guest().submit("/login", name="x" * 60_000)
    assert page.notes == [("error", "Please give a name of 1 to 40 letters.")]
    assert "xxx" not in page.text


@pytest.mark.parametrize("handle", ["", "x" * 60_000, "<b>", "\x00", "' OR 1 --"])
async def test_a_handle_that_is_none_ends_nothing(guest, handle):
    """What is no handle of the user's is refused in words, and not shown (E6)."""
    ada, phone = await guest().log_in("Ada"), await guest().log_in("Ada")
    page = await ada.submit("/devices/end", handle=handle)
    assert page.notes == [("error", "That is none of your devices, or not any more.")]
    assert "<b>" not in page.text
    assert (await phone.devices()).status == 200


async def test_a_browser_may_claim_to_be_anything(guest):
    """Of what a browser says about itself only names that are known are shown."""
    liar = guest()
    liar.agent = "<script>alert(1)</script> Firefox " + "x" * 5000
    await liar.log_in("Ada")
    page = await liar.devices()
    assert page.devices == [("Firefox", True)]
    assert "alert(1)" not in page.text


@pytest.mark.parametrize("known", [False, True], ids=["fresh", "with-a-session"])
async def test_reload_during_the_login(guest, store, known):
    """Who gives up on a log-in and tries again is in; its lost answer harms nobody (C6)."""
    ada = guest()
    await (ada.send("/login", name="") if known else ada.get("/login"))
    body = urlencode({"_xsrf": ada.token, "name": "Ada"})
    gate = store.park("commit")
    form = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}"
    _, writer = await send_raw(ada, f"POST /login HTTP/1.1\r\n{form}", body)
    await gate.arrival()
    writer.close()
    again = asyncio.create_task(ada.log_in("Ada"))
    gate.open()
    await again
    here = await ada.enter()
    await here.say("made it")
    await here.line("made it")
    assert ("Firefox on Linux", True) in (await ada.devices()).devices


@pytest.mark.parametrize("letter", ["\x00", "\N{ROCKET}"])
async def test_the_largest_history_fits(guest, letter):
    """A room full of the largest lines there are can be entered like any other."""
    ada = await guest().log_in("\N{ROCKET}" * 40)
    file = guest.app.settings["chat_hub"]._messages
    for number in range(60):
        name = "\N{ROCKET}" * 40
        file.say(1, name, letter * sockets.MAX_TEXT, f"{number}".rjust(40))
    here = await ada.enter()
    assert len(here.lines) == 50
    await here.say("room enough")
    await here.line("room enough")


@pytest.mark.parametrize("path", ["/live/room", "/live/devices"])
async def test_gone_before_the_socket_is_open(guest, store, path, caplog):
    """Who hangs up during the handshake leaves no trace, and nothing running."""
    ada = await guest().log_in("Ada")
    gate = store.park("load")
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade"
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    _, writer = await send_raw(ada, f"GET {path} HTTP/1.1\r\n{upgrade}\r\n{key}")
    await gate.arrival()
    with caplog.at_level(logging.ERROR, app_log.name):
        writer.close()
        await writer.wait_closed()
        gate.open()
        await ada.devices()
    assert caplog.records == []


async def test_devices_while_the_store_is_out_of_reach(tmp_path, monkeypatch, caplog):
    """The open list of devices says so in the log, and goes on when it can (F1)."""
    monkeypatch.setattr(sockets, "LOOK_AT_DEVICES_EVERY", 0.02)
    store = FragileStore()
    async with chat_here(tmp_path, session_store=store) as guest:
        ada = await guest().log_in("Ada")
        list_ = await ada.connect("/live/devices")
        await list_.news("devices")
        store.broken = True
        await asyncio.wait_for(store.refused.wait(), PATIENCE)
        store.broken = False
        await guest().log_in("Ada")
        assert (await list_.news("devices")).count("<li") == 2
        assert "the devices cannot be listed now" in caplog.text
        assert "Traceback" not in caplog.text
