"""What the shop sells. A real shop would ask its database."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Product:
    """One thing on the shelf; prices are cents, since money does not round."""

    sku: str
    name: str
    blurb: str
    price: int

    @property
    def picture(self) -> str:
        """Name the drawing of this product among the static files."""
        return f"art/{self.sku}.svg"


_SHELF = (
    Product("gale-kite", "Gale kite", "Flies from force 3 to force 7.", 3400),
    Product("storm-lantern", "Storm lantern", "Burns on through any gust.", 4800),
    Product("oilskin-coat", "Oilskin coat", "You can hear in its hood.", 12900),
    Product("wide-umbrella", "Wide umbrella", "Room for two and one dog.", 4200),
    Product("brass-barometer", "Brass barometer", "Knows before you do.", 8500),
    Product("harbour-boots", "Harbour boots", "Dry to the knee, warm below.", 5900),
    Product("field-windsock", "Field windsock", "From where, and how hard.", 1950),
    Product("watch-mug", "Night-watch mug", "Enamel, half a litre.", 1450),
)

PRODUCTS = {product.sku: product for product in _SHELF}


def money(cents: int) -> str:
    """Write an amount the way a price tag does: 12900 is €129.00."""
    return f"€{cents // 100:,}.{cents % 100:02d}"
