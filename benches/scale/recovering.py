"""How long a node takes to come back with a large log, over the time to read the log's files into memory.

The target is held against the opening of the log: "log opened over read, cold" and "log opened over read, cached". What
comes after it, the election and the machine's commands, is told beside it, with no target of its own.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scale.cluster import KEEPING, LONG_SECONDS, Members, asked
from scale.proc import MIB
from scale.report import Finding, spread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TARGET = 2.0


@dataclass(frozen=True)
class Plan:
    """Which logs: of so many MiB, with entries of so many bytes each; and how often."""

    mib: int
    sizes: tuple[int, ...]
    rounds: int


def read(files: list[Path], *, cold: bool) -> float:
    """Seconds that it takes to read these files into memory, and to have them there, as a node has its log."""
    if cold:
        forget(files)
    kept: list[bytes] = []
    begun = time.perf_counter()
    kept.extend(file.read_bytes() for file in files)
    return time.perf_counter() - begun


def forget(files: list[Path]) -> None:
    """Lets the system forget what it has of these files in memory."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def measured(directory: Path, plan: Plan) -> Iterator[Finding]:
    """Each size, with a machine that does nothing; the first also with one of typed commands."""
    yield _empty(directory / "empty", plan.rounds)
    for size in plan.sizes:
        yield from _of_size(directory / f"log-{size}", "nothing", size, plan)
    yield from _of_size(directory / "words", "words", plan.sizes[0], plan)


def _empty(home: Path, rounds: int) -> Finding:
    """What is in all of the others as well: to load Python, and to wait before the first election."""
    found: list[dict[str, float]] = []
    with Members(home, 1) as members:
        for _ in range(rounds):
            members.kill("n1")
            members.start("n1")
            marks: dict[str, float] = members["n1"].call("marks")
            found.append({name: at - marks["begun"] for name, at in marks.items()})
    middle = statistics.median(one["ready"] for one in found)
    parts = f"Python {statistics.median(one['imported'] for one in found):.2f}"
    words = f"{middle:.2f} s: {parts}, the rest is to open, to wait for an election and to win it"
    return Finding(
        "recovering", "a node with an empty log: ready", "(in all that follow)", words, None, {"rounds": found}
    )


def _of_size(home: Path, machine: str, size: int, plan: Plan) -> Iterator[Finding]:
    with Members(home, 1, machine=machine, **KEEPING) as members:
        entries = plan.mib * MIB // (size + 60)
        asked(members["n1"], "fill", entries=entries, size=size)
        files = sorted((home / "n1" / "data").glob("*.log")) or _segments(home / "n1" / "data")
        mib = sum(file.stat().st_size for file in files) / MIB
        rounds: list[dict[str, float]] = []
        for number in range(2 * plan.rounds):
            members.kill("n1")
            cold = number % 2 == 0
            reading = read(files, cold=cold)
            if cold:
                forget(files)
            members.start("n1")
            marks: dict[str, float] = members["n1"].send("marks").value(LONG_SECONDS)
            begun = marks["begun"]
            rounds.append({"cold": cold, "read": reading} | {name: at - begun for name, at in marks.items()})
    for cold in (False, True):
        yield from _findings(machine, size, mib, entries, [one for one in rounds if one["cold"] == cold], cold=cold)


def _segments(data: Path) -> list[Path]:
    return [path for path in data.iterdir() if path.is_file() and path.stat().st_size > MIB]


def _findings(
    machine: str, size: int, mib: float, entries: int, rounds: list[dict[str, float]], *, cold: bool
) -> Iterator[Finding]:
    middle = {name: statistics.median(one[name] for one in rounds) for name in ("read", "imported", "started", "ready")}
    parts = (
        f"read {middle['read']:.2f} s; ready after {middle['ready']:.2f} s: Python {middle['imported']:.2f}, "
        f"the log {middle['started'] - middle['imported']:.2f}, election and apply "
        f"{middle['ready'] - middle['started']:.2f}"
    )
    of_typed = " of typed commands" if machine == "words" else ""
    title = f"recovery of {mib:.0f} MiB, {entries} entries of {size} B{of_typed}"
    opened = [(one["started"] - one["imported"]) / one["read"] for one in rounds]
    whole = [one["ready"] / one["read"] for one in rounds]
    figures = {"rounds": rounds, "mib": mib, "entries": entries}
    against = "cold" if cold else "cached"
    yield Finding(
        "recovering",
        f"{title}: log opened over read, {against}",
        f"<= {TARGET:g}",
        f"{spread(opened, '.1f')}: {parts}",
        statistics.median(opened) <= TARGET,
        figures,
    )
    yield Finding(
        "recovering", f"{title}: all of it over read, {against}", "(none)", spread(whole, ".1f"), None, figures
    )
