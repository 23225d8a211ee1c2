"""Everything this library raises on purpose.

::

    SessionError
    ├── ConfigurationError   a setting that cannot work
    ├── StoreError           the database failed; ``__cause__`` is the driver's error
    ├── CodecError           a value that cannot be stored or read; ``key`` names it
    ├── SessionConflict      an atomic update kept losing against others
    └── ResponseStarted      a change that came after the headers had left

A missing, expired, forged or unknown cookie is none of these: it is an ordinary
visitor without a session.
"""

from __future__ import annotations


class SessionError(Exception):
    """Base of every exception that this library raises."""


class ConfigurationError(SessionError):
    """Raised if a setting is unknown, impossible or contradicts another one."""


class StoreError(SessionError):
    """Raised if the store could not do what it was asked, or not in time.

    The driver's own exception, if there is one, is the ``__cause__``.
    """


class CodecError(SessionError):
    """Raised if a value cannot be encoded, or stored bytes cannot be decoded.

    Args:
        message: What is wrong and what to do about it.
        key: The session key concerned, or None if it is the whole record.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class SessionConflict(SessionError):  # noqa: N818  (the name is part of the contract)
    """Raised if `Session.mutate` lost against other writers too many times."""


class ResponseStarted(SessionError):  # noqa: N818  (the name is part of the contract)
    """Raised if a change needs a response header, but the headers have left."""
