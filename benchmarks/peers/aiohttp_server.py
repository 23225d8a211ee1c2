"""aiohttp and aiohttp-session on Redis."""

from __future__ import annotations

import asyncio

import redis.asyncio
from aiohttp import web
from aiohttp_session import get_session, session_middleware
from aiohttp_session.redis_storage import RedisStorage

from benchmarks.peers.serving import POOL, listening_socket, store_url


async def bare(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def read(request: web.Request) -> web.Response:
    session = await get_session(request)
    if session["n"] < 1:
        raise RuntimeError("the session is not the one that was begun")
    return web.Response(text="ok")


async def write(request: web.Request) -> web.Response:
    session = await get_session(request)
    session["n"] = session.get("n", 0) + 1
    return web.Response(text=str(session["n"]))


def with_sessions(url: str) -> web.Application:
    storage = RedisStorage(redis.asyncio.Redis.from_url(url, max_connections=POOL))
    application = web.Application(middlewares=[session_middleware(storage)])
    application.add_routes([web.get("/read", read), web.get("/write", write)])
    return application


async def serve(url: str) -> None:
    """Serve the sessions below a prefix: only there the middleware is in the way."""
    application = web.Application()
    application.add_routes([web.get("/bare", bare)])
    application.add_subapp("/sessions", with_sessions(url))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listening_socket()).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(store_url()))
