"""Reads the fenced blocks of a Markdown page and runs them as a reader would.

Blocks run from top to bottom, in an empty directory, and share their names:

* ``python`` runs, with ``await`` allowed as in ``python -m asyncio``; where it is a whole
  program, ``$ .venv/bin/python counter.py`` starts it;
* ``pycon`` runs line by line, and what it prints is compared;
* ``console`` is a terminal: ``curl`` asks the ``app`` of the page, or the program that was
  started, and what comes back is compared;
* a block with a caption is a file, and a file named ``test_*.py`` is run by pytest;
* ``sh`` and ``text`` are not run. There is no other kind.

A comment of the form ``<!-- run`` … ``-->`` is a ``python`` block that readers do not
see. In what is compared, ``...`` stands for anything. A database of localhost is one that
was started for the page: on a port of its own, and empty.
"""

import ast
import asyncio
import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from http.client import responses
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

import tornado_sessions
from mongokit import MongoServer
from rediskit import RedisServer
from tornado_sessions import ConfigurationError, SessionManager, Store
from tornado_sessions.testing import SessionClient

ROOT = Path(__file__).parents[1]
DATABASES = {
    "redis://localhost": lambda: RedisServer("--save", ""),
    "mongodb://localhost": MongoServer,
}
"""What has to be started, by the address that pages have for it."""
KINDS = {"python", "pycon", "console", "html", "sh", "text"}
RUN = {"python", "pycon"}
SECRET = "a secret made up for the documentation"

