"""The table of backends, and what the tests of HTTP prove on each of them."""

import ast
import gc
import re
from contextlib import ExitStack
from pathlib import Path

import pytest
from tornado.testing import AsyncHTTPTestCase
from tornado.web import Application

from backends import CLIENTS, PLACES, backend_store, backend_url
from httpkit import SECRET, Counter
from tornado_sessions import SessionManager

TESTS = Path(__file__).parent
ON_BACKENDS = {"on_every_store", "on_waiting_stores"}
RULES = {
    *(f"S{number}" for number in range(1, 10)),
    *("C1", "C2", "C3", "C4", "C5", "C6"),
    *("T1", "T2", "T3", "T4", "T5", "K4", "F1", "R1"),
    *("E1", "E2", "E3", "E4", "E5", "E6", "P7"),
}


def proven_on_backends():
    """Yield the rules that are named by tests over HTTP that run on every backend."""
    for path in TESTS.glob("test_http_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AsyncFunctionDef):
                marks = {ast.unparse(mark) for mark in node.decorator_list}
                if marks & ON_BACKENDS:
                    yield from re.findall(r"\b[A-Z]\d\b", ast.get_docstring(node))


def test_rules_are_proven_on_every_backend():
    """S1-S9 C1-C6 T1-T5 E1-E6: each is proven over HTTP on every backend."""
    assert RULES - set(proven_on_backends()) == set()


@pytest.mark.parametrize("name", PLACES)
def test_each_use_has_a_namespace_of_its_own(name, tmp_path):
    """R5: the URL of a backend is another with each use."""
    assert backend_url(name, tmp_path) != backend_url(name, tmp_path)


@pytest.mark.parametrize("name", [*PLACES, *CLIENTS])
async def test_each_use_is_empty(name, tmp_path):
    """R5: what one use of a backend has stored is nothing to the next."""
    with ExitStack() as after:
        one, other = (backend_store(name, tmp_path, after) for _ in range(2))
        async with one, other:
            async with SessionManager(one) as manager:
                session = await manager.load([])
                session["k"] = 1
                await session.save()
                assert (await manager.count(), await other.count()) == (1, 0)
            async with other:
                await other.clear()
            async with one:
                assert await one.count() == 1
                await one.clear()


@pytest.mark.parametrize("name", PLACES)
def test_loop_after_loop(name, tmp_path):
    """T8: a store that nobody closes works in the next loop, and leaves nothing open.

    That is what `AsyncHTTPTestCase` does to an application that several tests share.
    What is left open is a ResourceWarning when it is collected, and an error here.
    """
    url = backend_url(name, tmp_path)
    shared = Application([(r"/", Counter)], cookie_secret=SECRET, session_store=url)
    cookies: dict[str, str] = {}

    class Case(AsyncHTTPTestCase):
        def get_app(self):
            return shared

        def runTest(self):
            answer = self.fetch("/", method="POST", body="", headers=cookies)
            counted.append(answer.body)
            if "Set-Cookie" in answer.headers:
                cookies["Cookie"] = answer.headers["Set-Cookie"].partition(";")[0]

    counted: list[bytes] = []
    for _ in range(3):
        Case().debug()
        gc.collect()
    assert counted == [b'{"n": 1}', b'{"n": 2}', b'{"n": 3}']
