"""The sockets of the example chat: talk, presence, limits, and the end of a session."""

import asyncio
import sqlite3
from types import SimpleNamespace

import pytest
from tornado.httpclient import HTTPClientError

from chat_visitor import chat_here
from examplekit import PATIENCE, FragileStore
from examples.chat import hub, messages, sockets
from tornado_sessions.stores.base import Delete


@pytest.fixture
async def guest(tmp_path):
    """Open a chat on files of its own, and bring people to it."""
    async with chat_here(tmp_path) as bring:
        yield bring


@pytest.fixture
async def elsewhere(guest, tmp_path):
    """Open a second server on the same files."""
    async with chat_here(tmp_path) as bring:
        yield bring


@pytest.fixture
async def ada(guest):
    """Somebody who is logged in."""
    return await guest().log_in("Ada")


async def test_talk(ada, guest):
    """What is said is heard in the room, by who said it too, and not in others."""
    ben = await guest().log_in("Ben")
    here, there, next_door = await ada.enter(1), await ben.enter(1), await ben.enter(2)
    nonce = await here.say("  Hello,\n <b>all</b>  ")
    mine, theirs = (
        await here.line("Hello, <b>all</b>"),
        await there.line("Hello, <b>all</b>"),
    )
    assert (mine["name"], mine["nonce"]) == ("Ada", nonce)
    assert "nonce" not in theirs
    await next_door.say("Nobody here?")
    await next_door.line("Nobody here?")
    assert len(next_door.lines) == 1


async def test_the_name_comes_from_the_session(ada):
    """What a page claims about its name is ignored."""
    here = await ada.enter()
    await here.send(say="I am Ben", nonce="1", name="Ben")
    assert (await here.line("I am Ben"))["name"] == "Ada"


async def test_history(ada, guest):
    """Who enters sees the last fifty lines, oldest first."""
    file = guest.app.settings["chat_hub"]._messages
    for number in range(60):
        file.say(1, "Ben", f"line {number}", f"{number}")
    await (talk := await ada.connect()).send(enter=1)
    lines = await talk.news("lines")
    assert [line["text"] for line in lines] == [f"line {n}" for n in range(10, 60)]


async def test_a_line_sent_again_is_there_once(ada):
    """A page that lost its connection may send a line twice with one nonce."""
    here = await ada.enter()
    for _ in range(2):
        await here.send(say="once", nonce="same")
    await here.say("after")
    await here.line("after")
    assert [line["text"] for line in here.lines] == ["once", "after"]
    assert here.state["kept"] == "same"


async def test_the_file_fails_when_the_first_one_enters(ada, guest, monkeypatch):
    """They are told everything as soon as it works again."""
    file = guest.app.settings["chat_hub"]._messages
    newest, failures = file.newest, [sqlite3.OperationalError("locked")]

    def fails_once():
        if failures:
            raise failures.pop()
        return newest()

    monkeypatch.setattr(file, "newest", fails_once)
    here = await ada.enter()
    await here.say("hello")
    await here.line("hello")
    assert not failures


async def test_the_room_and_a_count_are_kept_in_the_session(ada):
    """A socket saves the room, and two of them count lines without a loss (W3, C2)."""
    one, two = await ada.enter(2), await ada.enter(2)
    await asyncio.gather(*(talk.say(str(talk)) for talk in (one, two, one, two)))
    while len(one.lines) < 4:
        await one.heard()
    assert (await ada.get("/")).headers["Location"] == "/rooms/2"
    assert "you have said 4 lines" in (await ada.devices()).text


@pytest.mark.parametrize(
    "message",
    ["no json", "[" * 5000, "{}", '{"enter": "1"}', '{"say": "x"}', '{"enter": 99}'],
)
async def test_nonsense_closes_the_socket(ada, message):
    """What no page of ours sends closes the socket that sent it."""
    talk = await ada.connect()
    await talk.connection.write_message(message)
    assert (await talk.closed())[0] == 1003


@pytest.mark.parametrize("text", ["", "  \n ", "x" * 501])
async def test_lines_are_bounded(ada, text):
    """An empty line and one that is too long are refused, with a reason."""
    here = await ada.enter()
    nonce = await here.say(text)
    assert await here.news("refused") == nonce
    assert here.state["why"] == "A message has 1 to 500 characters."
    await here.say("x" * 500)
    await here.line("x" * 500)


