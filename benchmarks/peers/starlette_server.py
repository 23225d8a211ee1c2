"""Starlette and starsessions on Redis or in memory, served by uvicorn."""

from __future__ import annotations

import redis.asyncio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starsessions import (
    InMemoryStore,
    SessionAutoloadMiddleware,
    SessionMiddleware,
    SessionStore,
)
from starsessions.stores.redis import RedisStore

from benchmarks.peers.asgi import serve
from benchmarks.peers.serving import POOL, store_url

_LIFETIME = 14 * 86400


async def bare(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


async def read(request: Request) -> PlainTextResponse:
    if request.session["n"] < 1:
        raise RuntimeError("the session is not the one that was begun")
    return PlainTextResponse("ok")


async def write(request: Request) -> PlainTextResponse:
    request.session["n"] = request.session.get("n", 0) + 1
    return PlainTextResponse(str(request.session["n"]))


def store(url: str) -> SessionStore:
    if url.startswith("memory:"):
        return InMemoryStore()
    return RedisStore(
        connection=redis.asyncio.Redis.from_url(url, max_connections=POOL)
    )


def with_sessions(url: str) -> Starlette:
    sessions = Middleware(
        SessionMiddleware, store=store(url), lifetime=_LIFETIME, cookie_https_only=False
    )
    return Starlette(
        routes=[Route("/read", read), Route("/write", write)],
        middleware=[sessions, Middleware(SessionAutoloadMiddleware)],
    )


if __name__ == "__main__":
    serve(Starlette(routes=[Route("/bare", bare)]), with_sessions(store_url()))
