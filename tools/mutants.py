"""Puts small bugs into a copy of the tree, one by one, and sees whether simulated worlds or the storage matrix see.

    mutants.py [--only NAME ...] [--seconds 60] [--report docs/mutants.md]

A mutant is one text in one file that is replaced by another; mutants.toml lists them. It is caught when the simulator
finds a world in which something does not hold; or else, in the store, by a share of the storage matrix; or else by the
golden transcripts. One that survived is a hole in all of them, or changes nothing that anybody can see. Exit status 1
if one survived, or does not apply any more.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "target" / "mutants"
BUILD = ["cargo", "build", "--quiet", "--profile", "fast", "--offline", "--package", "graft-simulation"]

STORE = "src/infrastructure/store/"
TRANSCRIPTS = ["cargo", "test", "--quiet", "--offline", "--package", "graft-domain", "scenarios"]


@dataclass(frozen=True)
class Mutant:
    """A bug: in `file`, the one place that reads `before` reads `after`."""

    name: str
    file: str
    before: str
    after: str


def read() -> list[Mutant]:
    """The list."""
    table = tomllib.loads((ROOT / "tools/mutants.toml").read_text(encoding="utf-8"))
    return [Mutant(**mutant) for mutant in table["mutant"]]


def run(mutant: Mutant, seconds: int) -> tuple[str, str]:
    """What caught it, and how many seeds that took; `survived` or `does not apply` if nothing did."""
    path = COPY / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.before) != 1:
        return "does not apply", ""
    path.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")
    try:
        built = subprocess.run(BUILD, cwd=COPY, capture_output=True, text=True, check=False)
        if built.returncode:
            return "does not build", built.stderr.strip().splitlines()[0]
        found = simulate(seconds)
        if found[0] == "survived" and mutant.file.startswith(STORE):
            found = matrix(found)
        return transcripts(found) if found[0] == "survived" else found
    finally:
        path.write_text(text, encoding="utf-8")


def simulate(seconds: int) -> tuple[str, str]:
    """Plays seeds until one is broken."""
    program, first, end = COPY / "target/fast/simulate", 0, time.monotonic() + seconds
    while time.monotonic() < end:
        settings = {"FIRST": str(first), "SEEDS": "60", "QUICK": "1"}
        played = subprocess.run([program], env=settings, capture_output=True, text=True, check=False, errors="replace")
        broken = sorted(
            (int(seed), why) for seed, why in re.findall(r"^seed (\d+): BROKEN: (.*)$", played.stdout, re.MULTILINE)
        )
        if broken:
            return " ".join(broken[0][1].split())[:110], str(broken[0][0] + 1)
        first += 60
    return "survived", str(first)


def matrix(found: tuple[str, str]) -> tuple[str, str]:
    """What no world showed, one storage case of eight may."""
    tried = subprocess.run(
        [COPY / "target/fast/matrix"], env={"EVERY": "8"}, capture_output=True, text=True, check=False, errors="replace"
    )
    broken = re.search(r"^BROKEN: (.*)$", tried.stdout, re.MULTILINE)
    return (f"the storage matrix: {broken[1]}"[:110], f"not in {found[1]}") if broken else found


def transcripts(found: tuple[str, str]) -> tuple[str, str]:
    """What no world showed, a golden transcript may."""
    played = subprocess.run(TRANSCRIPTS, cwd=COPY, capture_output=True, text=True, check=False, errors="replace")
    if played.returncode and "test result: FAILED" in played.stdout:
        return "the golden transcripts", f"not in {found[1]}"
    return found


def copy() -> None:
    """The tree as git knows it, with a target directory of its own that is kept from one time to the next."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        source, target = ROOT / name, COPY / name
        if source.is_file() and not (target.is_file() and target.read_bytes() == source.read_bytes()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def main() -> int:
    """Runs them all and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="part of a mutant's name")
    parser.add_argument("--seconds", type=int, default=60, help="to find each (default 60)")
    parser.add_argument("--report", type=Path, help="write a table there")
    arguments = parser.parse_args()
    copy()
    chosen = [m for m in read() if not arguments.only or any(part in m.name for part in arguments.only)]
    rows: list[tuple[Mutant, str, str]] = []
    for mutant in chosen:
        by, seeds = run(mutant, arguments.seconds)
        rows.append((mutant, by, seeds))
        print(f"{mutant.name}: {by} [{seeds}]", flush=True)
        if arguments.report:
            arguments.report.write_text(table(rows), encoding="utf-8")
    alive = [mutant.name for mutant, by, _ in rows if by in {"survived", "does not apply", "does not build"}]
    print(f"{len(rows) - len(alive)} of {len(rows)} caught" + "".join(f"\nnot caught: {name}" for name in alive))
    return int(bool(alive))


def table(rows: list[tuple[Mutant, str, str]]) -> str:
    """The report."""
    caught = sum(by not in {"survived", "does not apply", "does not build"} for _, by, _ in rows)
    lines = [
        "# Mutants",
        "",
        "Small bugs put into the product one by one, and what the [simulator](simulation.md) said. This table is",
        f"written by `make mutants`. {caught} of the {len(rows)} tried were caught.",
        "",
        "| bug | where | found out by | seeds |",
        "|---|---|---|---|",
        *(f"| {m.name} | `{m.file}` | {by.replace('|', '/')} | {seeds} |" for m, by, seeds in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
