"""A lock, and the first minute."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import graft
from graft.recipes import KeyValue

from scale import proc
from scale.cluster import Members, asked
from scale.member import lock
from scale.report import Finding, quantile, spread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_SECONDS = 1.5e-3
INSTALL_SECONDS, READY_SECONDS = 60.0, 1.0

_FIRST = """
    import json, sys, time
    begun = time.monotonic()
    import graft
    class Counter(graft.StateMachine):
        def __init__(self):
            self.count = 0
        @graft.command
        def add(self):
            self.count += 1
            return self.count
    imported = time.monotonic()
    with graft.LocalCluster(Counter, 3) as cluster:
        ready = time.monotonic()
        cluster.execute(Counter.add)
        written = time.monotonic()
    print(json.dumps([imported - begun, ready - imported, written - ready]))
"""


def locks(directory: Path, rounds: int, seconds: float) -> Iterator[Finding]:
    """By the recipe `KeyValue`, on the leader and by a client."""
    syncs = list[float]()
    times: dict[str, list[list[float]]] = {"on the leader": [], "by a client": []}
    with (
        Members(directory, machine="keys") as members,
        graft.Client(members.addresses, KeyValue, timeout=30) as client,
    ):
        for number in range(-1, rounds):
            syncs.append(proc.sync_seconds(directory, 200) * 1e3)
            found = {
                "on the leader": asked(members.leading, "lock", seconds=seconds),
                "by a client": lock(client, seconds),
            }
            for where in times if number >= 0 else ():
                times[where].append(found[where])
    for where, each in times.items():
        medians = [statistics.median(one) * 1e3 for one in each]
        over = [median / sync for median, sync in zip(medians, syncs[1:], strict=True)]
        middle, p99 = statistics.median(medians), quantile([taken for one in each for taken in one], 0.99) * 1e3
        yield Finding(
            "locks",
            f"lock, acquired and released, {where}",
            f"median <= {LOCK_SECONDS * 1e3} ms",
            f"{middle:.2f} ms ({min(medians):.2f}-{max(medians):.2f} of {rounds} rounds), p99 {p99:.1f} ms; "
            f"{spread(over, '.1f')} bare syncs",
            middle <= LOCK_SECONDS * 1e3,
            {"medians_ms": medians, "syncs_ms": syncs},
        )


def install(directory: Path, wheel: Path, rounds: int) -> Iterator[Finding]:
    """The wheel into a fresh environment, and a first cluster there."""
    directory.mkdir(parents=True)
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
    python = directory / "venv" / "bin" / "python"
    made = time.monotonic()
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
    installed = time.monotonic()
    program = directory / "first.py"
    program.write_text(textwrap.dedent(_FIRST))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    found: list[list[float]] = []
    whole = 0.0
    for _ in range(rounds):
        answer = subprocess.run([python, program], check=True, stdout=subprocess.PIPE, text=True, env=clean)
        found.append(json.loads(answer.stdout))
        whole = whole or time.monotonic() - begun
    yield Finding(
        "install",
        "install of the wheel to the first replicated write",
        f"<= {INSTALL_SECONDS:.0f} s",
        f"{whole:.1f} s: environment {made - begun:.1f}, pip {installed - made:.1f}, program {sum(found[0]):.2f}",
        whole <= INSTALL_SECONDS,
    )
    ready = [one[1] for one in found]
    yield Finding(
        "install",
        "LocalCluster(3) is ready",
        f"<= {READY_SECONDS:.0f} s",
        f"{statistics.median(ready):.2f} s ({min(ready):.2f}-{max(ready):.2f} of {rounds})",
        statistics.median(ready) <= READY_SECONDS,
        {"seconds": found},
    )
