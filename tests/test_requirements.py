"""The page of requirements: complete, and each row names proofs that exist."""

import ast
import re
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from tornado_sessions import SessionConfig
from tornado_sessions.config import MANAGER_KEY, PREFIX, STORE_KEY

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/requirements.md"
ADDRESS = "https://github.com/tornado-sessions/tornado-sessions/blob/main/"
YOURS = "**Yours"
HEAD = "| id | asks for | how it is met | setting | proof |"
PROOF = re.compile(r"\[`(test_\w+)`\]\[([\w.]+)\]")
LABEL = re.compile(r"^\[([\w.]+)\]: (\S+)$", re.MULTILINE)
SETTING = re.compile(r"`(session_\w+)`")

ASVS_SESSIONS = """
    7.1.1 7.1.2 7.1.3 7.2.1 7.2.2 7.2.3 7.2.4 7.3.1 7.3.2
    7.4.1 7.4.2 7.4.3 7.4.4 7.4.5 7.5.1 7.5.2 7.5.3 7.6.1 7.6.2
"""
ASVS_COOKIES = "3.3.1 3.3.2 3.3.3 3.3.4 3.3.5 3.5.1 3.5.3 4.4.1 4.4.2 4.4.3 4.4.4"
ASVS_OTHERS = """
    1.5.2 9.1.1 9.2.1 11.3.1 11.3.2 11.3.3 11.3.4 11.5.1
    14.2.1 14.2.2 14.2.4 14.2.5 14.3.1 14.3.2 14.3.3
    15.4.1 15.4.2 15.4.3 15.4.4 16.2.5 16.3.1 16.3.3 16.3.4 16.4.1
    16.5.1 16.5.2 16.5.3 16.5.4
"""
NIST = """
    5.1 continuity, 5.1 persistence, 5.1 origin, 5.1 level, 5.1 (1), 5.1 (2), 5.1 (3),
    5.1 (4), 5.1 (5), 5.1 (6), 5.1 erasure, 5.1 storage, 5.1 transport, 5.1 forms,
    5.1 logout, 5.1.1 (1), 5.1.1 (2), 5.1.1 (3), 5.1.1 (4), 5.1.1 (5), 5.1.1 (6),
    5.1.1 (7), 5.1.2, 5.2 timeouts, 5.2 reset, 5.2 limits, 5.3, 2.1.3, 2.2.3, 2.3.3
"""
IDS = [
    *ASVS_SESSIONS.split(),
    *ASVS_COOKIES.split(),
    *ASVS_OTHERS.split(),
    *(f"SM-{number:02}" for number in range(1, 31)),
    *(f"WS-{number}" for number in range(1, 5)),
    *(f"CT-{number}" for number in range(1, 5)),
    *(f"CS-{number}" for number in range(1, 3)),
    *(" ".join(one.split()) for one in NIST.split(",")),
]
"""All that the sources ask for and a library can enforce or support."""


HOLES = """
    CVE-2012-3458 CVE-2013-0263 CVE-2013-10075 CVE-2013-7489 CVE-2014-9720
    CVE-2015-3982 CVE-2015-5143 CVE-2015-5963 CVE-2015-5964 CVE-2018-1000519
    CVE-2018-1000814 CVE-2019-16782 CVE-2021-33026 CVE-2022-25896 CVE-2023-20866
    CVE-2023-30861 CVE-2024-2044 CVE-2024-3400 CVE-2024-38513 CVE-2024-52801
    CVE-2024-52804 CVE-2024-7592 CVE-2025-32441 CVE-2025-40931 CVE-2025-46336
    CVE-2025-4754 CVE-2025-47278 CVE-2025-47287 CVE-2025-54592 CVE-2025-66630
    CVE-2025-67724 CVE-2025-67725 CVE-2025-67726 CVE-2026-123535 CVE-2026-27205
    CVE-2026-35536 CVE-2026-39324 CVE-2026-43827 CVE-2026-5080 CVE-2026-5081
    CVE-2026-70594 CVE-2026-79312 CVE-2026-79313 CVE-2026-91991
    GHSA-3hv7-mjh2-fv65 GHSA-pcg2-g6cj-q92c GHSA-qppm-g56g-fpvp GO-2024-2730
"""
"""What others were hit by, and a session library could be."""


def rows():
    """Give the rows of all tables as lists of five cells."""
    found = []
    for table in PAGE.read_text(encoding="utf-8").split(HEAD)[1:]:
        for line in table.strip().splitlines()[1:]:
            if not line.startswith("|"):
                break
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


def names_in(path):
    """Give the names of the tests in a file, of functions and of classes alike."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def place_of(file):
    """Give where a file of tests is: ours, or those for authors of stores."""
    return ROOT / ("tests" if file.startswith("test_") else "tornado_sessions") / file


def known_settings():
    names = {PREFIX + field.name for field in fields(SessionConfig)}
    return {*names, STORE_KEY, MANAGER_KEY, "session_preset"}


def test_no_requirement_is_left_out():
    """Each id of the list has one row, and there is no row without an id."""
    assert all(len(row) == 5 for row in rows())
    assert Counter(row[0] for row in rows()) == Counter(IDS)


def with_rows(function):
    names = ("name", "asks", "how", "setting", "proof")
    cases = [pytest.param(*row, id=row[0]) for row in rows()]
    return pytest.mark.parametrize(names, cases)(function)


@with_rows
def test_what_is_named_exists(name, asks, how, setting, proof):
    """The tests that a row names are there, and so are its settings."""
    for test, file in PROOF.findall(proof):
        assert test in names_in(place_of(file)), f"{name}: no {file}::{test}"
    left = PROOF.sub("", proof).replace(",", "").strip()
    assert left in ("", "–"), f"{name}: no proof is {left!r}"
    for one in SETTING.findall(f"{how} {setting}"):
        assert one in known_settings(), f"{name}: no setting {one}"
    assert SETTING.sub("", setting).replace(",", "").strip() in ("", "–")


@with_rows
def test_a_row_says_who_meets_it(name, asks, how, setting, proof):
    """A row has a proof, or says that it is the application's to meet."""
    assert asks
    if not PROOF.search(proof):
        assert how.startswith(YOURS), f"{name} is proven by nothing"


@pytest.mark.parametrize("hole", HOLES.split())
def test_each_hole_of_others_is_tried(hole):
    """A test of known holes is named by each advisory that has a lesson for us."""
    text = (ROOT / "tests/test_known_holes.py").read_text(encoding="utf-8")
    assert re.search(rf"{hole}(?!\d)", text)


def test_links_to_tests_lead_to_them():
    """Each file of tests that is named has its address below the tables, and no other."""
    text = PAGE.read_text(encoding="utf-8")
    labels = dict(LABEL.findall(text))
    named = {file for _, file in PROOF.findall(text)}
    assert set(labels) == {*named, Path(__file__).name}
    for file, address in labels.items():
        assert place_of(file).is_file()
        assert address == ADDRESS + place_of(file).relative_to(ROOT).as_posix()
