"""What several tests begin with: a shop with a visitor, stores to be watched."""

import asyncio

import pytest

from cart_visitor import FULL, fill, serve_here
from httpkit_stores import making_stores
from secretkit import tell, watching


def pytest_warning_recorded(warning_message):
    """Have what is warned of looked through; see `secretkit`."""
    tell("warning", str(warning_message.message))


def pytest_runtest_logreport(report):
    """Have what a test left on stderr looked through; see `secretkit`."""
    tell("stderr", report.capstderr)


@pytest.fixture(scope="session", autouse=True)
def nothing_secret_is_told():
    """S9: of all that the suite stores, nothing is in what anybody is told."""
    with watching() as watch:
        yield
    assert watch.leaks() == []


@pytest.fixture(scope="session", autouse=True)
def given_up_connections_are_closed():
    """Close what PyMongo was about to connect when that was cancelled.

    Its `_async_create_connection` closes the socket on TimeoutError and OSError only: a
    client that is closed while one of its monitors connects leaves a socket to the
    collector. That is a ResourceWarning, in whichever test comes to collect it, and it
    may happen wherever a store on MongoDB is closed. To ignore the warning would
    hide other sockets, ours and those of the tests.
    """
    connect = asyncio.SelectorEventLoop.sock_connect

    async def sock_connect(loop, sock, address):
        try:
            return await connect(loop, sock, address)
        except asyncio.CancelledError:
            sock.close()
            raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.SelectorEventLoop, "sock_connect", sock_connect)
        yield


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
