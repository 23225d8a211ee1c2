"""Sessions on the event loop of the extra ``uvloop``."""

import asyncio

import pytest
import uvloop

from httpkit import Page, serving
from rediskit import RedisServer

VISITS = 20


class Mutating(Page):
    """Counts visits, so that none is lost."""

    async def get(self):
        self.write(str(await self.session.mutate("n", lambda n: n + 1, 0)))


async def count_visits(store):
    """Let one visitor come many times at once; return the loop and what was counted."""
    async with serving(Mutating, store) as site:
        visitor = site.visitor()
        await visitor.get()
        await asyncio.gather(*(visitor.twin().get() for _ in range(VISITS)))
        last = await visitor.get()
        return type(asyncio.get_running_loop()), int(last.body)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request, tmp_path):
    """The URL of a store that is served by this process, a thread, or a socket."""
    if request.param == "redis":
        with RedisServer("--save", "") as server:
            yield server.url
    else:
        yield f"{request.param}://" + (
            "" if request.param == "memory" else f"/{tmp_path}/s"
        )


def test_nothing_is_lost_on_uvloop(url):
    """C2, T8: on uvloop sessions do what they do on the loop of Python."""
    loop, counted = uvloop.run(count_visits(url))
    assert issubclass(loop, uvloop.Loop)
    assert counted == VISITS + 2
