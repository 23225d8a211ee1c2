"""Run the targets with atheris, which looks for inputs that lead somewhere new.

All of them in turn, with a line of figures for each, or one::

    python tests/fuzz/run.py --runs 400000
    python tests/fuzz/run.py redis_reply --runs 1000000

An input that fails is written to the folder of what was found; see README.md there.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

NAMES = sorted(path.name for path in Path(__file__).with_name("corpus").iterdir())
SLOW = 5
"""Seconds for one input; whatever takes longer counts as hanging."""
LONGEST = 4096
"""Bytes of an input."""
MIXED = "mixed"
"""In place of a target: all of them in one run, chosen by the first byte."""
FIGURES = re.compile(
    r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\S+) .*exec/s: (\d+)"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", nargs="?", choices=[*NAMES, MIXED])
    parser.add_argument("--runs", type=int, default=100_000, help="inputs per target")
    parser.add_argument("--found", type=Path, help="folder for inputs (a new one)")
    parser.add_argument("--seed", type=int, default=0, help="0: another each time")
    chosen = parser.parse_args()
    found = chosen.found or Path(tempfile.mkdtemp(prefix="tornado-sessions-fuzz-"))
    if chosen.target is None:
        sys.exit(run_each(found.resolve(), chosen.runs))
    run(chosen.target, found.resolve(), chosen.runs, chosen.seed)


def run_each(found, runs):
    """Run every target in a process of its own; return how many failed."""
    failed = 0
    print(f"{'target':16}{'inputs':>9}{'a second':>9}{'edges':>7}{'kept':>12}  result")
    for name in NAMES:
        command = [sys.executable, __file__, name, "--runs", str(runs)]
        command += ["--found", str(found / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        failed += done.returncode != 0
        figures = FIGURES.search(done.stderr)
        count, edges, _, kept, speed = figures.groups() if figures else "?????"
        result = "ok" if done.returncode == 0 else done.stderr[-2000:]
        print(
            f"{name:16}{count:>9}{speed:>9}{edges:>7}{kept:>12}  {result}", flush=True
        )
    print(f"what was found is in {found}")
    return failed


def run(name, found, runs, seed):
    """Run one target; does not return."""
    with atheris.instrument_imports(include=["tornado_sessions", "fuzz"]):
        from fuzz.targets import TARGETS, corpus, mixed
    fuzz = mixed if name == MIXED else TARGETS[name].fuzz
    found.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(corpus(name) if name in TARGETS else ()):
        (found / f"committed-{number}").write_bytes(content)
    options = [f"-runs={runs}", f"-max_len={LONGEST}", f"-timeout={SLOW}"]
    options.append(f"-seed={seed}")
    options.append(f"-artifact_prefix={found}/failed-")
    atheris.Setup([sys.argv[0], str(found), *options], fuzz)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
