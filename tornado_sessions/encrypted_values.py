"""The values of one session where the store keeps them encrypted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tornado_sessions.codecs import Codec
from tornado_sessions.errors import CodecError
from tornado_sessions.values import (
    NOT_OF_THE_VALUE,
    REMOVED,
    Values,
    foreign,
    named,
    shown,
)

if TYPE_CHECKING:
    from tornado_sessions.encryption import SessionCipher  # needs an extra


class EncryptedValues(Values):
    """Encrypts between the codec and the store; what was loaded is decrypted on touch.

    Equal values never encrypt to equal bytes. So that a change is found all the same,
    `encode` answers with the very bytes that were loaded if they hold an equal value:
    only what changed is encrypted anew, whichever key the rest was encrypted with.
    """

    __slots__ = ("_cipher", "_decrypted", "_encrypted")

    def __init__(
        self, codec: Codec, loaded: Mapping[str, bytes], cipher: SessionCipher
    ) -> None:
        super().__init__(codec, loaded)
        self._cipher = cipher
        self._decrypted: dict[str, tuple[bytes, bytes]] = {}
        self._encrypted: dict[str, tuple[bytes, bytes]] = {}
        """Stored and plain bytes of what was read and written last, by name."""

    def encode(self, name: str, value: Any) -> bytes:
        """Return *value* as bytes to store: as loaded if it is equal to that."""
        plain = super().encode(name, value)
        raw = self.loaded.get(name)
        if raw is not None and self._holds(name, raw, plain):
            return raw
        last = self._encrypted.get(name)
        if last is None or last[1] != plain:
            last = self._encrypted[name] = (self._cipher.encrypt(name, plain), plain)
        return last[0]

    def close(self) -> None:
        super().close()
        self._decrypted = {}
        self._encrypted = {}

    def _holds(self, name: str, raw: bytes, plain: bytes) -> bool:
        try:
            return self._plain(name, raw) == plain
        except CodecError:
            return False  # it is overwritten, as anything that nobody reads

    def _plain(self, name: str, raw: bytes) -> bytes:
        last = self._decrypted.get(name)
        if last is None or last[0] != raw:
            last = self._decrypted[name] = (raw, self._cipher.decrypt(name, raw))
        return last[1]

    def _decoded(self, name: str) -> Any:
        raw = self.loaded.get(name)
        if raw is None or self._pending.get(name) is REMOVED:
            raise KeyError(shown(name))
        try:
            return self._codec.decode(self._plain(name, raw))
        except CodecError as error:
            raise named(error, name) from error
        except NOT_OF_THE_VALUE:
            raise
        except Exception as error:
            raise foreign(error, name) from None
