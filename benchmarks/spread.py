"""Medians of repeated measurements, and how far they can be trusted.

A machine has other things to do: single measurements differ by more than what is looked
for. So everything is measured many times in turns, the median is taken, and its 95 %
interval is found by drawing the rounds again and again (bootstrap).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Round = TypeVar("Round")
_DRAWS = 1000


@dataclass(frozen=True)
class Estimate:
    """A value, and the interval that holds the true one in 95 of 100 runs."""

    value: float
    low: float
    high: float


def exactly(value: float) -> Estimate:
    """Return an estimate for what was counted or is one maximum."""
    return Estimate(value, value, value)


def estimate(
    rounds: Sequence[Round], figure: Callable[[Sequence[Round]], float]
) -> Estimate:
    """Return *figure* of the rounds with its interval.

    Args:
        rounds: What each round measured. A round measures all variants, so that a slow
            minute of the machine is in all of them.
        figure: Works a figure out of some rounds, by `median`.
    """
    draw = random.Random(0)
    drawn = sorted(figure(draw.choices(rounds, k=len(rounds))) for _ in range(_DRAWS))
    return Estimate(
        figure(rounds), drawn[round(0.025 * _DRAWS)], drawn[round(0.975 * _DRAWS) - 1]
    )


def median_of(rounds: Sequence[Round], figure: Callable[[Round], float]) -> float:
    """Return the median of what *figure* says of each round."""
    return median(map(figure, rounds))
