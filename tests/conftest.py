"""What several tests of the example shop begin with."""

import pytest

from cart_visitor import FULL, fill, serve_here


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
