"""What a store answers is true of the moment in which it was asked, however late it comes."""

import inspect

import pytest

from backends import BACKENDS, backend_url
from httpkit_stores import FakeClock, marked_slow
from tornado_sessions.stores.base import Create, Meta, Record
from tornado_sessions.stores.url import store_from_url

READS = {"redis": ("_transport", "run"), "mongo": ("_select",)}
READS |= {"file": ("_files", "read"), "sqlite": ("_pair", "read")}
"""What each store gets its answers from."""


def later(real, clock, seconds):
    """Return *real*, so that its answers take so long."""

    async def answer_later(*args, **options):
        answer = await real(*args, **options)
        clock.advance(seconds)
        return answer

    def read_later(*args):
        answer = real(*args)
        clock.advance(seconds)
        return answer

    return answer_later if inspect.iscoroutinefunction(real) else read_later


@pytest.mark.parametrize("name", marked_slow(BACKENDS))
@pytest.mark.parametrize("many", [1, 3])
async def test_an_answer_that_outlives_the_session(name, many, tmp_path, monkeypatch):
    """W4, E1: who lived when asked for is not called dead: it may have been extended."""
    clock = FakeClock()
    now = clock()
    times = {"created_at": now, "last_seen_at": now, "rotated_at": now, "epoch_at": now}
    meta = Meta(token=b"t" * 32, expires_at=now + 5, **times)
    handles = [f"h{number}" for number in range(many)]
    store = store_from_url(backend_url(name, tmp_path))
    store.clock = clock
    async with store:
        await store.commit([Create(handle, meta, {}) for handle in handles])
        *way, last = READS[name.partition("-")[0]]
        owner = getattr(store, way[0]) if way else store
        with monkeypatch.context() as patch:
            patch.setattr(owner, last, later(getattr(owner, last), clock, 10))
            loaded = await store.load(handles)
        assert isinstance(loaded[0], Record)  # files are read one after the other
        assert await store.load(handles) == [None] * many
        await store.clear()
