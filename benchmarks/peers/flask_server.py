"""Flask and Flask-Session on Redis, served by waitress: one process, four threads."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import redis
import waitress
from flask import Flask, session
from flask_session import Session

from benchmarks.peers.serving import listening_socket, store_url


def bare() -> str:
    return "ok"


def read() -> str:
    if session["n"] < 1:
        raise RuntimeError("the session is not the one that was begun")
    return "ok"


def write() -> str:
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


def without_sessions() -> Flask:
    application = Flask("bare")
    application.add_url_rule("/bare", view_func=bare)
    return application


def with_sessions(url: str) -> Flask:
    application = Flask("sessions")
    application.config["SESSION_TYPE"] = "redis"
    application.config["SESSION_REDIS"] = redis.Redis.from_url(url)
    Session(application)
    application.add_url_rule("/read", view_func=read)
    application.add_url_rule("/write", view_func=write)
    return application


def main() -> None:
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # says how full it is
    plain, others = without_sessions(), with_sessions(store_url())

    def by_path(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        application = plain if environ["PATH_INFO"] == "/bare" else others
        return application(environ, start_response)  # type: ignore[no-any-return, unused-ignore]

    waitress.serve(by_path, sockets=[listening_socket()], connection_limit=1000)


if __name__ == "__main__":
    main()
