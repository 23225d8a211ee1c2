"""A network between a server and its database: ``python -m benchmarks.relay PORT DELAY``.

Whoever connects reaches *PORT* of this machine, and every byte takes *DELAY* seconds
longer, either way. It says its port on the first line and ends when its standard input
does.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress

from tornado.testing import bind_unused_port

_AT_ONCE = 65536


def pump(source: socket.socket, sink: socket.socket, delay: float) -> None:
    """Send on what comes, until one side is closed."""
    with suppress(OSError):
        while data := source.recv(_AT_ONCE):
            time.sleep(delay)
            sink.sendall(data)
    for side in (source, sink):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


def relay(listening: socket.socket, port: int, delay: float) -> None:
    """Give everybody who connects a connection to *port*."""
    listening.setblocking(True)
    while True:
        near, _ = listening.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for side in (near, far):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for ends in ((near, far), (far, near)):
            threading.Thread(target=pump, args=(*ends, delay), daemon=True).start()


def main() -> None:
    listening, here = bind_unused_port()
    arguments = (listening, int(sys.argv[1]), float(sys.argv[2]))
    listening.listen()
    threading.Thread(target=relay, args=arguments, daemon=True).start()
    print(here, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
