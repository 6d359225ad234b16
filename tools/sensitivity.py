"""Puts small bugs into a copy of the tree, one by one, and sees whether the search through all states comes by them.

    sensitivity.py [--only NAME ...] [--states 1000000] [--report FILE]

A mutant is one text in one file that is replaced by another; sensitivity.toml lists them, each with a model to search.
With one thread the search is breadth first without exception, so that what it finds first is as short as can be.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import mutants

SECONDS_MAX = 600
BUILD = ["cargo", "build", "--quiet", "--profile", "fast", "--offline", "--package", "graft-exhaustive"]


@dataclass(frozen=True)
class Mutant:
    """A bug: in `file`, the one place that reads `before` reads `after`; `model` is searched for it."""

    name: str
    model: str
    file: str
    before: str
    after: str


@dataclass(frozen=True)
class Found:
    """What the search said, and how far it had to go."""

    by: str
    actions: str = ""
    states: str = ""
    seconds: str = ""


def run(mutant: Mutant, states: int) -> Found:
    """Builds with the bug and searches."""
    path = mutants.COPY / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.before) != 1:
        return Found("does not apply")
    path.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")
    try:
        built = subprocess.run(BUILD, cwd=mutants.COPY, capture_output=True, text=True, check=False)
        if built.returncode:
            return Found("does not build")
        program = mutants.COPY / "target/fast/exhaustive"
        settings = {"MODEL": mutant.model, "STATES": str(states), "THREADS": "1"}
        played = subprocess.run(
            [program], env=settings, capture_output=True, text=True, check=False, errors="replace", timeout=SECONDS_MAX
        )
        return read(played.stdout, played.stderr)
    except subprocess.TimeoutExpired:
        return Found("not reached in time")
    finally:
        path.write_text(text, encoding="utf-8")


def read(told: str, failed: str) -> Found:
    """The verdict in what the program printed."""
    seen = re.search(r"(\d+) different states of .* in ([0-9.]+) s", told)
    states, seconds = seen.groups() if seen else ("", "")
    rule = re.search(r"DOES NOT HOLD: (.*)", told)
    if rule:
        steps = re.findall(r"^ +(\d+)\. ", told, re.MULTILINE)
        return Found(rule[1], steps[-1] if steps else "0", states, seconds)
    if "panicked at" in failed:
        why = failed.split("panicked at", 1)[1].splitlines()
        return Found("the core itself: " + " ".join(why[1:2]))
    return Found("not reached", "", states, seconds)


def table(rows: list[tuple[Mutant, Found]]) -> str:
    """The rows in Markdown."""
    lines = ["| bug | model | rule that breaks | actions | states seen | seconds |", "|---|---|---|---|---|---|"]
    lines += [f"| {m.name} | {m.model} | {f.by} | {f.actions} | {f.states} | {f.seconds} |" for m, f in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="part of a mutant's name")
    parser.add_argument("--states", type=int, default=1_000_000, help="to look at for each (default 1000000)")
    parser.add_argument("--report", type=Path, help="write a table there")
    arguments = parser.parse_args()
    mutants.copy()
    listed = tomllib.loads((mutants.ROOT / "tools/sensitivity.toml").read_text(encoding="utf-8"))["mutant"]
    chosen = [Mutant(**m) for m in listed if not arguments.only or any(part in m["name"] for part in arguments.only)]
    rows: list[tuple[Mutant, Found]] = []
    for mutant in chosen:
        found = run(mutant, arguments.states)
        rows.append((mutant, found))
        print(f"{mutant.name}: {found}", flush=True)
        if arguments.report:
            arguments.report.write_text(table(rows), encoding="utf-8")
    stale = [mutant.name for mutant, found in rows if found.by.startswith("does not")]
    print("".join(f"does not apply any more: {name}\n" for name in stale), end="")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
