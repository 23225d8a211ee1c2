"""From a URL, or a client that an application has already, to the way to Redis."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from tornado_sessions.errors import ConfigurationError
from tornado_sessions.stores.redis_cluster import ClusterTransport
from tornado_sessions.stores.redis_transport import PoolTransport, Transport
from tornado_sessions.stores.url import ESCAPED, safe_url, split_url

redis: Any  # redis-py is typed in parts
try:
    import redis.asyncio
    import redis.asyncio.cluster
    import redis.asyncio.connection
    import redis.asyncio.sentinel
except ImportError:  # a client of aioredis does without
    redis = None

_QUIET: dict[str, Any] = {"protocol": 2}
"""With RESP3 redis-py asks for more before the first command, and does not notice that an
idle connection was closed."""
_ANSWER: dict[str, Any] = {"socket_connect_timeout": 2.0, "socket_timeout": 2.0}
"""Seconds to connect and for an answer, unless the URL says otherwise, where somebody else
can be asked: another node of the cluster, or a Sentinel for the new master. A single
server has until the request's deadline (`_PATIENT`)."""
_PATIENT: dict[str, Any] = {"socket_timeout": None}
"""Newer clients have a deadline of their own, and make a task for it with each command."""
_QUIET_REASON = f"check port, database and options; {ESCAPED}"
_SENTINEL = {"socket_connect_timeout": 0.5, "socket_timeout": 0.5}


def transport_of(client: Any) -> Transport:
    """Return the way to Redis through *client*, of ``redis.asyncio`` or aioredis.

    Raises:
        ConfigurationError: It is something else.
    """
    if hasattr(client, "nodes_manager") and hasattr(client, "initialize"):
        return ClusterTransport(client)
    pool = getattr(client, "connection_pool", None)
    if pool is None or not _asynchronous(pool):
        raise ConfigurationError(
            "RedisStore takes a URL or a client of redis.asyncio, "
            f"not a {type(client).__module__}.{type(client).__qualname__}"
        )
    return PoolTransport(pool)


def transport_to(url: str) -> Transport:
    """Return the way to the Redis at *url*; nothing is sent yet.

    Raises:
        ConfigurationError: The URL makes no sense, or redis-py is not installed.
    """
    parts = _parsed(url)
    scheme, _, kind = parts.scheme.replace("valkey", "redis").partition("+")
    make = {"": _server, "sentinel": _sentinel, "cluster": _cluster}.get(kind)
    if make is None or scheme not in ("redis", "rediss", "unix"):
        raise ConfigurationError(
            f"{safe_url(url)} is not for Redis; use redis://, rediss://, unix://, "
            "redis+sentinel:// or redis+cluster://"
        )
    if redis is None:
        raise ConfigurationError(
            f'{safe_url(url)} needs redis-py: pip install "tornado-sessions[redis]"'
        )
    # Of a bad option redis-py raises any of them; the third is no case of the last.
    clustered = redis.exceptions.RedisClusterException
    try:
        return make(scheme, parts)
    except (TypeError, ValueError, clustered, redis.RedisError) as error:
        # What it says may quote a piece of a password that was not escaped.
        reason = _QUIET_REASON if "@" in url else str(error)
    raise ConfigurationError(f"{safe_url(url)}: {reason}")


def _parsed(url: str) -> SplitResult:
    try:
        parts = split_url(url)
    except ValueError:
        parts = urlsplit("")
    if "@" in parts.path or parts.fragment:
        raise ConfigurationError(f"{safe_url(url)} is no URL: {ESCAPED}")
    return parts


def _nameless() -> dict[str, None]:
    """Return what keeps redis-py from introducing itself, which takes a round trip."""
    init = redis.asyncio.connection.AbstractConnection.__init__
    if "driver_info" in inspect.signature(init).parameters:
        return {"driver_info": None}
    return {"lib_name": None, "lib_version": None}  # before version 7


def _server(scheme: str, parts: SplitResult) -> Transport:
    if scheme != "unix" and parts.path.strip("/") and not parts.path[1:].isdigit():
        raise ValueError(f"the path is the number of the database, not {parts.path!r}")
    url = parts._replace(scheme=scheme).geturl()
    if scheme == "unix":  # which urllib writes without its two slashes
        url = f"unix://{parts.netloc}{parts.path}?{parts.query}"
    options = {**_QUIET, **_PATIENT, **_nameless()}
    pool = redis.asyncio.ConnectionPool.from_url(url, **options)
    pool.make_connection()  # an option that it does not know is a TypeError
    return PoolTransport(pool, ours=True)


def _sentinel(scheme: str, parts: SplitResult) -> Transport:
    service = unquote(parts.path).strip("/")
    if not service:
        raise ValueError("the path is the name of the service, such as /mymaster")
    options = {**_QUIET, **_ANSWER, **_nameless(), **_options(scheme, parts)}
    ours = {
        name.removeprefix("sentinel_"): options.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in options
    }
    if scheme == "rediss":
        options["ssl"] = True
        ours |= {name: o for name, o in options.items() if name.startswith("ssl")}
    manager = redis.asyncio.sentinel.Sentinel(
        _hosts(parts, 26379), sentinel_kwargs={**_SENTINEL, **ours}
    )
    manager.discover_master = _in_turn(manager.discover_master)
    pool = redis.asyncio.sentinel.SentinelConnectionPool(service, manager, **options)
    pool.make_connection()
    return PoolTransport(pool, manager.sentinels)


def _in_turn(discover: Callable[[str], Awaitable[Any]]) -> Callable[[str], Any]:
    """Let one call after the other ask the Sentinels.

    redis-py moves the one that knew the master to the front, by its number in a list that
    another call may have changed meanwhile: then one is there twice, and another lost.
    """
    turn = asyncio.Lock()

    async def in_turn(service: str) -> Any:
        async with turn:
            return await discover(service)

    return in_turn


def _cluster(scheme: str, parts: SplitResult) -> Transport:
    options = {**_QUIET, **_ANSWER, **_nameless(), **_options(scheme, parts)}
    if scheme == "rediss":
        options["ssl"] = True
    nodes = [
        redis.asyncio.cluster.ClusterNode(host, port)
        for host, port in _hosts(parts, 6379)
    ]
    # The slots that are served are served, whatever has become of the others.
    options["require_full_coverage"] = False
    return ClusterTransport(redis.asyncio.RedisCluster(startup_nodes=nodes, **options))


def _options(scheme: str, parts: SplitResult) -> dict[str, Any]:
    """Return user, password and query of a URL that names several hosts."""
    user, at, _ = parts.netloc.rpartition("@")
    options = dict(
        redis.asyncio.connection.parse_url(f"{scheme}://{user}{at}host?{parts.query}")
    )
    for name in ("host", "connection_class"):
        options.pop(name, None)
    return options


def _hosts(parts: SplitResult, default: int) -> list[tuple[str, int]]:
    """Return the hosts of ``user:password@one:1,two:2,[::1]:3``."""
    hosts = parts.netloc.rpartition("@")[2].split(",")
    each = [urlsplit(f"//{host}") for host in hosts]
    return [(one.hostname or "localhost", one.port or default) for one in each]


def _asynchronous(pool: Any) -> bool:
    connect = getattr(getattr(pool, "connection_class", None), "connect", None)
    return inspect.iscoroutinefunction(connect)
