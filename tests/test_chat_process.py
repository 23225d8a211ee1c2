"""The example chat as a process: restarts, signals, and what it cannot open."""

import signal

import pytest

from backends import backend_url
from chat_visitor import guests, open_chat
from examplekit import ExampleProcess

pytestmark = pytest.mark.slow


@pytest.fixture
async def bring():
    """Bring people to a chat."""
    async with guests() as bring:
        yield bring


async def test_a_killed_server(tmp_path, bring):
    """After kill -9 and a new start people are logged in, and lines are kept (F2)."""
    async with open_chat(tmp_path) as chat:
        ada = await bring(chat.url).log_in("Ada")
        here = await ada.enter()
        await here.say("before")
        await here.line("before")
        await chat.stop(signal.SIGKILL)
        await here.closed()
        await chat.open()
        again = await ada.enter()
        assert (await again.line("before"))["name"] == "Ada"
        assert (await ada.devices()).devices == [("Firefox on Linux", True)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_close_the_chat(tmp_path, bring, number):
    """SIGTERM and Ctrl-C tell the open sockets, and end it without a traceback."""
    async with open_chat(tmp_path) as chat:
        ada = await bring(chat.url).log_in("Ada")
        here, devices = await ada.enter(), await ada.connect("/live/devices")
        await devices.news("devices")
        code, output, errors = await chat.stop(number)
        assert await here.closed() == (1001, "the server stops")
        await devices.closed()
    assert code == 0, errors
    assert "Closing the chat" in output
    assert "Traceback" not in errors


@pytest.mark.parametrize("backend", ["redis", "redis-cluster", "mongo"])
async def test_two_chats_on_one_database(tmp_path, bring, backend):
    """A session of one server is ended at the other, and its socket says so (W1)."""
    options = ("--store", backend_url(backend, tmp_path))
    async with (
        open_chat(tmp_path, *options) as one,
        open_chat(tmp_path, *options) as two,
    ):
        ada, phone = [await bring(chat.url).log_in("Ada") for chat in (one, two)]
        talk = await phone.enter()
        await ada.get("/devices")
        await ada.send("/devices/end-others")
        assert await talk.closed() == (1008, "revoked")
        assert (await phone.devices()).status == 302


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--messages", "/no/such/folder/chat.db"), "--messages: cannot use /no/such"),
        (("--messages", "broken.db"), "--messages: cannot use broken.db"),
        (("--store", "nosuch://here"), "nosuch://"),
        (("--store", "redis://127.0.0.1:1"), "check that Redis is running"),
    ],
)
async def test_what_cannot_be_opened(tmp_path, options, named):
    """What cannot be opened is one clear line and exit code 2 (F3)."""
    (tmp_path / "broken.db").write_bytes(b"this is not a database" * 100)
    code, output, errors = await ExampleProcess("chat", tmp_path, *options).run()
    [message] = errors.strip().splitlines()
    assert (code, output) == (2, "")
    assert message.startswith("chat: --")
    assert named in message
