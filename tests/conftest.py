"""What several tests begin with: a shop with a visitor, stores to be watched."""

import pytest

from cart_visitor import FULL, fill, serve_here
from httpkit_stores import making_stores


@pytest.fixture
async def new_visitor(tmp_path):
    """Open a shop on a database of its own, and bring people to it."""
    async with serve_here(tmp_path) as bring:
        yield bring


@pytest.fixture
def visitor(new_visitor):
    """One person in front of the shop."""
    return new_visitor()


@pytest.fixture
async def customer(visitor):
    """A visitor with the FULL cart."""
    return await fill(visitor, FULL)


@pytest.fixture
async def make_store(request, tmp_path):
    """Make stores of the kind that the parameter names; see `on_stores`."""
    async with making_stores(request.param, tmp_path) as make:
        yield make
