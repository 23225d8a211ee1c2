"""What Redis says, and what to do about it.

Errors of ``redis.asyncio`` and of aioredis have the same names but nothing else in
common, and inside a script there is only the text: so both are told by their words.
"""

from __future__ import annotations

from collections.abc import Iterator

from tornado_sessions.errors import StoreError

_ADVICE = (
    (
        ("WRONGTYPE",),
        "a key of the sessions holds something else; delete it, or change the namespace",
    ),
    (
        ("OutOfMemory", "OOM command"),
        "Redis has reached its maxmemory; raise it, or make room",
    ),
    (
        ("NoPermission", "NOPERM", "no permissions", "The user executing the script"),
        "the Redis user lacks a permission; the docs of the Redis store list all it needs",
    ),
    (
        ("Authentication", "WRONGPASS", "NOAUTH", "without any password"),
        "check the user and the password",
    ),
    (
        ("CROSSSLOT", "hash to the same slot", "MovedError", "MOVED"),
        "this server is part of a cluster: use a redis+cluster:// URL or a RedisCluster",
    ),
    (
        ("ReadOnly", "READONLY", "MasterDown", "MASTERDOWN"),
        "this server is a replica: connect to the master, through Sentinel for example",
    ),
    (
        ("TryAgainError", "AskError", "TRYAGAIN"),
        "the slot of this session is being moved to another node; try again",
    ),
    (("max number of clients",), "raise maxclients, or let fewer processes connect"),
    (("BUSY Redis",), "Redis is busy with the script of another program"),
    (("BusyLoading", "LOADING"), "Redis is still loading its data; try again"),
    (
        ("NOREPLICAS",),
        "fewer replicas are connected than min-replicas-to-write demands",
    ),
    (("MISCONF",), "Redis cannot write to its disk; its log says why"),
    (
        ("ClusterDown", "CLUSTERDOWN", "SlotNotCovered", "RedisCluster"),
        "the cluster has no master for some of its slots",
    ),
    (("MasterNotFound",), "no Sentinel knows a master; check the name of the service"),
    (
        ("ConnectionError", "TimeoutError", "Connection refused", "OSError"),
        "check that Redis is running and can be reached",
    ),
)


class NotAllowedError(StoreError):
    """The user lacks a right."""


class OutOfStepError(ConnectionError):
    """What was read is not the answer to what was sent; that connection is given up."""


class SilentError(TimeoutError):
    """A node that did not answer a moment ago is not asked again yet."""


def named(error: object, *names: str) -> bool:
    """Tell whether *error* is an exception of a class with one of these names."""
    if not isinstance(error, BaseException):
        return False
    return any(cls.__name__ in names for cls in type(error).__mro__)


def explained(error: Exception | str) -> StoreError:
    """Return what Redis said as an error that says what to do.

    Args:
        error: The driver's exception, which becomes the cause, or what a script tells.
    """
    if isinstance(error, StoreError):
        return error
    classes = (
        [] if isinstance(error, str) else [c.__name__ for c in type(error).__mro__]
    )
    words = " ".join([*classes, str(error)])
    for signs, advice in _ADVICE:
        if any(sign in words for sign in signs):
            failure = StoreError(f"Redis: {error}; {advice}")
            break
    else:
        failure = StoreError(f"Redis: {error}")
    if not isinstance(error, str):
        failure.__cause__ = error
    return failure


def _words(error: BaseException | None) -> Iterator[str]:
    """Yield what *error* says and is called, then the same of what it came from."""
    while error is not None:
        yield from (cls.__name__ for cls in type(error).__mro__)
        yield str(error)
        error = error.__cause__ or error.__context__
