"""The lab compares and draws; how long things take is not judged here."""

import json
import re
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = "# Costs\n\n<!-- benchmark: begin -->\nold\n<!-- benchmark: end -->\n"


def run(*command):
    """Return what a command says, in the root of the repository."""
    result = subprocess.run(
        [sys.executable, *command],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def measured(tmp_path, *arguments):
    """Return what the lab prints, the page that it writes, and its pictures."""
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    results = ("--results", tmp_path, "--directory", tmp_path)
    output = run(
        *("-m", "benchmarks", "--quick", *results, "--write-costs", page, *arguments)
    )
    written = page.read_text(encoding="utf-8")
    names = re.findall(r"^!\[.+\]\((images/.+\.svg)\)$", written, re.MULTILINE)
    return output, written, [ET.parse(tmp_path / name) for name in names]


def test_contestants_stand_side_by_side(tmp_path):
    """P5: our SQLite and the one by hand are measured in one run, and are drawn."""
    output, page, pictures = measured(tmp_path, "--only", "peers", "--peers", "SQLite")
    assert "not measured" not in output
    for number in (1, 16, 128):
        table = output.partition(f"#### {number} connection")[2].partition("####")[0]
        assert "| **tornado_sessions, SQLite**" in table
        assert "| Tornado, sqlite3 by hand" in table
    assert "old" not in page
    assert "| Tornado, sqlite3 by hand" in page
    assert len(pictures) == 5
    text = " ".join("".join(picture.getroot().itertext()) for picture in pictures)
    assert "tornado_sessions, SQLite" in text
    found = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))["found"]
    assert {"bare", "read", "write", "rate", "p50", "p99"} <= set(found[0]["figures"])


WRONG = {
    "counts nothing": ("/read", "/untouched", "invalid literal"),
    "counts reading": ("/write", "/write", "were counted as"),
    "sends no cookie": ("/bare", "/processor-time", "were counted as"),
    "is not there": ("/nowhere", "/write", "closed the connection"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_contestant_that_does_not_do_it_is_an_error(wrong):
    """P3: what a peer does not do is not measured, and the table says why."""
    read, write, message = WRONG[wrong]
    script = f"""
        import asyncio, tempfile
        from pathlib import Path
        from benchmarks import contest
        from benchmarks.peers.catalogue import Contestant, Peer
        from benchmarks.standings import standings, table

        peer = Peer("Tornado", (Contestant("other", {read!r}, {write!r}),), "memory://")
        contest.peers = lambda only: [peer]
        with tempfile.TemporaryDirectory() as folder:
            size = contest.Size(1, 1, 0.01, 0.01)
            found = contest.measure((), size, Path(folder), lambda *_: None)
            print(table(standings(asyncio.run(found)), 16))
    """
    output = run("-c", textwrap.dedent(script))
    assert re.search(rf"^\| other +\| not measured: .*{message}", output, re.MULTILINE)


def test_a_difference_that_the_spread_hides_is_not_named():
    """P3: where the interval of a ratio has 1 in it, the table says so."""
    script = """
        from benchmarks.spread import Estimate
        from benchmarks.standings import Standing

        for low, high in ((0.9, 1.4), (1.1, 1.4), (0.5, 0.9)):
            against = {"against": Estimate((low + high) / 2, low, high)}
            print(Standing("a", "b", "c", False, 1, "", against).verdict)
    """
    hidden, slower, faster = run("-c", textwrap.dedent(script)).splitlines()
    assert hidden == "the spread hides it"
    assert slower == "1.25 × (1.10 to 1.40)"
    assert faster == "0.70 × (0.50 to 0.90)"


def test_counts_that_are_right_are_one_row():
    """P7: of what is counted, the bounds show how many are right, and each that is not."""
    script = """
        from benchmarks.report import Row, bounds
        from benchmarks.spread import Estimate

        def row(what, count, **bound):
            return Row("P7", what, Estimate(count, count, count), **bound)

        counts = [row(f"count {n}", n, exactly=1) for n in (1, 1, 2)]
        print(bounds([row("no bound", 1), *counts]))
    """
    *_, wrong, right = lines = run("-c", textwrap.dedent(script)).splitlines()
    assert len(lines) == 4
    assert re.search(r"count 2 .* no +\|$", wrong)
    assert re.search(r"2 right .* yes +\|$", right)


def test_express_is_a_goal():
    """P2: whole requests are compared, for each number of connections; or it says why not."""
    script = """
        from benchmarks import express_cost
        from benchmarks.contest import Result, Turn
        from benchmarks.peers.catalogue import peers
        from benchmarks.report import table
        from benchmarks.sampling import Sample

        def turn(processor):
            return Turn(*(Sample(processor, 1.0, 1.0, 1.0, 1.0) for _ in range(3)))

        took = {
            "tornado_sessions, Redis": 300,
            "tornado_sessions, Redis, uvloop": 500,
            "express-session, connect-redis": 400,
        }
        found = {}
        for name, processor in took.items():
            peer = peers([name])[0]
            turns = {number: [turn(processor)] for number in (1, 16, 128)}
            found[name] = Result(peer, peer.contestants[0], turns)
        print(table(express_cost.rows(found)))
        found["express-session, connect-redis"].error = "install Node.js"
        print(table(express_cost.rows(found)))
    """
    output = run("-c", textwrap.dedent(script))
    assert len(re.findall(r"0\.75 × .* yes +\|$", output, re.MULTILINE)) == 3
    assert len(re.findall(r"1\.25 × .* no +\|$", output, re.MULTILINE)) == 3
    assert re.search(r"connect-redis: install Node.js +\| not measured", output)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("size", ["tornado_sessions, memory", "max_record_bytes"]),
        ("parallel", ["memory, mutate", "SQLite, changes"]),
        ("stored", ["| memory ", "| SQLite ", "| file ", "Sweeping"]),
        ("sockets", ["with its session", "Tornado alone"]),
    ],
)
def test_growth_is_measured_and_drawn(tmp_path, part, expected):
    """P6, W1, C2: how costs grow is measured, explained and drawn."""
    output, page, pictures = measured(tmp_path, "--only", part)
    assert [one for one in expected if one not in output] == []
    assert [one for one in expected if one not in page] == []
    assert len(pictures) == output.count("### ")
    assert all(len(list(picture.getroot())) > 5 for picture in pictures)
