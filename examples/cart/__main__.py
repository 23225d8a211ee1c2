"""Open the shop: ``python -m examples.cart``."""

import argparse
import asyncio
import errno
import re
import signal
import sys
from types import FrameType

from tornado.httpserver import HTTPServer
from tornado.log import enable_pretty_logging
from tornado.netutil import bind_sockets

from tornado_sessions import ConfigurationError, SessionManager, StoreError

from . import make_app
from .secret import SecretError, secret_for

CANNOT_START = 2


def main() -> int:
    """Run the shop until it is told to stop; return the exit code."""
    options = read_options()
    enable_pretty_logging()
    try:
        asyncio.run(serve(options.store, options.host, options.port))
    except OSError as error:
        return complain(explain(error, options.host, options.port))
    except (ConfigurationError, StoreError, SecretError) as error:
        return complain(f"--store: {error}")
    return 0


def read_options() -> argparse.Namespace:
    """Read the command line; argparse itself exits with 2 on a mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.cart",
        description="A small shop whose cart outlives the server.",
    )
    add = parser.add_argument
    stores = "URL such as redis://localhost, default %(default)s"
    add("--store", default="sqlite:///cart.db", help=stores)
    add("--host", default="127.0.0.1", help="default %(default)s")
    add("--port", default=8000, type=port, help="0: any free; default %(default)s")
    return parser.parse_args()


def port(text: str) -> int:
    """Check a port number, for argparse to complain about."""
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"{number} is not between 0 and 65535")
    return number


async def serve(store: str, host: str, port: int) -> None:
    """Open the store, then the door; close them the other way round."""
    stopped = stop_signal()
    secret, where = secret_for(store)
    app = make_app(store, secret)
    async with SessionManager.of(app) as manager:
        await manager.count()  # a database that cannot be reached is found out now
        sockets = bind_sockets(port, host)
        server = HTTPServer(app)
        server.add_sockets(sockets)
        announce(sockets[0].getsockname(), store, where)
        await stopped.wait()
        say("Closing the shop; the carts stay in the store.")
        server.stop()
        await server.close_all_connections()


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


def announce(address: tuple[str, int], store: str, where: str) -> None:
    """Say where the shop is, and what has to stay for the sessions to stay."""
    host, port = address[:2]
    netloc = f"[{host}]" if ":" in host else host
    say(f"Cookies are signed with the secret from {where}.")
    say(
        f"The shop is open: http://{netloc}:{port}  "
        f"(sessions in {without_password(store)}, Ctrl-C to stop)"
    )


def without_password(url: str) -> str:
    """Keep the credentials of a database server off the screen."""
    url = re.sub(r"//[^/]*@", "//***@", url)
    return re.sub(r"([?&]\w*password=)[^&]*", r"\1***", url)


def explain(error: OSError, host: str, port: int) -> str:
    """Say what to do about a port that cannot be had."""
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} of {host} is taken by another program. Stop that one, "
            f"or choose another port: python -m examples.cart --port {port + 1}"
        )
    return f"Cannot listen on port {port} of {host}: {error.strerror}"


def say(text: str) -> None:
    """Show progress at once, also where the output is a pipe."""
    print(text, flush=True)


def complain(text: str) -> int:
    """Write one line on what is wrong and return the exit code for it."""
    print(f"cart: {text}", file=sys.stderr)
    return CANNOT_START


if __name__ == "__main__":
    sys.exit(main())
