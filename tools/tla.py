"""Holds spec/Graft.tla against small models, against what is wrong on purpose, and against traces of simulated worlds.

    tla.py CHECKER [--states 3000] [--traces target/traces] [--only models wrong traces]

A model is searched to its end or for so many states. What is wrong on purpose must break a rule. A trace must be a
behaviour of the specification to its last line. Anything else fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SPEC = Path(__file__).resolve().parent.parent / "spec"
SECONDS_MAX = 900


@dataclass(frozen=True)
class Verdict:
    """What the checker said of one module."""

    status: str
    states: int
    depth: int
    seconds: float
    why: str


def check(checker: Path, module: Path, configuration: Path, states: int) -> Verdict:
    command = [str(checker), module.name, "--config", str(configuration.resolve()), "--json"]
    command += ["--max-states", str(states), "--max-depth", "100000"]
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=module.parent, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return Verdict("timeout", 0, 0, SECONDS_MAX, f"not done after {SECONDS_MAX} s")
    seconds = time.monotonic() - begun
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return Verdict("error", 0, 0, seconds, (done.stdout + done.stderr)[-400:])
    found = json.loads(lines[-1])
    stats = found.get("stats", {})
    rule = found.get("invariant") or found.get("invariant_name") or found.get("message") or ""
    return Verdict(found["status"], stats.get("states_explored", 0), stats.get("max_depth", 0), seconds, str(rule))


def models(checker: Path, states: int) -> bool:
    good = True
    for configuration in sorted((SPEC / "models").glob("*.cfg")):
        verdict = check(checker, SPEC / "MCGraft.tla", configuration, states)
        held = verdict.status in {"ok", "max_states_exceeded"}
        end = "to its end" if verdict.status == "ok" else "bounded"
        print(
            f"{configuration.stem:<14}{verdict.states:>7} states, {verdict.depth:>3} deep, {verdict.seconds:>5.0f} s  "
            f"{end if held else 'BROKEN: ' + verdict.status + ' ' + verdict.why}",
            flush=True,
        )
        good = good and held
    return good


def wrong(checker: Path, states: int) -> bool:
    good = True
    for configuration in sorted((SPEC / "models" / "wrong").glob("*.cfg")):
        verdict = check(checker, SPEC / "MCGraft.tla", configuration, states * 10)
        found = verdict.status == "invariant_violation"
        words = f"{verdict.why} breaks" if found else f"NOT FOUND: {verdict.status} {verdict.why}"
        print(f"{configuration.stem:<42}{verdict.states:>7} states, {verdict.seconds:>5.0f} s  {words}", flush=True)
        good = good and found
    return good


def traces(checker: Path, directory: Path, jobs: int) -> bool:
    for name in ("Graft.tla", "TraceGraft.tla"):
        shutil.copy(SPEC / name, directory)
    modules = sorted(directory.glob("T[0-9]*.tla"))

    def one(module: Path) -> tuple[Path, int, Verdict]:
        lines = sum(line.startswith("[event") for line in module.read_text().splitlines())
        return module, lines, check(checker, module, module.with_suffix(".cfg"), 1_000_000)

    good, total = bool(modules), 0
    begun = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        for module, lines, verdict in pool.map(one, modules):
            total += lines
            # One state before every line, and one after the last.
            if verdict.status != "ok" or verdict.states != lines + 1:
                good = False
                print(
                    f"{module}: REJECTED at line {verdict.states} of {lines}: {verdict.status} {verdict.why}",
                    flush=True,
                )
    print(f"{len(modules)} traces, {total} lines, {time.monotonic() - begun:.0f} s", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checker", type=Path)
    parser.add_argument("--states", type=int, default=3000, help="at most, of each model")
    parser.add_argument("--traces", type=Path, default=Path("target/traces"))
    parser.add_argument("--jobs", type=int, default=2, help="traces at a time")
    parts = ["models", "wrong", "traces"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    arguments = parser.parse_args()
    checker = arguments.checker.resolve()
    good = True
    if "models" in arguments.only:
        good = models(checker, arguments.states) and good
    if "wrong" in arguments.only:
        good = wrong(checker, arguments.states) and good
    if "traces" in arguments.only:
        good = traces(checker, arguments.traces, arguments.jobs) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
