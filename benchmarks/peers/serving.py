"""What the servers of all peers in Python have in common. Runs in their environments."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading

BACKLOG = 1024
POOL = 1000
"""Connections to Redis that a client may have. By default redis-py 8 allows 100, and
128 requests at once would fail."""


def store_url() -> str:
    """Return the URL of the database that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    return str(parser.parse_args().store)


def listening_socket() -> socket.socket:
    """Listen on a free port, and end when the standard input does."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(BACKLOG)
    threading.Thread(target=_end_with_input, daemon=True).start()
    print(listening.getsockname()[1], flush=True)
    return listening


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)
