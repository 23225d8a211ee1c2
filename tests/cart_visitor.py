"""A visitor of the example shop over HTTP, and the shop as a process."""

import re
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import examplekit
from examplekit import SECRET, ExampleProcess, Visitor, open_example, serve
from examples.cart import make_app

FULL = {"watch-mug": 2, "gale-kite": 1}
"""A cart to begin with."""

ShopProcess = partial(ExampleProcess, "cart")
open_shop = partial(open_example, "cart")


class ShopPage(examplekit.Page):
    """One answer of the shop."""

    @property
    def item_count(self) -> int:
        """The number beside "Cart" in the header."""
        return int(self.found(r'id="item-count">(\d+)'))

    @property
    def lines(self) -> dict[str, int]:
        """The lines of the cart page: {sku: quantity}."""
        line = r'id="line-([\w-]+)".*?name="quantity" value="(\d+)"'
        found = re.findall(line, self.text, re.DOTALL)
        return {sku: int(quantity) for sku, quantity in found}


class Customer(Visitor):
    """A visitor of the shop."""

    page = ShopPage

    async def cart(self) -> dict[str, int]:
        """Read the cart off the cart page."""
        return (await self.get("/cart")).lines


async def fill(visitor: Customer, cart: dict[str, int]) -> Customer:
    """Put things into a cart, one by one as a visitor does."""
    for sku, quantity in cart.items():
        for _ in range(quantity):
            await visitor.submit("/cart/add", sku=sku)
    return visitor


def visitors():
    """Bring people to a shop for the length of a block."""
    return examplekit.visitors(Customer)


@asynccontextmanager
async def serve_here(folder: Path, **settings):
    """Run the shop in this process for the length of a block."""
    app = make_app(f"sqlite:///{folder}/cart.db", SECRET)
    app.settings.update(settings)
    async with serve(app) as url:
        with visitors() as bring:
            yield lambda: bring(url)
