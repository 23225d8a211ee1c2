"""Serves the ASGI peers with uvicorn. Runs in their environments."""

from __future__ import annotations

from typing import Any

import uvicorn

from benchmarks.peers.serving import BACKLOG, listening_socket


def serve(without_sessions: Any, with_sessions: Any) -> None:
    """Serve ``/bare`` by one application and all else by the other."""

    async def by_path(scope: Any, receive: Any, send: Any) -> None:
        bare = scope.get("path") == "/bare"
        await (without_sessions if bare else with_sessions)(scope, receive, send)

    config = uvicorn.Config(
        by_path,
        log_level="warning",
        access_log=False,
        lifespan="off",
        backlog=BACKLOG,
    )
    uvicorn.Server(config).run(sockets=[listening_socket()])
