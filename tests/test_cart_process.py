"""The example shop as a process: restarts, signals, and what it cannot open."""

import signal
import stat

import pytest
from tornado.testing import bind_unused_port

from backends import backend_url
from cart_visitor import ShopProcess, open_shop, visitors
from examples.shared.program import without_password

pytestmark = pytest.mark.slow


@pytest.fixture
def visit():
    """Bring people to a shop; they survive its restarts."""
    with visitors() as bring:
        yield bring


async def test_cart_outlives_a_killed_server(tmp_path, visit):
    """What the shop answered is there after kill -9 and a new start (F2)."""
    async with open_shop(tmp_path) as shop:
        visitor = visit(shop.url)
        await visitor.submit("/cart/add", sku="gale-kite")
        await visitor.submit("/login", name="Ada")
        code, _, _ = await shop.stop(signal.SIGKILL)
        assert code == -signal.SIGKILL

        await shop.open()
        page = await visitor.get("/cart")

    assert page.lines == {"gale-kite": 1}
    assert "Logged in as Ada" in page.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_close_the_shop(tmp_path, visit, number):
    """SIGTERM and Ctrl-C end it with exit code 0 and no traceback."""
    async with open_shop(tmp_path) as shop:
        await visit(shop.url).submit("/cart/add", sku="gale-kite")
        code, output, errors = await shop.stop(number)

    assert code == 0, errors
    assert "Closing the shop" in output
    assert "Traceback" not in errors


async def test_says_where_it_is(tmp_path):
    """The start names the address, the store and the place of the secret."""
    async with open_shop(tmp_path) as shop:
        secret, opened = shop.lines

    assert "from cart.db.secret." in secret
    assert "(sessions in sqlite:///cart.db, Ctrl-C to stop)" in opened
    mode = (tmp_path / "cart.db.secret").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert (tmp_path / "cart.db").exists()


@pytest.mark.parametrize(
    ("store", "kept"),
    [
        ("file:///./carts", "carts.secret"),
        ("sqlite:///{folder}/here.db", "here.db.secret"),
        ("memory://", None),
    ],
)
async def test_other_stores(tmp_path, visit, store, kept):
    """--store takes any other store; the secret lies beside it."""
    store = store.format(folder=tmp_path)
    async with open_shop(tmp_path, "--store", store) as shop:
        page = await visit(shop.url).submit("/cart/add", sku="gale-kite")

    assert page.item_count == 1
    assert ([kept] if kept else []) == [path.name for path in tmp_path.glob("*.secret")]


@pytest.mark.parametrize("backend", ["redis", "redis-cluster", "mongo"])
async def test_two_shops_on_one_database(tmp_path, visit, backend):
    """Two servers on one database have the same carts, also when one is killed (F2)."""
    options = ("--store", backend_url(backend, tmp_path))
    async with (
        open_shop(tmp_path, *options) as one,
        open_shop(tmp_path, *options) as two,
    ):
        assert "from cart.secret." in one.lines[0]
        visitor = visit(one.url)
        await visitor.submit("/cart/add", sku="gale-kite")
        visitor.url = two.url
        await visitor.submit("/cart/add", sku="gale-kite")
        await one.stop(signal.SIGKILL)
        assert await visitor.cart() == {"gale-kite": 2}

        await one.open()
        visitor.url = one.url
        assert await visitor.cart() == {"gale-kite": 2}


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hush@host/0",
        "unix://user:hush@/run/redis.sock?db=0",
        "redis://host/0?password=hush&db=1",
        "redis+sentinel://a:1,b/main?db=0&sentinel_password=hush",
        "mongodb://user:hush@a,b/shop?replicaSet=rs0",
    ],
)
def test_passwords_stay_off_the_screen(url):
    """What the shop says of its store names no password (S9)."""
    shown = without_password(url)
    assert "hush" not in shown
    assert shown.replace("***", "") == url.replace("user:hush", "").replace("hush", "")


async def test_secret_from_the_environment(tmp_path):
    """A COOKIE_SECRET that is given is used, and none is written."""
    secret = "given by the environment, long enough"
    async with open_shop(tmp_path, COOKIE_SECRET=secret) as shop:
        assert "COOKIE_SECRET" in shop.lines[0]
        assert secret not in "".join(shop.lines)

    assert list(tmp_path.glob("*.secret")) == []


async def refused(folder, *options):
    """Start a shop that must not open; return the lines it says about it."""
    code, output, errors = await ShopProcess(folder, *options).run()
    assert code == 2, errors
    assert output == ""
    assert "Traceback" not in errors
    return errors.strip().splitlines()


@pytest.mark.parametrize(
    ("store", "named"),
    [
        ("nosuch://user:password@here", "nosuch://"),
        ("cart.db", "'cart.db'"),
        ("sqlite://", "sqlite:///"),
        ("sqlite:////no/such/folder/cart.db", "/no/such/folder"),
        ("file:////dev/null/carts", "/dev/null/carts"),
        ("sqlite:///folder", "folder"),
        ("sqlite:///broken.db", "broken.db"),
        ("memory://?colour=red", "colour"),
        ("redis://user:password@127.0.0.1:1", "check that Redis is running"),
        ("redis://127.0.0.1:1/0?password=password", "check that Redis is running"),
        ("redis+sentinel://127.0.0.1:1/", "/mymaster"),
        ("mongodb://user:password@127.0.0.1:1/?serverSelectionTimeoutMS=9", "reached"),
    ],
)
async def test_store_that_cannot_be_opened(tmp_path, store, named):
    """A store that cannot be opened is one clear line and exit code 2 (F3)."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.db").write_bytes(b"this is not a database" * 100)

    [message] = await refused(tmp_path, "--store", store)
    assert message.startswith("cart: --store: ")
    assert named in message
    assert "password" not in message


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--colour", "red"], "unrecognized arguments: --colour red"),
        (["--port", "many"], "argument --port"),
        (["--port", "65536"], "65536 is not between 0 and 65535"),
        (["--host", "256.0.0.1"], "Cannot listen"),
    ],
)
async def test_options_that_make_no_sense(tmp_path, options, complaint):
    """An option that makes no sense is named, with exit code 2."""
    message = (await refused(tmp_path, *options))[-1]
    assert complaint in message


async def test_taken_port(tmp_path):
    """A taken port is named, with what to do about it."""
    socket, port = bind_unused_port()
    with socket:
        [message] = await refused(tmp_path, "--port", str(port))

    assert f"Port {port} of 127.0.0.1 is taken" in message
    assert f"--port {port + 1}" in message


@pytest.mark.parametrize("content", ["", "short"])
async def test_useless_secret(tmp_path, content):
    """A secret that is too short to be one is refused, not used."""
    (tmp_path / "cart.db.secret").write_text(content)

    [message] = await refused(tmp_path)
    assert "cart.db.secret holds no usable secret" in message
