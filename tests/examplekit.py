"""An example over HTTP: its visitors, in this process or as a program of its own."""

import asyncio
import html
import os
import re
import signal
import sys
from contextlib import asynccontextmanager, contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

ROOT = Path(__file__).parent.parent
# Last, so that an installed tornado_sessions wins over the working tree.
sys.path.append(str(ROOT))

from secretkit import tell  # noqa: E402
from tornado_sessions import SessionManager, StoreError  # noqa: E402
from tornado_sessions.stores.memory import MemoryStore  # noqa: E402

SECRET = "only for the tests, and long enough for that"
PATIENCE = 20.0


class FragileStore(MemoryStore):
    """A store that can be told to be out of reach."""

    broken = False

    def __init__(self):
        super().__init__()
        self.refused = asyncio.Event()

    async def find(self, principal):
        self.check()
        return await super().find(principal)

    async def load(self, handles):
        self.check()
        return await super().load(handles)

    async def commit(self, changes):
        self.check()
        return await super().commit(changes)

    def check(self):
        if self.broken:
            self.refused.set()
            raise StoreError("out of reach for the test")


class Page:
    """One answer of an example, read the way a visitor reads it."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.code
        self.headers = response.headers
        self.text = response.body.decode()

    @property
    def notes(self) -> list[tuple[str, str]]:
        """The flash messages: (category, message)."""
        found = re.findall(r'<p class="note (\w+)">(.*?)</p>', self.text)
        return [(category, html.unescape(message)) for category, message in found]

    def found(self, pattern: str) -> str:
        """Return the first group of a pattern that must be on the page."""
        match = re.search(pattern, self.text, re.DOTALL)
        assert match, f"{pattern} is not on the page"
        return html.unescape(match[1])


class Visitor:
    """A browser without a screen: keeps cookies, reads forms, sends them."""

    page: type = Page
    cookie = "session"
    """The name of the session cookie."""
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0"

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies: dict[str, str] = {}
        self.token = ""
        self.client = AsyncHTTPClient(force_instance=True)

    async def get(self, path: str) -> Any:
        """Open a page, and keep the token of the forms on it."""
        page = await self.fetch(path)
        if match := re.search(r'name="_xsrf" value="([^"]+)"', page.text):
            self.token = match[1]
        return page

    async def send(self, path: str, **fields: str) -> Any:
        """Send a form and return the bare answer, which redirects."""
        if not self.token:
            await self.get("/login")
        body = urlencode({"_xsrf": self.token, **fields})
        return await self.fetch(path, method="POST", body=body)

    async def submit(self, path: str, **fields: str) -> Any:
        """Send a form and follow to the page it leads to."""
        answer = await self.send(path, **fields)
        assert answer.status == 303, answer.text
        return await self.get(answer.headers["Location"].partition("#")[0])

    async def fetch(self, path: str, **options) -> Any:
        """Make one request with the cookies so far."""
        response = await self.client.fetch(
            urljoin(self.url, path),
            headers=self.headers,
            follow_redirects=False,
            raise_error=False,
            **options,
        )
        self.keep_cookies(response)
        return self.page(response)

    @property
    def headers(self) -> dict[str, str]:
        """What each request says: who asks, and what it was told to keep."""
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {"Cookie": cookies, "User-Agent": self.agent}

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
        return self.cookies.get(self.cookie, "")


@contextmanager
def visitors(kind: type[Visitor]):
    """Bring people to an example for the length of a block."""
    brought: list[Any] = []

    def bring(url: str) -> Any:
        brought.append(kind(url))
        return brought[-1]

    yield bring
    for visitor in brought:
        visitor.client.close()


@asynccontextmanager
async def serve(app: Application):
    """Serve an example in this process for the length of a block; give its address."""
    socket, port = bind_unused_port()
    async with SessionManager.of(app):
        server = HTTPServer(app)
        server.add_socket(socket)
        yield f"http://127.0.0.1:{port}"
        server.stop()
        await server.close_all_connections()


class ExampleProcess:
    """An example as a person starts it: ``python -m examples.cart``."""

    def __init__(
        self, name: str, folder: Path, *options: str, **environment: str
    ) -> None:
        self.module = f"examples.{name}"
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
            *(sys.executable, "-m", self.module, "--port", str(self.port)),
            *self.options,
            cwd=self.folder,
            env={**given, "PYTHONPATH": str(ROOT), **self.environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def open(self) -> None:
        """Start the example; its address is the same after a restart."""
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
        output, errors = await self.output.read(), await self.errors
        tell("a program", "".join((*self.lines, output.decode(), errors.decode())))
        self.lines.clear()
        return code, output.decode(), errors.decode()

    async def run(self) -> tuple[int | None, str, str]:
        """Start an example that cannot open; return what it says about it."""
        await self.launch()
        talk = self.process.communicate()
        output, errors = await asyncio.wait_for(talk, PATIENCE)
        tell("a program", output.decode() + errors.decode())
        return self.process.returncode, output.decode(), errors.decode()


@asynccontextmanager
async def open_example(name: str, folder: Path, *options: str, **environment: str):
    """Run an example for the length of a block, and end it by its process id."""
    example = ExampleProcess(name, folder, *options, **environment)
    try:
        await example.open()
        yield example
    finally:
        await example.stop(signal.SIGKILL)
