"""What a process does, function by function: by the clock, or counted.

Both give the numbers that `marshal` can send and `pstats` knows: for each function its
calls but for recursion, its calls, what it took by itself, and with all it called.
"""

from __future__ import annotations

import cProfile
import sys
from collections import Counter
from types import CodeType, FrameType
from typing import Any, Protocol, TypeAlias

Function: TypeAlias = "tuple[str, int, str]"
"""A file, a line and a name."""
Stats: TypeAlias = "dict[Function, tuple[int, int, float, float, Any]]"


class Notes(Protocol):
    """Notes what runs in this thread from `begin` to `end`."""

    def begin(self) -> None: ...

    def end(self) -> Stats: ...


class Times:
    """Seconds. Noting takes time of its own, most for short functions."""

    def __init__(self) -> None:
        self._profile = cProfile.Profile()

    def begin(self) -> None:
        self._profile.enable()

    def end(self) -> Stats:
        self._profile.disable()
        self._profile.create_stats()
        return {**self._profile.stats}


class Instructions:
    """Millions of instructions of the interpreter.

    No other program disturbs them, but they tell nothing of what is written in C, of
    the system, and of caches.
    """

    def __init__(self) -> None:
        self._calls = Counter[CodeType]()
        self._instructions = Counter[CodeType]()

    def begin(self) -> None:
        sys.settrace(self._trace)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            self._instructions[frame.f_code] += 1
        elif event == "call":  # or a coroutine goes on
            frame.f_trace_lines = False
            frame.f_trace_opcodes = True
            self._calls[frame.f_code] += 1
        return self._trace

    def end(self) -> Stats:
        sys.settrace(None)
        stats: Stats = {}
        for code, number in self._instructions.items():
            function = (code.co_filename, code.co_firstlineno, code.co_name)
            calls, own = self._calls[code], number / 1e6
            stats[function] = (calls, calls, own, own, {})
        return stats
