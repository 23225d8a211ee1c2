"""The pages of the shop, and the forms that lead from one to the next."""

import secrets
from datetime import datetime, timezone
from functools import partial
from typing import Any

from tornado.web import HTTPError

from examples.shared.page import MAX_NAME, name_in

from . import basket
from .basket import Cart, CartError
from .catalog import PRODUCTS, Product
from .page import Page


class Shop(Page):
    """The product grid."""

    def get(self) -> None:
        # The session begins with the first page, not with the first item:
        # two tabs that add their first item at once must share one session.
        if self.session.is_new:
            self.session["cart"] = {}
        self.render("shop.html", products=PRODUCTS.values())


class ShowCart(Page):
    """The cart, a line for each product in it."""

    def get(self) -> None:
        self.render(
            "cart.html",
            lines=basket.lines(self.cart),
            total=basket.total(self.cart),
            most=basket.MAX_QUANTITY,
        )


class CartForm(Page):
    """A form that changes the cart: do it, say what happened, show the result."""

    next_page = "/cart"

    async def post(self) -> None:
        try:
            message = await self.change()
        except CartError as error:
            self.session.flash(str(error), "error")
        else:
            self.session.flash(message, "success")
        self.leave_for(self.next_page)

    async def change(self) -> str:
        """Change the cart and return what to tell the visitor."""
        raise NotImplementedError

    def chosen_product(self) -> Product:
        """Look up the product this form is about."""
        return basket.product_of(self.get_body_argument("sku", ""))


class Add(CartForm):
    """The "Add to cart" button."""

    next_page = "/"

    async def change(self) -> str:
        product = self.chosen_product()
        # Not `self.session["cart"] = ...`: of two tabs that read the same cart,
        # the later would overwrite the item of the earlier. mutate() reads,
        # changes and writes as one, so both items are in the cart.
        one_more = partial(basket.add, sku=product.sku, step=1)
        await self.session.mutate("cart", one_more, default={})
        self.next_page = f"/#{product.sku}"
        return f"{product.name} is in your cart."


class SetQuantity(CartForm):
    """The quantity field of a line."""

    async def change(self) -> str:
        product = self.chosen_product()
        quantity = basket.quantity_of(self.get_body_argument("quantity", ""))
        put = partial(basket.put, sku=product.sku, quantity=quantity)
        cart = await self.session.mutate("cart", put, default={})
        return basket.describe(cart, product)


class Step(CartForm):
    """The plus and minus of a line: a step, so that two tabs both count."""

    async def change(self) -> str:
        product = self.chosen_product()
        step = basket.step_of(self.get_body_argument("step", ""))
        move = partial(basket.add, sku=product.sku, step=step)
        cart = await self.session.mutate("cart", move, default={})
        return basket.describe(cart, product)


class Remove(CartForm):
    """The "Remove" button of a line."""

    async def change(self) -> str:
        product = self.chosen_product()
        none_left = partial(basket.put, sku=product.sku, quantity=0)
        cart = await self.session.mutate("cart", none_left, default={})
        return basket.describe(cart, product)


class Empty(CartForm):
    """The "Empty the cart" button."""

    async def change(self) -> str:
        await self.session.mutate("cart", lambda _: {}, default={})
        return "Your cart is empty."


class Checkout(Page):
    """The "Place order" button. No money moves: this is an example."""

    async def post(self) -> None:
        bought = await self.take_cart()
        if basket.lines(bought):
            self.session["order"] = new_order(bought)
            self.leave_for("/order")
        else:
            self.session.flash("There is nothing in your cart to order.", "error")
            self.leave_for("/cart")

    async def take_cart(self) -> Cart:
        """Empty the cart and return what was in it: of two tabs, one gets it.

        A server killed between this and the saved order has lost the order;
        a real shop does both in one transaction of its own database.
        """
        seen: list[Cart] = []

        def take(cart: Cart) -> Cart:
            seen.append(cart)
            return {}

        await self.session.mutate("cart", take, default={})
        return seen[-1]  # the last attempt is the one that was saved


def new_order(cart: Cart) -> dict[str, Any]:
    """Write an order; a real shop puts it into its own database."""
    return {
        "number": f"LW-{secrets.token_hex(3).upper()}",
        "placed_at": datetime.now(timezone.utc),  # comes back as a datetime
        "cart": cart,
    }


class ShowOrder(Page):
    """The confirmation of the last order."""

    def get(self) -> None:
        if order := self.session.get("order"):
            self.render(
                "order.html",
                order=order,
                lines=basket.lines(order["cart"]),
                total=basket.total(order["cart"]),
            )
        else:
            self.redirect("/")


class Login(Page):
    """Log in by name. A real shop asks for proof, then does the same."""

    def get(self) -> None:
        self.render("login.html", most=MAX_NAME)

    def post(self) -> None:
        name = name_in(self.get_body_argument("name", ""))
        if name is None:
            message = f"Please give a name of 1 to {MAX_NAME} letters."
            self.session.flash(message, "error")
            self.leave_for("/login")
        else:
            self.welcome(name)

    def welcome(self, name: str) -> None:
        """Turn the visitor into a customer, who keeps the cart."""
        message = f"Welcome, {name}. Your cart came with you."
        if self.current_user not in (None, name):
            # Somebody else was logged in here: their cart and their order end with
            # their session.
            self.session.destroy()
            message = f"Welcome, {name}."
        # A new token: whoever knew the cookie of the visitor does not know the
        # cookie of the customer. The data, and so the cart, stays.
        self.session.login(name)
        self.session.flash(message, "success")
        self.leave_for("/cart" if basket.count(self.cart) else "/")


class Logout(Page):
    """Log out: the session ends in the store, not only in this browser."""

    def post(self) -> None:
        self.session.destroy()
        # Written after the end, so it begins a fresh session.
        self.session.flash("You are logged out, and the cart went too.")
        self.leave_for("/")


class Missing(Page):
    """Any address the shop does not have."""

    def prepare(self) -> None:
        raise HTTPError(404)