_BLOCK = re.compile(
    r"^(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<code>.*?)^(?P=fence)$"
    r"|^<!-- run\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)
_NO_CODE = {"eval-rst", "include", "raw", "toctree"}
_CAPTION = re.compile(r"^:caption: *(.+)\n+", re.MULTILINE)
_PATIENCE = 60.0


@dataclass(frozen=True)
class Block:
    """A piece of code on a page, and where it begins."""

    page: Path
    line: int
    kind: str
    code: str
    caption: str = ""

    @property
    def place(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages():
    """Give every page that has code to run."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page):
    """Give the blocks of a page; ValueError for a kind that nothing would run."""
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 2
        if match["hidden"] is not None:
            yield Block(page, line, "python", match["hidden"])
            continue
        info, code = match["info"].strip(), match["code"]
        included = re.fullmatch(r"\{literalinclude\} (\S+\.py)", info)
        if included:
            code = (page.parent / included[1]).read_text(encoding="utf-8")
            yield Block(page, line, "python", code)
            continue
        directive = re.fullmatch(r"\{([\w-]+)\} *(.*)", info)
        if directive and directive[1] in _NO_CODE:
            continue
        kind = directive[2] if directive and directive[1] == "code-block" else info
        if kind not in KINDS:
            raise ValueError(f"{page}:{line}: nothing runs a block of kind {info!r}")
        caption = _CAPTION.match(code) if directive else None
        if caption:
            line += caption[0].count("\n")
            code = code[caption.end() :]
        yield Block(page, line, kind, code, caption[1] if caption else "")


@contextmanager
def databases(page):
    """Start the databases that the code of a page names; give where each really is."""
    code = "".join(block.code for block in blocks(page) if block.kind in RUN)
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(make()).url.rpartition("/")[0]
            for name, make in DATABASES.items()
            if name in code
        }


class Page:
    """Runs the blocks of one page in the current directory.

    Args:
        addresses: What stands in the code, and is something else when it runs.
    """

    def __init__(self, addresses):
        self.names = {"__name__": "__page__"}
        self._addresses = addresses
        self._seen = {}
        self._program = ""
        self._address = None
        self._served = None
        self._stack = AsyncExitStack()

    async def __aenter__(self):
        os.environ["COOKIE_SECRET"] = SECRET
        return self

    async def __aexit__(self, *_):
        await self._stack.aclose()
        for thing in self._seen.values():
            if isinstance(thing, Application):
                with contextlib.suppress(ConfigurationError):  # shown on purpose
                    await SessionManager.of(thing).close()
            elif isinstance(thing, (SessionManager, Store)):
                await thing.close()

    async def run(self, block):
        """Run a block; AssertionError if it prints something else than it shows."""
        for name, address in self._addresses.items():
            block = replace(block, code=block.code.replace(name, address))
        if block.caption:
            Path(block.caption).write_text(block.code, encoding="utf-8")
            if block.caption.startswith("test_"):
                await asyncio.to_thread(run_pytest, block)
        elif block.kind == "python":
            await self._python(self._without_start(block.code), block)
        elif block.kind == "pycon":
            await self._pycon(block)
        elif block.kind == "console":
            await self._console(block)
        for value in list(self.names.values()):
            if isinstance(value, (Application, SessionManager, Store)):
                self._seen[id(value)] = value

    def _without_start(self, code):
        """Remember a whole program, for the terminal; return what it defines."""
        definitions, start, _ = code.partition("\nasyncio.run(")
        if start:
            self._program = code
        return definitions if start else code

    async def _python(self, code, block, line=0, mode="exec"):
        source = "\n" * (block.line + line - 1) + code
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compiled = compile(source, str(block.page), mode, flags, dont_inherit=True)
        result = eval(compiled, self.names)
        if asyncio.iscoroutine(result):
            await result

    async def _pycon(self, block):
        examples = doctest.DocTestParser().get_examples(block.code)
        assert examples, f"{block.place}: no >>> in it"
        for example in examples:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                try:
                    await self._python(example.source, block, example.lineno, "single")
                except Exception as error:
                    if example.exc_msg is None:
                        raise
                    name = type(error).__name__
                    printed.write(f"{name}: {error}\n")
            where = f"{block.page.relative_to(ROOT)}:{block.line + example.lineno}"
            compare(where, example.exc_msg or example.want, printed.getvalue())

    # -- the terminal --------------------------------------------------------------

    async def _console(self, block):
        commands = re.split(r"^\$ ", block.code, flags=re.MULTILINE)
        assert not commands[0], f"{block.place}: no $ in it"
        for command in commands[1:]:
            line, _, shown = command.partition("\n")
            while line.endswith("\\"):
                more, _, shown = shown.partition("\n")
                line = line[:-1] + more.strip()
            compare(f"{block.place}: $ {line}", shown, await self._command(line))

    async def _command(self, line):
        program, *words = shlex.split(line)
        if program == "curl":
            return await self._curl(words)
        if program == ".venv/bin/python":
            Path(words[0]).write_text(self._program, encoding="utf-8")
            await self._start(words[0])
            return ""
        if program in ("export", "kill"):
            return ""  # COOKIE_SECRET has been set; the next start ends the last
        raise ValueError(f"nothing runs {program!r}; make it an sh block")

    async def _curl(self, words):
        """Do what curl does with ``-b FILE``, ``-c FILE``, ``-d DATA`` and ``-i``."""
        options = {"-b": None, "-c": None, "-d": None}
        arguments = iter(words)
        rest = [
            word if word not in options else options.update({word: next(arguments)})
            for word in arguments
        ]
        (url,) = [word for word in rest if word and not word.startswith("-")]
        response = await self._ask(urlsplit(url).path or "/", options)
        head = ""
        if "-i" in rest:
            head = f"HTTP/1.1 {response.code} {responses[response.code]}\n"
            head += "".join(f"{k}: {v}\n" for k, v in response.headers.get_all())
            head += "\n"
        return head + response.body.decode()

    async def _ask(self, path, options):
        app = self.names.get("app")
        if app is not None and app is not self._served:
            self._served = app
            self._address = await self._stack.enter_async_context(serving(app))
        assert self._address, "there is no app, and no program was started"
        cookie = ""
        if options["-b"] and Path(options["-b"]).exists():
            cookie = Path(options["-b"]).read_text(encoding="utf-8")
        async with SessionClient(self._address, cookie=cookie) as client:
            if options["-d"] is None:
                response = await client.get(path)
            else:
                form = dict(parse_qsl(options["-d"], keep_blank_values=True))
                response = await client.post(path, form, xsrf=False)
            if options["-c"]:
                Path(options["-c"]).write_text(client.cookie, encoding="utf-8")
        return response

    async def _start(self, program):
        """Start a program; the one that runs is killed, and not asked to stop."""
        await self._stack.aclose()
        self._address = await self._stack.enter_async_context(running(program))


@asynccontextmanager
async def serving(app):
    """Serve an application on a free port; give its address."""
    (socket,) = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(app, xheaders=True)
    server.add_socket(socket)
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()
        await SessionManager.of(app).close()


_ON_A_FREE_PORT = """
import runpy, sys
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.httpserver import HTTPServer

def listen(app, port, *args, **kwargs):
    (socket,) = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(app)
    server.add_socket(socket)
    print(socket.getsockname()[1], flush=True)
    return server

Application.listen = listen
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@asynccontextmanager
async def running(program):
    """Run a program that listens; give its address, which is not the one it names."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _ON_A_FREE_PORT, str(program)),
        stdout=subprocess.PIPE,
        env=environment(),
    )
    try:
        port = await asyncio.wait_for(process.stdout.readline(), _PATIENCE)
        yield f"http://127.0.0.1:{int(port)}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def environment():
    """Give the environment of a process that imports the package under test."""
    installed = str(Path(tornado_sessions.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([installed, str(Path.cwd())])}


def run_pytest(block):
    """Run the tests that a page shows."""
    scope = "asyncio_default_fixture_loop_scope=function"
    options = ["-q", "-W", "error", "--asyncio-mode=auto", "-o", scope]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir=.", block.caption],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
    )
    report = f"{block.place}\n{result.stdout}{result.stderr}"
    assert result.returncode == 0, report
    assert "skipped" not in result.stdout, report


def compare(place, shown, printed):
    """Compare what a page shows with what there is; ``...`` stands for anything."""
    shown, printed = shown.rstrip(), printed.rstrip()
    pattern = re.escape(shown).replace(re.escape("..."), ".*")
    matches = re.fullmatch(pattern, printed, re.DOTALL)
    assert matches, f"{place}\nshown:\n{shown}\n\nprinted:\n{printed}"
