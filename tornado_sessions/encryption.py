"""Values encrypted at rest: the keys, and what they make of the bytes of one value.

Stored is ``format (2) | key id (4) | nonce (12) | AES-256-GCM ciphertext and tag``. Each
session has a subkey of its own, derived from the key and the handle, and the stored name
is authenticated along: so a value is good in its own place only, though an older one of
the same place is as good as the newest.

A random nonce of 96 bits is safe for 2^32 uses of a key (NIST SP 800-38D §8.3). What one
subkey encrypts is the writes of one session, which do not come near that.
"""

from __future__ import annotations

import base64
import functools
import hmac
import secrets
from collections.abc import Iterable

from tornado_sessions.errors import CodecError, ConfigurationError
from tornado_sessions.values import ENCRYPTED

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError as missing:
    raise ConfigurationError(
        "session_encryption_keys needs the package cryptography: "
        'pip install "tornado-sessions[encryption]"'
    ) from missing

KEY_BYTES = 32
MAX_REMEMBERED = 1024
"""Sessions whose subkey is at hand when they come again: to derive one takes longer than
to use it. With each, cryptography keeps 2.5 KiB."""
_ID_BYTES = 4
_NONCE_BYTES = 12
_NONCE_AT = len(ENCRYPTED) + _ID_BYTES
_CIPHERTEXT_AT = _NONCE_AT + _NONCE_BYTES
_MAKE_ONE = "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
_NOT_ENCRYPTED = "the stored value is not encrypted, but session_encryption_keys is set"
_UNKNOWN_KEY = "the stored value was encrypted with a key that session_encryption_keys does not hold"
_NOT_AUTHENTIC = (
    "the stored value is damaged, or was not written for this key of this session"
)


class Keyring:
    """The keys of ``session_encryption_keys``: the newest writes, each one reads."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = {_derived(key, b"id")[:_ID_BYTES]: key for key in keys}
        self.newest = next(iter(self._keys))
        """The id of the key that writes."""
        self.aead = functools.lru_cache(MAX_REMEMBERED)(self._aead)
        """Returns what encrypts by the key of an id for a handle, or KeyError."""

    def __repr__(self) -> str:
        return f"<Keyring of {len(self._keys)}>"  # never a key (S9)

    def __len__(self) -> int:
        return len(self._keys)

    def cipher(self, handle: str) -> SessionCipher:
        """Return what encrypts and decrypts the values of the session *handle*."""
        return SessionCipher(self, handle)

    def _aead(self, key_id: bytes, handle: str) -> AESGCM:
        context = b"session " + handle.encode("utf-8", "surrogatepass")
        return AESGCM(_derived(self._keys[key_id], context))


class SessionCipher:
    """Encrypts and decrypts the values of the session *handle*."""

    __slots__ = ("_handle", "_keyring")

    def __init__(self, keyring: Keyring, handle: str) -> None:
        self._keyring = keyring
        self._handle = handle

    def encrypt(self, name: str, plain: bytes) -> bytes:
        """Return what to store of *plain* under *name*; never the same twice."""
        key_id, nonce = self._keyring.newest, secrets.token_bytes(_NONCE_BYTES)
        sealed = self._keyring.aead(key_id, self._handle).encrypt(
            nonce, plain, _place(name)
        )
        return b"".join((ENCRYPTED, key_id, nonce, sealed))

    def decrypt(self, name: str, raw: bytes) -> bytes:
        """Return what `encrypt` was given for *name*.

        Raises:
            CodecError: *raw* is not encrypted, is somebody else's, or was damaged.
        """
        if not raw.startswith(ENCRYPTED):
            raise CodecError(_NOT_ENCRYPTED)
        nonce = raw[_NONCE_AT:_CIPHERTEXT_AT]
        if len(nonce) < _NONCE_BYTES:
            raise CodecError(_NOT_AUTHENTIC)
        try:
            aead = self._keyring.aead(raw[len(ENCRYPTED) : _NONCE_AT], self._handle)
        except KeyError:
            raise CodecError(_UNKNOWN_KEY) from None
        try:
            return aead.decrypt(nonce, raw[_CIPHERTEXT_AT:], _place(name))
        except InvalidTag:
            raise CodecError(_NOT_AUTHENTIC) from None


def keyring_from(setting: object) -> Keyring:
    """Return the keys that *setting* lists or is.

    Raises:
        ConfigurationError: They are none; the message shows no key (S9).
    """
    if isinstance(setting, Keyring):
        return setting
    if not isinstance(setting, (list, tuple)):
        raise _wrong(f"is <{type(setting).__name__}>")
    if not setting:
        raise _wrong("is empty")
    keyring = Keyring(_key(one, n) for n, one in enumerate(setting, start=1))
    if len(keyring) < len(setting):
        raise _wrong("holds the same key twice")
    return keyring


def _key(given: object, number: int) -> bytes:
    if isinstance(given, bytes) and len(given) == KEY_BYTES:
        return given
    if isinstance(given, str):
        try:
            key = base64.b64decode(given.rstrip("=") + "=", b"-_", validate=True)
        except ValueError:
            key = b""
        if len(key) == KEY_BYTES:
            return key
    kind = type(given).__name__
    size = f" of length {len(given)}" if isinstance(given, (bytes, str)) else ""
    raise _wrong(f"holds a {kind}{size} that is no key, as number {number}")


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"session_encryption_keys {what}; use a list of keys, the newest first, "
        f"each of {KEY_BYTES} random bytes, or as a str that {_MAKE_ONE} prints"
    )


def _derived(key: bytes, context: bytes) -> bytes:
    """HKDF-Expand for one block (RFC 5869 §2.3): the key is random, none to extract."""
    return hmac.digest(key, b"tornado_sessions values 1 " + context + b"\x01", "sha256")


def _place(name: str) -> bytes:
    """Return what is authenticated along with a value."""
    return ENCRYPTED + name.encode("utf-8", "surrogatepass")
