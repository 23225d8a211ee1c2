"""Open the chat: ``python -m examples.chat``."""

import argparse
import sys

from examples.shared.program import Program, options_for

from . import make_app
from .hub import hub_open


def parser() -> argparse.ArgumentParser:
    """Return a parser that knows where the messages are, too."""
    options = options_for("sqlite:///chat-sessions.db")
    files = "SQLite file for what is said, default %(default)s"
    options.add_argument("--messages", metavar="FILE", default="chat.db", help=files)
    return options


PROGRAM = Program(
    name="chat",
    description="A chat that shows where you are logged in, and logs out everywhere.",
    parser=parser(),
    make_app=lambda options, secret: make_app(options.store, options.messages, secret),
    port=8010,
    opened="The chat is open",
    closing="Closing the chat; who was logged in still is when it opens again.",
    around=hub_open,
)

if __name__ == "__main__":
    sys.exit(PROGRAM.run())
