"""Which sessions something was done for lately, so that parallel requests do it once."""

from __future__ import annotations

MOST = 4096
"""Handles to remember; forgetting one costs a write too many."""


class Recent:
    """Remembers handles for *seconds*."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[str, float] = {}

    def add(self, handle: str, now: float) -> bool:
        """Note *handle*; tell whether it was not noted within these seconds."""
        if 0 <= now - self._since.get(handle, 0.0) < self._seconds:
            return False
        if len(self._since) >= MOST:
            self._since.clear()
        self._since[handle] = now
        return True

    def forget(self, handle: str) -> None:
        """Take back that *handle* was noted: what was to be done failed."""
        self._since.pop(handle, None)
