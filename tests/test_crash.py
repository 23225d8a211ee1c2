"""What a client saw acknowledged is there after ``kill -9`` (F2)."""

import asyncio
import contextlib
import json
import random
import signal

import pytest
from tornado.httpclient import HTTPClientError

from backends import BACKENDS, backend_url
from serverkit import Server
from tornado_sessions.testing import SessionClient

KILLS = {"sqlite": 20, "file": 20, "redis": 5, "mongo": 5}
"""Where the server keeps the data itself, it is killed more often."""
VISITORS = 5
CUT_OFF = (OSError, HTTPClientError)


class Writer:
    """A visitor who counts, and remembers how far the server said it got."""

    def __init__(self):
        self.cookie = ""
        self.acknowledged = 0

    async def write_until_killed(self, url):
        """Write the next number again and again; the server dies of something else."""
        client = SessionClient(url, cookie=self.cookie)
        with contextlib.closing(client), contextlib.suppress(*CUT_OFF):
            while True:
                number = self.acknowledged + 1
                data = {"n": str(number), "twice": str(2 * number), "pad": "x" * number}
                response = await client.post("/set", data)
                assert response.code == 200
                self.acknowledged, self.cookie = number, client.cookie

    async def check(self, url):
        """Nothing acknowledged is missing, and no write is there by half."""
        client = SessionClient(url, cookie=self.cookie)
        with contextlib.closing(client):
            values = json.loads((await client.get("/")).body)["values"]
        number = int(values["n"])
        assert values == {
            "n": f"{number}",
            "twice": f"{2 * number}",
            "pad": "x" * number,
        }
        # One more may have been stored whose answer the kill cut off.
        assert number in (self.acknowledged, self.acknowledged + 1)
        self.acknowledged = number


async def load_and_kill(server, writers):
    """Let the writers write, and kill the server in the middle of it."""
    enough = sum(writer.acknowledged for writer in writers) + 2 * len(writers)
    work = [asyncio.create_task(one.write_until_killed(server.url)) for one in writers]
    counts = [0]
    while min(counts) == 0 or sum(counts) < enough:  # each has something to lose
        counts = [writer.acknowledged for writer in writers]
        await asyncio.sleep(0.001)
        assert not all(task.done() for task in work)
    await asyncio.sleep(random.uniform(0, 0.02))
    assert await asyncio.to_thread(server.end, signal.SIGKILL) == -signal.SIGKILL
    await asyncio.gather(*work)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name in KILLS])
async def test_what_was_acknowledged_survives(backend, tmp_path):
    """F2: after each of many kills under load, every session is whole, up to date."""
    place = backend_url(backend, tmp_path)
    with contextlib.ExitStack() as stack:

        def started():
            server = Server(place)
            stack.callback(server.end)
            return server

        old, current = [], started()
        for _ in range(KILLS[backend]):
            following = started()  # meanwhile the other one is under load
            writers = [Writer() for _ in range(VISITORS)] + old[:2]
            await load_and_kill(current, writers)
            current = following
            old = (writers[:VISITORS] + old)[: 3 * VISITORS]
            await asyncio.gather(*(writer.check(current.url) for writer in old))
