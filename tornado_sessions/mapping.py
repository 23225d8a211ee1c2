"""The dict that an application sees of a session's values, and its flashes."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, MutableMapping
from typing import Any

from tornado_sessions.errors import CodecError, SessionError
from tornado_sessions.flashes import Flash
from tornado_sessions.tokens import random_id
from tornado_sessions.values import FLASH, Values, stored_name


class ValueMapping(MutableMapping[str, Any]):
    """A mapping from str to plain data, in which no key is reserved."""

    __slots__ = ("sealed", "stored")

    stored: Values
    sealed: SessionError | None
    """Raised by every attempt to write, if there is one."""

    @abstractmethod
    def undecodable(self, error: CodecError) -> None:
        """A value turned out to be broken; forget all of them (S6)."""

    def __getitem__(self, key: str) -> Any:
        try:
            return self.stored.get(stored_name(key))
        except CodecError as error:
            self.undecodable(error)
            raise KeyError(key) from error

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"session keys must be str, not {type(key).__name__}")
        self.check_open()
        self.stored.set(stored_name(key), value)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self.check_open()
        self.stored.remove(stored_name(key))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and stored_name(key) in self.stored

    def __iter__(self) -> Iterator[str]:
        for name in self.stored:
            if not name.startswith(FLASH):
                yield name[1:] if name[:1] == "\0" else name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def clear(self) -> None:
        """Remove every key; the session, its principal and its flashes go on."""
        self.check_open()
        for key in list(self):
            self.stored.remove(stored_name(key))

    def flash(self, message: Any, category: str = "info") -> None:
        """Queue a message to be shown once, on this page or the next."""
        self.check_open()
        number = sum(name.startswith(FLASH) for name in self.stored)
        name = f"{FLASH}{time.time_ns():020d}{number:04d}{random_id()}"
        self.stored.set(name, [category, message])

    def flashes(self) -> list[Flash]:
        """Return the queued messages, oldest first, and forget them."""
        names = sorted(name for name in self.stored if name.startswith(FLASH))
        taken = []
        try:
            for name in names:
                category, message = self.stored.get(name)
                taken.append(Flash(message, category))
                self.stored.remove(name)
        except CodecError as error:
            self.undecodable(error)
        return taken

    def check_open(self) -> None:
        """Raise what the mapping is sealed with, if it is."""
        if self.sealed is not None:
            raise self.sealed
