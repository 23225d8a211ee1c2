"""The rules of a cart, as plain functions from an old cart to a new one.

A cart is ``{sku: quantity}`` in the session.
Nothing here changes the cart it is given or knows that sessions exist:
``session.mutate`` calls such a function on the newest stored cart,
and again on a newer one if another tab was faster.
"""

from dataclasses import dataclass

from .catalog import PRODUCTS, Product

Cart = dict[str, int]

MAX_QUANTITY = 99


class CartError(Exception):
    """A wish the shop cannot meet; the message is for the visitor."""


@dataclass(frozen=True)
class Line:
    """One product in a cart and how many of it."""

    product: Product
    quantity: int

    @property
    def total(self) -> int:
        """Price this line, in cents."""
        return self.product.price * self.quantity


def add(cart: Cart, sku: str, step: int) -> Cart:
    """Put one more (or with -1: one less) into the cart."""
    return put(cart, sku, cart.get(sku, 0) + step)


def put(cart: Cart, sku: str, quantity: int) -> Cart:
    """Set how many there are; with none left, the line goes."""
    if quantity > MAX_QUANTITY:
        raise CartError(
            f"We pack at most {MAX_QUANTITY} of each: {PRODUCTS[sku].name} "
            f"stays at {cart.get(sku, 0)}."
        )
    if quantity < 1:
        return {kept: count for kept, count in cart.items() if kept != sku}
    return {**cart, sku: quantity}


def lines(cart: Cart) -> list[Line]:
    """List the cart, without what the shop has stopped selling meanwhile."""
    return [Line(PRODUCTS[sku], n) for sku, n in cart.items() if sku in PRODUCTS]


def total(cart: Cart) -> int:
    """Price the whole cart, in cents."""
    return sum(line.total for line in lines(cart))


def count(cart: Cart) -> int:
    """Count the things in the cart, for the number in the header."""
    return sum(line.quantity for line in lines(cart))


def describe(cart: Cart, product: Product) -> str:
    """Tell the visitor what the cart now holds of a product."""
    quantity = cart.get(product.sku, 0)
    if quantity == 0:
        return f"{product.name} is out of your cart."
    return f"{product.name}: {quantity} in your cart."


def product_of(sku: str) -> Product:
    """Look up a product a form has named."""
    try:
        return PRODUCTS[sku]
    except KeyError:
        raise CartError("We do not sell that. Your cart is unchanged.") from None


def quantity_of(text: str) -> int:
    """Read a quantity a form has sent; stricter than int(), which takes 1_0."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004
        raise CartError(
            f"A quantity is a whole number from 0 to {MAX_QUANTITY}. "
            "Your cart is unchanged."
        )
    return int(text)


def step_of(text: str) -> int:
    """Read which way a plus or minus button goes."""
    try:
        return {"up": 1, "down": -1}[text]
    except KeyError:
        raise CartError("A step is up or down. Your cart is unchanged.") from None
