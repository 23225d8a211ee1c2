"""A visitor of the example shop over HTTP, and the shop as a process."""

import asyncio
import html
import os
import re
import signal
import sys
from contextlib import asynccontextmanager, contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode, urljoin

from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

ROOT = Path(__file__).parent.parent
# Last, so that an installed tornado_sessions wins over the working tree.
sys.path.append(str(ROOT))

from examples.cart import make_app  # noqa: E402
from tornado_sessions import SessionManager  # noqa: E402

SECRET = "only for the tests, and long enough for that"
PATIENCE = 20.0

FULL = {"watch-mug": 2, "gale-kite": 1}
"""A cart to begin with."""


class Page:
    """One answer of the shop, read the way a visitor reads it."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.code
        self.headers = response.headers
        self.text = response.body.decode()

    @property
    def item_count(self) -> int:
        """The number beside "Cart" in the header."""
        return int(self.found(r'id="item-count">(\d+)'))

    @property
    def notes(self) -> list[tuple[str, str]]:
        """The flash messages: (category, message)."""
        found = re.findall(r'<p class="note (\w+)">(.*?)</p>', self.text)
        return [(category, html.unescape(message)) for category, message in found]

    @property
    def lines(self) -> dict[str, int]:
        """The lines of the cart page: {sku: quantity}."""
        line = r'id="line-([\w-]+)".*?name="quantity" value="(\d+)"'
        found = re.findall(line, self.text, re.DOTALL)
        return {sku: int(quantity) for sku, quantity in found}

    def found(self, pattern: str) -> str:
        """Return the first group of a pattern that must be on the page."""
        match = re.search(pattern, self.text, re.DOTALL)
        assert match, f"{pattern} is not on the page"
        return html.unescape(match[1])


class Visitor:
    """A browser without a screen: keeps cookies, reads forms, sends them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies: dict[str, str] = {}
        self.token = ""
        self.client = AsyncHTTPClient(force_instance=True)

    async def get(self, path: str) -> Page:
        """Open a page, and keep the token of the forms on it."""
        page = await self.fetch(path)
        if match := re.search(r'name="_xsrf" value="([^"]+)"', page.text):
            self.token = match[1]
        return page

    async def send(self, path: str, **fields: str) -> Page:
        """Send a form and return the bare answer, which redirects."""
        if not self.token:
            await self.get("/login")
        body = urlencode({"_xsrf": self.token, **fields})
        return await self.fetch(path, method="POST", body=body)

    async def submit(self, path: str, **fields: str) -> Page:
        """Send a form and follow to the page it leads to."""
        answer = await self.send(path, **fields)
        assert answer.status == 303, answer.text
        return await self.get(answer.headers["Location"].partition("#")[0])

    async def fetch(self, path: str, **options) -> Page:
        """Make one request with the cookies so far."""
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response = await self.client.fetch(
            urljoin(self.url, path),
            headers={"Cookie": cookies},
            follow_redirects=False,
            raise_error=False,
            **options,
        )
        self.keep_cookies(response)
        return Page(response)

    def keep_cookies(self, response: HTTPResponse) -> None:
        """Take over what the answer sets; an empty value clears."""
        for header in response.headers.get_list("Set-Cookie"):
            for name, morsel in SimpleCookie(header).items():
                if morsel.value:
                    self.cookies[name] = morsel.value
                else:
                    self.cookies.pop(name, None)

    @property
    def session_cookie(self) -> str:
        """The value of the session cookie, "" without one."""
        return self.cookies.get("session", "")

    async def cart(self) -> dict[str, int]:
        """Read the cart off the cart page."""
        return (await self.get("/cart")).lines


async def fill(visitor: Visitor, cart: dict[str, int]) -> Visitor:
    """Put things into a cart, one by one as a visitor does."""
    for sku, quantity in cart.items():
        for _ in range(quantity):
            await visitor.submit("/cart/add", sku=sku)
    return visitor


@contextmanager
def visitors():
    """Bring people to a shop for the length of a block."""
    brought = []

    def bring(url: str) -> Visitor:
        brought.append(Visitor(url))
        return brought[-1]

    yield bring
    for visitor in brought:
        visitor.client.close()


@asynccontextmanager
async def serve_here(folder: Path, **settings):
    """Run the shop in this process for the length of a block."""
    app = make_app(f"sqlite:///{folder}/cart.db", SECRET)
    app.settings.update(settings)
    socket, port = bind_unused_port()
    async with SessionManager.of(app):
        server = HTTPServer(app)
        server.add_socket(socket)
        with visitors() as bring:
            yield lambda: bring(f"http://127.0.0.1:{port}")
        server.stop()
        await server.close_all_connections()


class ShopProcess:
    """The shop as a person starts it: ``python -m examples.cart``."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.folder = folder
        self.options = options
        self.environment = environment
        self.port = 0
        self.url = ""
        self.lines: list[str] = []

    async def launch(self) -> None:
        """Start the process, without waiting for anything it says."""
        given = {k: v for k, v in os.environ.items() if k != "COOKIE_SECRET"}
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "examples.cart", "--port", str(self.port)),
            *self.options,
            cwd=self.folder,
            env={**given, "PYTHONPATH": str(ROOT), **self.environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def open(self) -> None:
        """Start the shop; its address is the same after a restart."""
        await self.launch()
        assert self.process.stdout
        assert self.process.stderr
        self.output = self.process.stdout
        self.errors = asyncio.create_task(self.process.stderr.read())
        while not (opened := re.search(r"open: (http:\S+)", "".join(self.lines))):
            line = await asyncio.wait_for(self.output.readline(), PATIENCE)
            assert line, (await self.errors).decode()
            self.lines.append(line.decode())
        self.url = opened[1]
        self.port = int(self.url.rpartition(":")[2])

    async def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; return the exit code, the last output and all errors."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        code = await asyncio.wait_for(self.process.wait(), PATIENCE)
        self.lines.clear()
        output, errors = await self.output.read(), await self.errors
        return code, output.decode(), errors.decode()

    async def run(self) -> tuple[int | None, str, str]:
        """Start a shop that cannot open; return what it says about it."""
        await self.launch()
        talk = self.process.communicate()
        output, errors = await asyncio.wait_for(talk, PATIENCE)
        return self.process.returncode, output.decode(), errors.decode()


@asynccontextmanager
async def open_shop(folder: Path, *options: str, **environment: str):
    """Run the shop for the length of a block, and end it by its process id."""
    shop = ShopProcess(folder, *options, **environment)
    try:
        await shop.open()
        yield shop
    finally:
        await shop.stop(signal.SIGKILL)
