"""The program of the page about deployment runs, keeps its promises, and stops."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.netutil import bind_sockets

from docpages import ROOT, SECRET, blocks, environment

PATIENCE = 30


def program(folder, *, forks=False):
    """Write the program of the page; return where."""
    page = blocks(ROOT / "docs/deployment.md")
    code = {block.caption: block.code for block in page if block.caption}
    text = code["serve.py"]
    if forks:
        start = text.index("listening = ")
        text = "from tornado.process import fork_processes\n" + text[:start]
        text += code["the end of serve.py"]
    path = folder / "serve.py"
    path.write_text(text, encoding="utf-8")
    return path


def free_port():
    (socket,) = bind_sockets(0, "127.0.0.1")
    with socket:
        return socket.getsockname()[1]


async def visits(port, cookie, **headers):
    """Ask as the proxy does; return what came."""
    url, client = f"http://127.0.0.1:{port}/", AsyncHTTPClient(force_instance=True)
    given = {"Cookie": cookie, **headers} if cookie else headers
    answer = await client.fetch(url, headers=given, raise_error=False)
    sent = answer.headers.get("Set-Cookie", "")
    return answer.body, sent


async def started(port, cookie, **headers):
    """Ask until there is a server, which says nothing of its own when it is."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return await visits(port, cookie, **headers)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.05)


@pytest.mark.skipif(sys.platform == "win32", reason="add_signal_handler()")
async def test_a_restart_is_no_logout(tmp_path):
    """T8, F4: the program stops at SIGTERM with 0, and sessions outlive it."""
    port, cookie = free_port(), ""
    settings = {
        "COOKIE_SECRET": SECRET,
        "SESSION_STORE": "sqlite:///sessions.db",
        "PORT": str(port),
    }
    https = {"X-Forwarded-Proto": "https"}
    for number in (1, 2):
        running = subprocess.Popen(
            [sys.executable, program(tmp_path)],
            cwd=tmp_path,
            env={**os.environ, **environment(), **settings},
        )
        try:
            body, sent = await started(port, cookie, **https)
            assert body == b"visit number %d\n" % number
            if number == 1:
                cookie = sent.partition(";")[0]
                assert cookie.startswith("__Host-session=")
                assert "; Secure" in sent
            running.send_signal(signal.SIGTERM)
            assert running.wait(PATIENCE) == 0
        finally:
            running.kill()
            running.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_forked_processes_share_what_they_store(tmp_path):
    """T8: the program that forks counts in one store, and stops when its group is told."""
    port, https = free_port(), {"X-Forwarded-Proto": "https"}
    settings = {
        "COOKIE_SECRET": SECRET,
        "SESSION_STORE": "sqlite:///sessions.db",
        "PORT": str(port),
    }
    running = subprocess.Popen(
        [sys.executable, program(tmp_path, forks=True)],
        cwd=tmp_path,
        env={**os.environ, **environment(), **settings},
        start_new_session=True,
    )
    try:
        _, sent = await started(port, "", **https)
        cookie = sent.partition(";")[0]
        for number in range(2, 52):
            body, _ = await visits(port, cookie, **https)
            assert body == b"visit number %d\n" % number
        forked = await all_children(running.pid)
        os.killpg(running.pid, signal.SIGTERM)
        running.wait(PATIENCE)
        assert await all_ended(forked)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


async def all_children(pid):
    """Give the processes that *pid* has started, once there is one for each core."""
    until = time.monotonic() + PATIENCE
    while True:
        forked = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
        if len(forked) == os.cpu_count():
            return forked
        assert time.monotonic() < until, f"{len(forked)} processes"
        await asyncio.sleep(0.05)


async def all_ended(pids):
    """Wait until none of them runs; False if that takes too long."""
    until = time.monotonic() + PATIENCE
    while any(
        Path(f"/proc/{pid}/cmdline").exists()
        and Path(f"/proc/{pid}/cmdline").read_bytes()
        for pid in pids
    ):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.05)
    return True


async def test_without_the_header_nothing_is_stored(tmp_path):
    """K3: as the page says of X-Forwarded-Proto, and the log says so."""
    port = free_port()
    settings = {
        "COOKIE_SECRET": SECRET,
        "SESSION_STORE": "memory://",
        "PORT": str(port),
    }
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, program(tmp_path)],
            cwd=tmp_path,
            env={**os.environ, **environment(), **settings},
            stderr=log,
        )
    try:
        for _ in range(2):
            assert await started(port, "") == (b"visit number 1\n", "")
    finally:
        running.kill()
        running.wait()
    assert "session_secure" in (tmp_path / "log").read_text(encoding="utf-8")
