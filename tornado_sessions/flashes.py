"""Messages that are shown once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Flash:
    """A message that is shown once."""

    message: Any = field(repr=False)
    category: str = "info"


class TemplateFlashes(Sequence[Flash]):
    """What templates know as ``flashes``: taken when one first looks at them.

    ``flashes()`` is the same, for those who are used to a function.
    """

    def __init__(self, take: Callable[[], list[Flash]]) -> None:
        self._take = take

    @cached_property
    def _taken(self) -> list[Flash]:
        return self._take()

    def __call__(self) -> Sequence[Flash]:
        return self

    def __len__(self) -> int:
        return len(self._taken)

    def __getitem__(self, index: Any) -> Any:
        return self._taken[index]