async def test_a_huge_message_closes_the_socket(ada):
    """More than a frame may hold is not even read."""
    here = await ada.enter()
    await here.say("x" * 10_000)
    assert (await here.closed())[0] in (1006, 1009)


async def test_rate(ada):
    """Who says too much at once is told so, over all of their sockets together."""
    one, two = await ada.enter(), await ada.enter()
    for number in range(hub.AT_ONCE):
        await (one, two)[number % 2].say(f"{number}")
    nonce = await one.say("one more")
    assert await one.news("refused") == nonce
    assert "a lot at once" in one.state["why"]


async def test_odd_characters_do_no_harm(ada):
    """A lone surrogate, a NUL and an emoji are text like any other."""
    here = await ada.enter()
    await here.connection.write_message('{"say": "a\\ud800b\\u0000 🛟", "nonce": "1"}')
    await here.line("a?b\x00 🛟")


async def test_odd_characters_of_a_nonce_do_no_harm(ada):
    """It is kept like a line, and comes back with it."""
    here = await ada.enter()
    await here.connection.write_message('{"say": "ahoy", "nonce": "a\\ud800"}')
    await here.line("ahoy")
    assert here.lines[-1]["nonce"] == "a?"


async def test_true_is_no_room(ada):
    """JSON's true equals the number 1 in Python, but it is not a number of a room."""
    here = await ada.connect()
    await here.send(enter=True)
    assert (await here.closed())[0] == 1003
    assert (await ada.get("/")).headers["Location"] != "/rooms/True"


async def test_what_was_said_is_counted_for_a_while(ada, guest, monkeypatch):
    """Of those who are silent nothing is kept, however many came by."""
    chat, now = guest.app.settings["chat_hub"], 1000.0
    monkeypatch.setattr(hub, "time", SimpleNamespace(monotonic=lambda: now))
    for number in range(100):
        now += 1.0
        assert not chat.is_hasty(f"guest {number}")
    assert len(chat._said) <= hub.WITHIN + 1
    said = [chat.is_hasty("Ada") for _ in range(hub.AT_ONCE + 2)]
    assert said == [False] * hub.AT_ONCE + [True] * 2
    now += hub.WITHIN
    assert chat.is_hasty("Ada")
    now += 0.1
    assert not chat.is_hasty("Ada")


async def test_presence(ada, guest):
    """Who enters is seen, once whatever the number of their sockets, until they go."""
    ben = await guest().log_in("Ben")
    here = await ada.enter()
    tabs = [await ben.enter(), await ben.enter()]
    await here.people("Ada", "Ben")
    assert here.state["rooms"][0] == {"id": 1, "name": "Harbour", "people": 2}
    for talk in tabs:
        talk.connection.close()
    await here.people("Ada")


async def test_two_servers(ada, elsewhere):
    """Two servers on one store and one file exchange lines, people and rooms."""
    here, ben = await ada.enter(), await elsewhere().log_in("Ben")
    there = await ben.enter()
    await here.people("Ada", "Ben")
    await there.people("Ada", "Ben")
    await here.say("Hello over there")
    assert (await there.line("Hello over there"))["name"] == "Ada"
    await ben.send("/rooms", name="Crow's nest")
    while here.state["rooms"][-1]["name"] != "Crow's nest":
        await here.heard()


async def test_people_of_a_dead_server_lapse(ada, guest, monkeypatch):
    """Whose server says nothing of them any more is gone after a while (F2)."""
    monkeypatch.setattr(messages, "LAPSE", 3.0)
    ghost = messages.Presence("dead", "handle", "Ghost", 1)
    guest.app.settings["chat_hub"]._messages.beat([ghost], [])
    here = await ada.enter()
    await here.people("Ada", "Ghost")
    await here.people("Ada")


async def test_strangers_get_no_socket(guest):
    """A socket without a log-in is closed at once, and says so."""
    for path in ("/live/room", "/live/devices"):
        assert await (await guest().connect(path)).closed() == (1008, "anonymous")


async def test_a_page_that_comes_back_as_somebody_else(ada, guest):
    """C6: what it has yet to send goes out under no other name than its own."""
    ben = await guest().log_in("Ben")
    for path in ("/live/room", "/live/devices"):
        socket = await ben.connect(f"{path}?as=Ada")
        assert await socket.closed() == (1008, "anonymous")
    talk = await ada.connect("/live/room?as=Ada")
    await talk.send(enter=1)
    await talk.people("Ada")


