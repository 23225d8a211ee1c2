"""The benchmarks run; what they measure is not judged here."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (
    "# Costs\n\n<!-- benchmark: begin -->\nold\n<!-- benchmark: end -->\n\nThe end.\n"
)


def test_the_benchmarks_run(tmp_path):
    """P3, P4, P5, P6: one command measures them all and writes the table."""
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    places = ("--results", "--directory")
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--write-docs", page]
        + [argument for place in places for argument in (place, tmp_path)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert result.returncode == 0, result.stderr
    bounds = re.findall(
        r"^\| (P\d) .* ([<>]= [\d.]+ \S+) +\|", result.stdout, re.MULTILINE
    )
    assert {rule for rule, _ in bounds} == {"P3", "P4", "P5", "P6"}
    assert {bound for _, bound in bounds} == {
        *("<= 2 ×", "<= 5 %", ">= 5 ×", "<= 1024 B", "<= 10 ms")
    }
    assert (tmp_path / "latest.md").read_text(encoding="utf-8") == result.stdout
    figures = json.loads((tmp_path / "latest.json").read_text(encoding="utf-8"))
    assert len(figures["rows"]) == result.stdout.count("\n| P")
    written = page.read_text(encoding="utf-8")
    assert result.stdout in written
    assert "old" not in written
    assert written.startswith("# Costs\n")
    assert written.endswith("\nThe end.\n")
