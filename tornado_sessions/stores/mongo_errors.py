"""What MongoDB's errors mean, said without the values that it likes to quote (S9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tornado_sessions.errors import StoreError
from tornado_sessions.stores.mongo_driver import (
    AutoReconnect,
    BSONError,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteError,
)

UNAUTHORIZED = 13
_NO_USER = (
    "the server wants a user and a password; put them into the URL: "
    "mongodb://user:password@host/database"
)
_ASKS_FOR_USER = ("requires authentication", "no users authenticated")
"""How the server ends what it says to those who did not log in."""
_TOO_LARGE = "the record would be larger than 16 MiB, the most that a document may hold"
_ADVICE = {
    UNAUTHORIZED: "the user has no right to do this; grant readWrite on the database",
    18: "the user name or the password is wrong, or it is another authSource",
    50: "it took longer than the time allowed for it; see how busy the server is",
    64: "not enough members of the replica set confirmed the write in time",
    100: "the write concern asks for more members than the replica set has",
    8000: "the user name or the password is wrong, or it is another authSource",
    10334: _TOO_LARGE,
    11000: "a unique index that is not ours is in the way; drop it from the collection",
    14031: "the disk of the server is full; free some space",
    17419: _TOO_LARGE,
    17420: _TOO_LARGE,
}
_NO_PRIMARY = (
    "the server takes no writes; name the members of the replica set and "
    "replicaSet=… in the URL, so that the driver finds the primary after an election"
)
_NO_ANSWER = "the server did not answer in time; see whether it runs and is reachable"
OTHER_LOOP = (
    "a client belongs to one event loop; where there are more, give a URL instead"
)
_NO_BSON = "what was sent is too large, or what was answered cannot be read"
_LOST = "the connection was lost; it is built anew with the next call"


def store_error(error: PyMongoError | BSONError | RuntimeError) -> StoreError:
    """Return what is raised for *error*."""
    if isinstance(error, OperationFailure):
        return _refused(error, error.code or 0, error.details or {})
    if isinstance(error, BSONError):  # it may quote what it could not encode
        error = type(error)(_NO_BSON)
    failure = StoreError(f"MongoDB: {_trouble(error)}")
    failure.__cause__ = error
    return failure


def code_of(error: StoreError) -> int | None:
    """Return the code that the server gave, if it was the server that refused."""
    cause = error.__cause__
    return cause.code if isinstance(cause, OperationFailure) else None


def wants_user(error: StoreError) -> bool:
    """Tell whether the server wants a user, and got none."""
    return _NO_USER in str(error)


def no_answer() -> StoreError:
    """Return what is raised if nobody wants to wait for the server any longer."""
    return StoreError(f"MongoDB: {_NO_ANSWER}")


def item_error(error: Mapping[str, Any]) -> StoreError:
    """Return what stands in the place of a change, for its part of a bulk write."""
    code = int(error["code"])
    return _refused(WriteError("", code), code, error)


def unconfirmed(errors: list[Mapping[str, Any]]) -> StoreError:
    """Return what is raised if the members that the write concern asks for were not."""
    failure = item_error({"code": 64, "codeName": "WriteConcernFailed", **errors[0]})
    return StoreError(f"{failure}; whether the changes stay is open")


def _refused(
    error: OperationFailure, code: int, details: Mapping[str, Any]
) -> StoreError:
    # The server quotes whole commands and documents: its code has to do.
    name = details.get("codeName", "an error")
    advice = _ADVICE.get(code, "look the code up in the log of the server")
    if code == UNAUTHORIZED and _is_stranger(details):
        advice = _NO_USER
    failure = StoreError(f"MongoDB: {advice} ({name}, code {code})")
    failure.__cause__ = type(error)(f"{name}", code)
    return failure


def _is_stranger(details: Mapping[str, Any]) -> bool:
    return str(details.get("errmsg", "")).endswith(_ASKS_FOR_USER)


def _trouble(error: PyMongoError | BSONError | RuntimeError) -> str:
    if isinstance(error, RuntimeError):
        return f"{OTHER_LOOP} ({error})"
    if isinstance(error, NotPrimaryError):
        return _NO_PRIMARY
    if isinstance(error, ServerSelectionTimeoutError):
        reason = str(error).partition(", Timeout:")[0]
        return f"no server could be reached; see whether it runs: {reason}"
    if isinstance(error, NetworkTimeout):
        return _NO_ANSWER
    if isinstance(error, AutoReconnect):
        return f"{_LOST} ({error})"
    return f"{error}"
