"""The benchmarks run; how long things take is not judged here, what is counted is."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parts import require_part

ROOT = Path(__file__).parents[1]
PAGE = (
    "# Costs\n\n<!-- benchmark: begin -->\nold\n<!-- benchmark: end -->\n\nThe end.\n"
)


def benchmarks(*arguments):
    """Return what the benchmarks print."""
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def bounds(output):
    """Return rules and bounds of the rows that have one."""
    bound = r"([<>]?= [\d.]+(?: \S+)?) +\|"
    return set(re.findall(rf"^\| (\w\d) .*\| {bound}", output, re.MULTILINE))


def require_measured(part, output):
    require_part(part, "not measured" not in output, "see " + output.strip())


def test_the_benchmarks_write_the_table(tmp_path):
    """P6: one command measures, and writes the table where it is told to."""
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    output = benchmarks("--only", "P6", "--write-docs", page, "--results", tmp_path)

    assert bounds(output) == {("P6", "<= 1024 B"), ("P6", "<= 10 ms")}
    assert (tmp_path / "latest.md").read_text(encoding="utf-8") == output
    figures = json.loads((tmp_path / "latest.json").read_text(encoding="utf-8"))
    short, _, complete = output.partition("\n### All figures\n")
    assert len(figures["rows"]) == complete.count("\n| P6 ")
    assert bounds(short) == bounds(complete)
    assert short.count("\n| P6 ") == 2
    written = page.read_text(encoding="utf-8")
    assert output in written
    assert "old" not in written
    assert written.startswith("# Costs\n")
    assert written.endswith("\nThe end.\n")


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("P3", {("P3", "<= 2 ×"), ("P4", "<= 5 %")}),
        ("P5", {("P5", ">= 5 ×")}),
        ("W1", {("W1", "<= 1000 ms")}),
    ],
)
def test_the_benchmarks_run(tmp_path, only, expected):
    """P3, P4, P5, W1: the benchmarks measure what the rules ask for."""
    assert bounds(benchmarks("--only", only, "--directory", tmp_path)) == expected


@pytest.mark.parametrize(
    ("part", "only", "expected"),
    [
        ("redis", "P1", {("P1", "<= 0.55 ×"), ("P2", "<= 0.45 ×")}),
        ("mongo", "M1", {("M2", "<= 0.7 ×")}),
        ("redis", "A1", {("A1", "<= 1 ×")}),
        ("redis", "A2", {("A2", "<= 1 ×")}),
        ("redis", "L1", {("L1", "<= 1 ×")}),
    ],
)
def test_databases_are_measured(part, only, expected):
    """P1, P2: no visit is lost, and our stores stand beside handwritten sessions."""
    output = benchmarks("--only", only)
    require_measured(part, output)
    assert bounds(output) == expected


async def test_a_database_is_put_further_away():
    """A2: what is said to it and what it says come whole, and both take their time."""

    async def echo(reader, writer):
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    database = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = database.sockets[0].getsockname()[1]
    relay = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.relay", str(port), "0.02"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        async with database:
            here = int(await relay.stdout.readline())
            reader, writer = await asyncio.open_connection("127.0.0.1", here)
            began, said = time.monotonic(), b"said" * 100_000
            writer.write(said)
            assert await reader.readexactly(len(said)) == said
            assert time.monotonic() - began >= 0.04
            writer.close()
    finally:
        relay.stdin.close()
        assert await relay.wait() == 0


def test_encryption_is_measured():
    """S9: what encrypted values of three sizes add to a read and to a write is shown."""
    rows = benchmarks("--only", "S9").splitlines()
    units = re.findall(r"^\| S9 .* -?[\d.]+ (µs|×) +\|", "\n".join(rows), re.MULTILINE)
    assert units == ["µs", "×"] * 6


@pytest.mark.slow
def test_instructions_of_the_processor():
    """P3: what valgrind counts for a read is at most twice that of get_signed_cookie."""
    if shutil.which("valgrind") is None:
        pytest.skip("install valgrind to count instructions of the processor")
    command = "-m benchmarks.machine_instructions memory:// /bare /signed-cookie /read"
    result = subprocess.run(
        [sys.executable, *command.split(), "--connections", "1", "--requests", "50"],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    counted = re.findall(r"^(/[\w-]+): ([\d.]+) thousand", result.stdout, re.MULTILINE)
    takes = {path: float(thousands) for path, thousands in counted}
    signed = takes["/signed-cookie"] - takes["/bare"]
    assert 0 < takes["/read"] - takes["/bare"] <= 2 * signed


@pytest.mark.parametrize(("part", "scheme"), [("redis", "redis"), ("mongo", "mongodb")])
def test_no_request_asks_more_than_it_must(part, scheme):
    """P7: the server counts the round trips, and there are as many as the rule says."""
    rows = benchmarks("--only", "P7").splitlines()
    ours = [row for row in rows if scheme in row.lower() and row.startswith("| P7")]
    require_measured(part, "\n".join(ours))
    judged = [row for row in ours if re.search(r"= \d+ +\|", row)]
    assert len(judged) >= 9
    assert [row for row in judged if not re.search(r"\| yes +\|$", row)] == []
