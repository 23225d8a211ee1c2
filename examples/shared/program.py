"""An example as a program: its options, how it opens, and how it stops."""

import argparse
import asyncio
import errno
import re
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from types import FrameType

from tornado.httpserver import HTTPServer
from tornado.log import enable_pretty_logging
from tornado.netutil import bind_sockets
from tornado.web import Application

from tornado_sessions import ConfigurationError, SessionManager, StoreError

from .secret import ExampleError, secret_for

CANNOT_START = 2
MAX_BODY = 64 * 1024
"""Bytes of a form: more is not even read. Tornado's own limit is 100 MB."""


def nothing_more(_app: Application) -> AbstractAsyncContextManager[None]:
    """Open nothing besides the sessions."""
    return nullcontext()


@dataclass(frozen=True)
class Program:
    """What makes one example another program than the next."""

    name: str
    description: str
    parser: argparse.ArgumentParser
    """Knows the options that only this example has."""
    make_app: Callable[[argparse.Namespace, str], Application]
    """Takes the options and the cookie secret."""
    port: int
    opened: str
    closing: str
    around: Callable[[Application], AbstractAsyncContextManager[None]] = nothing_more
    """What else is open as long as the example runs."""

    def run(self) -> int:
        """Run the example until it is told to stop; return the exit code."""
        options = self.read_options()
        enable_pretty_logging()
        try:
            asyncio.run(self.serve(options))
        except OSError as error:
            return self.complain(self.explain(error, options.host, options.port))
        except (ConfigurationError, StoreError) as error:
            return self.complain(f"--store: {error}")
        except ExampleError as error:
            return self.complain(str(error))
        return 0

    def read_options(self) -> argparse.Namespace:
        """Read the command line; argparse itself exits with 2 on a mistake."""
        self.parser.prog = f"python -m examples.{self.name}"
        self.parser.description = self.description
        add = self.parser.add_argument
        add("--host", default="127.0.0.1", help="default %(default)s")
        ports = "0: any free; default %(default)s"
        add("--port", default=self.port, type=port, help=ports)
        return self.parser.parse_args()

    async def serve(self, options: argparse.Namespace) -> None:
        """Open the store, then the door; close them the other way round."""
        stopped = stop_signal()
        secret, where = secret_for(options.store, self.name)
        app = self.make_app(options, secret)
        async with SessionManager.of(app) as manager, self.around(app):
            await manager.count()  # a database that cannot be reached is found out now
            sockets = bind_sockets(options.port, options.host)
            server = HTTPServer(app, max_body_size=MAX_BODY)
            server.add_sockets(sockets)
            self.announce(sockets[0].getsockname(), options.store, where)
            await stopped.wait()
            say(self.closing)
            server.stop()
            await server.close_all_connections()

    def announce(self, address: tuple[str, int], store: str, where: str) -> None:
        """Say where the example is, and what has to stay for the sessions to stay."""
        host, port = address[:2]
        netloc = f"[{host}]" if ":" in host else host
        say(f"Cookies are signed with the secret from {where}.")
        say(
            f"{self.opened}: http://{netloc}:{port}  "
            f"(sessions in {without_password(store)}, Ctrl-C to stop)"
        )

    def explain(self, error: OSError, host: str, port: int) -> str:
        """Say what to do about a port that cannot be had."""
        if error.errno == errno.EADDRINUSE:
            return (
                f"Port {port} of {host} is taken by another program. Stop that one, or "
                f"choose another port: python -m examples.{self.name} --port {port + 1}"
            )
        return f"Cannot listen on port {port} of {host}: {error.strerror}"

    def complain(self, text: str) -> int:
        """Write one line on what is wrong and return the exit code for it."""
        print(f"{self.name}: {text}", file=sys.stderr)
        return CANNOT_START


def options_for(store: str) -> argparse.ArgumentParser:
    """Return a parser that knows ``--store``, with *store* as its default."""
    parser = argparse.ArgumentParser()
    stores = "URL such as redis://localhost, default %(default)s"
    parser.add_argument("--store", default=store, help=stores)
    return parser


def port(text: str) -> int:
    """Check a port number, for argparse to complain about."""
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"{number} is not between 0 and 65535")
    return number


def stop_signal() -> asyncio.Event:
    """Set the returned event at Ctrl-C or SIGTERM.

    Plain signal() instead of loop.add_signal_handler(), which Windows lacks.
    """
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stopped.set)

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    return stopped


def without_password(url: str) -> str:
    """Keep the credentials of a database server off the screen."""
    url = re.sub(r"//[^/]*@", "//***@", url)
    return re.sub(r"([?&]\w*password=)[^&]*", r"\1***", url)


def say(text: str) -> None:
    """Show progress at once, also where the output is a pipe."""
    print(text, flush=True)
