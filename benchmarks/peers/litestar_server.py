"""Litestar and its server-side sessions on Redis or in memory, served by uvicorn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio
from litestar import Litestar, MediaType, Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.base import Store
from litestar.stores.memory import MemoryStore
from litestar.stores.redis import RedisStore

from benchmarks.peers.asgi import serve
from benchmarks.peers.serving import POOL, store_url


async def bare() -> str:
    return "ok"


async def read(request: Request[Any, Any, Any]) -> str:
    if request.session["n"] < 1:
        raise RuntimeError("the session is not the one that was begun")
    return "ok"


async def write(request: Request[Any, Any, Any]) -> str:
    request.session["n"] = request.session.get("n", 0) + 1
    return str(request.session["n"])


def store(url: str) -> Store:
    if url.startswith("memory:"):
        return MemoryStore()
    return RedisStore(redis.asyncio.Redis.from_url(url, max_connections=POOL))


def routed(handler: Callable[..., Awaitable[str]]) -> HTTPRouteHandler:
    return get(f"/{handler.__name__}", media_type=MediaType.TEXT)(handler)


def with_sessions(url: str) -> Litestar:
    return Litestar(
        route_handlers=[routed(read), routed(write)],
        middleware=[ServerSideSessionConfig().middleware],
        stores={"sessions": store(url)},
        openapi_config=None,
    )


if __name__ == "__main__":
    serve(
        Litestar(route_handlers=[routed(bare)], openapi_config=None),
        with_sessions(store_url()),
    )