async def test_other_sites_get_no_socket(ada):
    """A page of another site cannot open a socket with the visitor's cookie."""
    with pytest.raises(HTTPClientError) as refusal:
        await ada.connect(Origin="http://elsewhere.example")
    assert refusal.value.code == 403


async def test_logout_closes_every_socket(ada, guest):
    """Log-out closes the sockets of that browser at once, and no others (W1, T7)."""
    other = await guest().log_in("Ada")
    room, list_, spared = (
        await ada.enter(),
        await ada.connect("/live/devices"),
        (await other.enter()),
    )
    await ada.send("/logout")
    assert await room.closed() == (1008, "destroyed")
    assert await list_.closed() == (1008, "destroyed")
    await spared.say("still here")
    await spared.line("still here")


async def test_reasons(ada, guest):
    """A socket is closed with the reason its session ended for (W1, E6, E7)."""
    phone = await guest().log_in("Ada")
    talk = await phone.enter()
    await ada.send("/devices/end-others")
    assert await talk.closed() == (1008, "revoked")

    oldest = await ada.enter()
    for _ in range(5):
        await guest().log_in("Ada")
    assert await oldest.closed() == (1008, "evicted")


async def test_an_end_at_another_server(ada, elsewhere):
    """A session that another server ended is over here, for the reason given (W1, W2).

    How long that takes is measured in a browser: tests/browser/test_chat_browser.py.
    """
    phone = elsewhere()
    await phone.log_in("Ada")
    here = await ada.enter()
    await phone.get("/devices")
    await phone.send("/devices/end-others")
    assert await here.closed() == (1008, "revoked")


async def test_nothing_is_said_after_the_end(ada, guest, monkeypatch):
    """A line that comes after the end is said nowhere, though no news came yet (C3)."""
    ben = await guest().log_in("Ben")
    there, here = await ben.enter(), await ada.enter()
    [info] = await guest.manager.sessions_of("Ada")
    # Another server ends it, and this one has heard nothing yet.
    monkeypatch.setattr(guest.manager.watch, "ended", lambda *_: None)
    store = guest.manager.store
    await store.commit([Delete(info.handle, "revoked")])
    nonce = await here.say("from beyond")
    assert await here.news("refused") == nonce
    await there.say("a word after")
    await there.line("a word after")
    assert "from beyond" not in [line["text"] for line in there.lines]


async def test_store_out_of_reach(tmp_path):
    """While sessions cannot be reached a line is refused, and nobody thrown out (F1)."""
    store = FragileStore()
    async with chat_here(tmp_path, session_store=store) as guest:
        here = await (await guest().log_in("Ada")).enter()
        store.broken = True
        nonce = await here.say("lost?")
        assert await here.news("refused") == nonce
        assert "Try again" in here.state["why"]
        store.broken = False
        await here.say("back")
        await here.line("back")


async def test_who_does_not_read_is_dropped(ada, guest, monkeypatch):
    """What waits for a client that does not read has a bound; then it is cut off."""
    monkeypatch.setattr(sockets.Socket, "max_unsent", 10_000)
    here = await ada.enter()
    [socket] = guest.app.settings["chat_hub"]._seats
    here.connection.protocol.stream.set_nodelay(True)
    rounds = 0
    while not socket.is_over():
        # No pause, so the client gets no turn to read: only the kernel takes any.
        socket.tell(filler="x" * 5000)
        rounds += 1
        assert rounds < 10_000
    assert socket.unsent < 20_000
    assert (await here.closed())[0] == 1013


async def test_devices_live(ada, guest):
    """The open list of devices follows what happens to them."""
    list_ = await ada.connect("/live/devices")
    assert (await list_.news("devices")).count("<li") == 1
    phone = await guest().log_in("Ada")
    assert (await list_.news("devices")).count("<li") == 2
    await phone.enter(2)
    assert "In Galley now" in await list_.news("devices")
    await phone.send("/logout")
    while (await list_.news("devices")).count("<li") != 1:
        pass


async def test_a_server_that_stops_says_so(tmp_path):
    """Sockets of a server that stops are closed as such, and their people are gone."""
    async with chat_here(tmp_path) as guest:
        ada = await guest().log_in("Ada")
        here = await ada.enter()
        chat = guest.app.settings["chat_hub"]
        closing = asyncio.create_task(chat.close())
        assert (await here.closed())[0] == 1001
        await asyncio.wait_for(closing, PATIENCE)
        await chat.open()
        assert await chat.present() == []
