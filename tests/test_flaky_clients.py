"""Visitors on a bad line are neither logged out nor taken for thieves (C5, E4, E5)."""

import pytest

from flakykit import BadLine
from httpkit_stores import FakeClock, ImmediateStore, on_every_store

HARM = ("logouts", "reuse", "ended", "refused", "dropped", "lost updates")


async def ridden(store, seed, browsers, bursts):
    """Return what happened, by name, once that many browsers are done."""
    line = BadLine(store, seed)
    await line.run(browsers, bursts)
    assert line.seen["requests"] == browsers * bursts * 8
    assert 0.2 < line.seen["lost answers"] / line.seen["requests"] < 0.4
    return line.seen


@on_every_store
async def test_a_few_flaky_clients(make_store):
    """C1 C5 E4 E5: 20 of them, 8 parallel requests each, 30 % of the answers lost."""
    seen = await ridden(make_store(clock=FakeClock()), 1, browsers=20, bursts=12)
    assert seen["rotated"] > 20
    assert seen["lost cookies"] > 20
    assert {harm: seen[harm] for harm in HARM} == dict.fromkeys(HARM, 0)


@pytest.mark.slow
async def test_a_thousand_flaky_clients(capsys):
    """C1 C5 E4 E5: the same with a thousand: none is logged out, none is an alarm."""
    store = ImmediateStore(clock=FakeClock())
    seen = await ridden(store, 2, browsers=1000, bursts=20)
    with capsys.disabled():
        print(f"\n1,000 flaky clients: {dict(seen)}")
    assert seen["rotated"] > 5000
    assert {harm: seen[harm] for harm in HARM} == dict.fromkeys(HARM, 0)
