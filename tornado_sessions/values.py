"""The values of one session: what was loaded, and what the application made of it.

Everything here goes by the *stored name* of a key, which is the key itself unless that
begins with NUL. Names that begin with exactly one NUL are this library's own (flashes),
so no key is reserved.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from typing import Any

from tornado_sessions.codecs import Codec
from tornado_sessions.errors import CodecError

FLASH = "\0flash:"
"""Begins the stored name of a queued message."""
ENCRYPTED = b"\xc1\xff"
"""Begins what was encrypted, and names its format. No JSON, UTF-8, MessagePack or CBOR
begins so, hence no codec takes one for the other."""
_NO_KEYS = "the stored value is encrypted, but session_encryption_keys is not set"
_SCALARS = frozenset({str, int, float, bool, type(None), bytes})
"""Types whose values cannot change in place."""
NOT_OF_THE_VALUE = (ImportError, MemoryError, NameError, OSError, RecursionError)
"""What a codec raises for reasons of its own: no session may be deleted for that."""
_SET, REMOVED = True, False
"""What is to become of a name that the application assigned or deleted."""


def stored_name(key: str) -> str:
    """Return the name under which a store keeps *key*; KeyError if it is no str."""
    if not isinstance(key, str):
        raise KeyError(key)
    return "\0" + key if key[:1] == "\0" else key


def shown(name: str) -> str:
    """Return what the application calls *name*."""
    if name.startswith(FLASH):
        return "flash message"
    return name[1:] if name[:1] == "\0" else name


class Values:
    """Decodes each value when it is first touched, and finds what changed since.

    A value may change in place, so those that were touched are encoded again for
    `changes` and compared with the bytes that were loaded.
    """

    __slots__ = ("_changeable", "_codec", "_current", "_pending", "loaded")

    def __init__(self, codec: Codec, loaded: Mapping[str, bytes]) -> None:
        self._codec = codec
        self.loaded = loaded
        self._current: dict[str, Any] = {}
        self._pending: dict[str, bool] = {}
        self._changeable = False
        """True if a value was read that may change in place."""

    def get(self, name: str) -> Any:
        """Return the value; KeyError if it is absent, CodecError if it is broken."""
        if name in self._current:
            return self._current[name]
        value = self._current[name] = self._decoded(name)
        if type(value) not in _SCALARS:
            self._changeable = True
        return value

    def set(self, name: str, value: Any) -> None:
        """Put *value* in the place of what is there."""
        self._pending[name] = _SET
        self._current[name] = value

    def remove(self, name: str) -> None:
        """Take the value away, if there is one."""
        self._current.pop(name, None)
        self._pending[name] = REMOVED

    def __contains__(self, name: str) -> bool:
        if name in self._current:
            return True
        return name in self.loaded and name not in self._pending

    def __iter__(self) -> Iterator[str]:
        new = [name for name in self._current if name not in self.loaded]
        return (name for name in (*self.loaded, *new) if name in self)

    def unsaved(self, name: str) -> bool:
        """Tell whether there is a change of *name* that was not stored."""
        if name not in self._current:
            return name in self._pending
        return self.loaded.get(name) != self.encode(name, self._current[name])

    @property
    def touched(self) -> bool:
        """True if anything was read or written since the values were `closed <close>`."""
        return bool(self._current or self._pending)

    def changes(self) -> tuple[dict[str, bytes], frozenset[str]]:
        """Return the names to set, with their bytes, and the names to unset.

        Raises:
            CodecError: A value cannot be stored; ``key`` names it.
        """
        changed: dict[str, bytes] = {}
        if not (self._pending or self._changeable):
            return changed, frozenset()
        for name, value in self._current.items():
            if type(value) in _SCALARS and name not in self._pending:
                continue
            raw = self.encode(name, value)
            if self.loaded.get(name) != raw:
                changed[name] = raw
        if not self._pending:
            return changed, frozenset()
        removed = [
            name
            for name, what in self._pending.items()
            if what is REMOVED and name in self.loaded
        ]
        return changed, frozenset(removed)

    def assigned(self) -> dict[str, Any]:
        """Return the values that the application has put there, by stored name."""
        return {
            name: self._current[name]
            for name, what in self._pending.items()
            if what is _SET
        }

    def after(
        self, changed: Mapping[str, bytes], removed: Collection[str]
    ) -> dict[str, bytes]:
        """Return what was loaded, with the bytes of a change in it."""
        values = {**self.loaded, **changed}
        for name in removed:
            if name not in changed:
                values.pop(name, None)
        return values

    def encode(self, name: str, value: Any) -> bytes:
        """Return *value* as bytes; the `CodecError` names the key."""
        try:
            raw = self._codec.encode(value)
        except CodecError as error:
            raise named(error, name) from error
        except Exception as error:
            raise foreign(error, name) from None
        if type(raw) is not bytes:
            kind = type(raw).__name__
            raise named(CodecError(f"the codec made {kind} of it, not bytes"), name)
        return raw

    def check_size(
        self, changed: Mapping[str, bytes], removed: Collection[str], limit: int
    ) -> None:
        """Refuse to let a record grow beyond *limit* (S8).

        Raises:
            CodecError: It would; ``key`` names the largest one.
        """
        if _size(self.loaded) + _size(changed) <= limit:
            return
        after = {k: raw for k, raw in self.loaded.items() if k not in removed}
        after.update(changed)
        total = _size(after)
        if total > limit and total > _size(self.loaded):
            largest = max(after, key=lambda name: len(after[name]))
            raise CodecError(
                f"the session would take {total} bytes, but session_max_record_bytes "
                f"is {limit}; its largest key is {shown(largest)!r} with "
                f"{len(after[largest])}: keep the data elsewhere and its id here",
                shown(largest),
            )

    def fresh(self, name: str, default: Any) -> Any:
        """Return a copy of the stored value, or of *default* if there is none."""
        try:
            return self._decoded(name)
        except KeyError:
            return deepcopy(default)

    def restore(self, name: str, raw: bytes | None) -> None:
        """Take *raw* as what the store holds under *name*, and forget the value."""
        others = {key: old for key, old in self.loaded.items() if key != name}
        self.loaded = others if raw is None else {**others, name: raw}
        self._current.pop(name, None)
        self._pending.pop(name, None)

    def close(self) -> None:
        """Forget the decoded values: what is touched from now on comes too late."""
        self._current = {}
        self._pending = {}
        self._changeable = False

    def _decoded(self, name: str) -> Any:
        raw = self.loaded.get(name)
        if raw is None or self._pending.get(name) is REMOVED:
            raise KeyError(shown(name))
        try:
            return self._codec.decode(raw)
        except CodecError as error:
            if raw.startswith(ENCRYPTED):
                raise named(CodecError(_NO_KEYS), name) from error
            raise named(error, name) from error
        except NOT_OF_THE_VALUE:
            raise
        except Exception as error:
            raise foreign(error, name) from None


def named(error: CodecError, name: str) -> CodecError:
    """Return *error* with the key of the value that is stored under *name*."""
    key = shown(name)
    return CodecError(f"session key {key!r}: {error}", key)


def foreign(error: Exception, name: str) -> CodecError:
    """Return the `CodecError` that a codec should have raised, without the value."""
    return named(CodecError(f"the codec failed with {type(error).__name__}"), name)


def _size(values: Mapping[str, bytes]) -> int:
    names = "".join(values)
    if not names.isascii():
        return len(names.encode("utf-8", "surrogatepass")) + _bytes(values)
    return len(names) + _bytes(values)


def _bytes(values: Mapping[str, bytes]) -> int:
    return sum(map(len, values.values()))
