"""Real races: four server processes on one backend, for each backend there is."""

import asyncio
import json
from itertools import cycle

import pytest

from backends import BACKENDS, backend_url
from httpkit_stores import marked_slow
from serverkit import servers
from tornado_sessions import SessionManager
from tornado_sessions.cookie import CookieDue
from tornado_sessions.testing import SessionClient

PROCESSES = 4
BOUND = 60.0


@pytest.fixture(params=marked_slow(BACKENDS), scope="module")
def urls(request, tmp_path_factory):
    """Four servers on one store."""
    folder = tmp_path_factory.mktemp("races")
    with servers(backend_url(request.param, folder), PROCESSES) as started:
        yield started


class Visitor:
    """One browser, whose requests go to the servers in turn, many at once."""

    def __init__(self, urls):
        self._client = SessionClient(urls[0])
        self._urls = cycle(urls)

    async def post(self, path, data=b"", *, url=None, cookie=None):
        headers = {} if cookie is None else {"Cookie": cookie}
        place = (url or next(self._urls)) + path
        response = await self._client.post(place, data, headers=headers)
        assert response.code == 200, response.body
        return response

    async def read(self, cookie=None):
        headers = {"Cookie": self._client.cookie if cookie is None else cookie}
        url = next(self._urls)
        return json.loads((await self._client.get(url, headers=headers)).body)

    @property
    def cookie(self):
        return self._client.cookie

    async def __aenter__(self):
        await self.post("/set", {"began": "yes"})
        return self

    async def __aexit__(self, *_):
        self._client.close()


async def bounded(*requests):
    return await asyncio.wait_for(asyncio.gather(*requests), BOUND)


async def test_different_keys_survive(urls):
    """C1: of 60 parallel requests in four processes, each keeps its key."""
    async with Visitor(urls) as visitor:
        sent = {f"key{number}": str(number) for number in range(60)}
        await bounded(*(visitor.post("/set", {k: v}) for k, v in sent.items()))
        assert (await visitor.read())["values"] == {"began": "yes", **sent}


async def test_mutate_counts_exactly(urls):
    """C2: four processes count one key 25 times each, and it says 100."""
    async with Visitor(urls) as visitor:
        answers = await bounded(*(visitor.post("/count/n") for _ in range(100)))
        counted = sorted(json.loads(answer.body)["counted"] for answer in answers)
        assert counted == list(range(1, 101))
        assert (await visitor.read())["values"]["n"] == 100


async def test_counting_and_setting_at_once(urls):
    """C1, C2: writers of other keys neither disturb a counter nor are disturbed."""
    async with Visitor(urls) as visitor:
        counts = [visitor.post(f"/count/n{number % 2}") for number in range(40)]
        sets = [visitor.post("/set", {f"k{n}": "x" * n}) for n in range(1, 31)]
        await bounded(*counts, *sets)
        values = (await visitor.read())["values"]
        assert (values["n0"], values["n1"]) == (20, 20)
        assert {f"k{n}": "x" * n for n in range(1, 31)}.items() <= values.items()


async def test_logout_beats_slow_writers(urls):
    """C3: requests under way at a logout bring nothing back and send no cookie."""
    async with Visitor(urls) as visitor:
        await visitor.post("/login/alice")
        cookie = visitor.cookie
        slow = [
            asyncio.create_task(visitor.post("/slow/gate", {"late": "1"}, url=url))
            for url in urls
        ]
        await bounded(*(visitor.post("/await/gate", url=url) for url in urls))
        assert (await visitor.read(cookie))["principal"] == "alice"
        await visitor.post("/logout", url=urls[0])
        await bounded(*(visitor.post("/release/gate", url=url) for url in urls))
        for answer in await bounded(*slow):
            assert "Set-Cookie" not in answer.headers
        for _ in urls:
            assert await visitor.read(cookie) == {"values": {}, "principal": None}


async def test_a_logout_amid_writers(urls):
    """C3: whoever writes around a logout brings nothing back, and begins anew."""
    async with Visitor(urls) as visitor:
        await visitor.post("/login/alice")
        cookie = visitor.cookie
        sets = [visitor.post("/set", {f"k{n}": "x"}, cookie=cookie) for n in range(40)]
        logout = visitor.post("/logout", cookie=cookie)
        answers = await bounded(*sets[:20], logout, *sets[20:])
        for _ in urls:
            assert await visitor.read(cookie) == {"values": {}, "principal": None}
        sent = [answer.headers.get("Set-Cookie", "") for answer in answers]
        for begun in {line.partition(";")[0] for line in sent} - {"", 'session=""'}:
            seen = await visitor.read(begun)
            assert (seen["principal"], len(seen["values"])) == (None, 1)


async def test_a_promised_cookie_is_withdrawn():
    """C3: a login that was saved early sends no cookie if the session ended since."""
    async with SessionManager() as manager:
        session = await manager.load([])
        session["n"] = 1
        await manager.commit(session)
        slow = await manager.load([session.ticket])
        slow.login("alice")
        await slow.save()
        assert slow.cookie_due is CookieDue.SEND
        assert await manager.revoke(session.handle)
        slow["late"] = True
        await manager.commit(slow)
        assert slow.ended
        assert slow.cookie_due is CookieDue.KEEP
        assert (await manager.load([slow.ticket])).is_new
