"""Bytes from outside: every target, briefly. README.md says how to run them for long."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets import CORPUS, FOLDER, TARGETS, corpus

on_every_target = pytest.mark.parametrize("name", TARGETS)
DEFINED = re.compile(r"^def fuzz\(", re.MULTILINE)
GROWN = 300_000
"""Bytes on which what takes more than linear time does not come to an end."""


def test_every_target_has_a_corpus():
    """No folder of inputs is without its target, and no target without inputs."""
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    modules = {
        one.stem for one in FOLDER.glob("*.py") if DEFINED.search(one.read_text())
    }
    assert modules == set(TARGETS)


@on_every_target
def test_what_was_trouble_once(name):
    """S4 S6 K1 K2 W2 F3: inputs that once crashed, or lead everywhere, do no harm."""
    for data in corpus(name):
        TARGETS[name].fuzz(data)


@on_every_target
def test_any_bytes(name):
    """S4 S6 K1 K2 W2 F3: nor do any others; these come from hypothesis."""
    seeds = corpus(name)
    pieces = st.one_of(st.binary(max_size=60), st.sampled_from(seeds).flatmap(cut))

    @settings(deadline=None, database=None, max_examples=settings().max_examples)
    @given(st.lists(pieces, max_size=4).map(b"".join))
    def holds(data):
        TARGETS[name].fuzz(data)

    holds()


def cut(seed):
    """Return any part of an input."""
    places = st.integers(0, len(seed))
    return st.tuples(places, places).map(lambda ends: seed[min(ends) : max(ends)])


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "name", [name for name in TARGETS if hasattr(TARGETS[name], "grown")]
)
def test_no_input_hangs(name):
    """K2 S6: time grows as the input does: what is quadratic would run into the timeout."""
    for data in TARGETS[name].grown(GROWN):
        TARGETS[name].fuzz(data)


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed (it has wheels for Linux on x86_64)",
)
def test_a_short_run(tmp_path):
    """S4 S6 K1 K2: a fuzzer that sees which lines an input reaches finds nothing either."""
    program = Path(__file__).with_name("run.py")
    command = [sys.executable, program, "mixed", "--runs", "5000", "--found", tmp_path]
    command += ["--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "DONE" in done.stderr
