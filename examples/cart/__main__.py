"""Open the shop: ``python -m examples.cart``."""

import sys

from examples.shared.program import Program, options_for

from . import make_app

PROGRAM = Program(
    name="cart",
    description="A small shop whose cart outlives the server.",
    parser=options_for("sqlite:///cart.db"),
    make_app=lambda options, secret: make_app(options.store, secret),
    port=8000,
    opened="The shop is open",
    closing="Closing the shop; the carts stay in the store.",
)

if __name__ == "__main__":
    sys.exit(PROGRAM.run())
