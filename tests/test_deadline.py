"""Waiting for at most so long: who was cancelled ends, and takes along what it waits for."""

import asyncio

import pytest

from tornado_sessions.deadline import within


async def test_what_ends_in_time():
    """F1: its result or its own error comes through."""

    async def fails():
        raise OSError("disk")

    assert await within(5, asyncio.sleep(0, "done")) == "done"
    assert await within(None, asyncio.sleep(0, "done")) == "done"
    with pytest.raises(OSError, match="disk"):
        await within(5, fails())


async def test_what_does_not():
    """F1: it is over, not only given up, when that is told."""
    call = asyncio.ensure_future(asyncio.Event().wait())
    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, call)
    assert call.cancelled()


@pytest.mark.parametrize("turns", range(4))
async def test_cancelled_around_the_moment_at_which_it_ends(turns):
    """F1: in each turn of the loop around that, the one who waits is cancelled."""
    call = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(within(5, call))
    await asyncio.sleep(0)
    if turns:
        call.set_result(None)
    for _ in range(turns - 1):
        await asyncio.sleep(0)
    if not waiting.done():
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
    assert call.done()
