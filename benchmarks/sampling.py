"""What a kind of request takes, seen from both ends: the server's clock and the load's."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import dataclass
from statistics import quantiles

from benchmarks.process import Running


@dataclass(frozen=True)
class Sample:
    """What one kind of request took in one round."""

    processor: float
    """Microseconds of the server process for one request."""
    rate: float
    """Answers per second."""
    median: float
    """Milliseconds until the answer, of half of the requests; and of 99 of 100."""
    p99: float
    busy: float
    """The share of its core that the server used: little if the rest was slower."""


async def sampled(server: Running, asking: Awaitable[list[float]]) -> Sample:
    """Measure what *server* does while *asking*, which says how long each answer took."""
    used, began = server.processor_time(), time.perf_counter()
    took = await asking
    used = server.processor_time() - used
    passed = time.perf_counter() - began
    of_hundred = quantiles(took, n=100) if len(took) > 1 else took * 99
    return Sample(
        processor=1e6 * used / len(took),
        rate=len(took) / passed,
        median=1000 * of_hundred[49],
        p99=1000 * of_hundred[98],
        busy=used / passed,
    )
