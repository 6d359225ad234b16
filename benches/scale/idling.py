"""What a node costs that has nothing to do."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scale import proc
from scale.cluster import Members
from scale.report import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CPU_PERCENT, RSS_MIB = 0.5, 30.0
# Longer ones are compared with the defaults: what does not become rarer with them is no heartbeat's.
SLOW: dict[str, Any] = {"election_timeout": "3s", "heartbeat": "300ms"}
_BARE = """
import json, sys, graft
graft.Node, graft.StateMachine, graft._engine.load()
print("loaded", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Rest:
    """One member's, over some seconds."""

    role: str
    cpu_percent: float
    mib: float
    wakes: float
    by_thread: dict[str, float]


def measured(directory: Path, seconds: float) -> Iterator[Finding]:
    """A cluster at its defaults, then one with a tenth of the heartbeats; beside a process that only loads Graft."""
    bare = _bare()
    with Members(directory / "defaults") as members:
        default = _at_rest(members, seconds)
    with Members(directory / "slow", **SLOW) as members:
        slow = _at_rest(members, seconds)
    figures = {name: [one.__dict__ for one in rests] for name, rests in (("defaults", default), ("slow", slow))}
    cpu = max(one.cpu_percent for one in default)
    each = ", ".join(f"{one.role} {one.cpu_percent:.2f} %" for one in default)
    yield Finding("idling", "idle node: CPU", f"<= {CPU_PERCENT} %", each, cpu <= CPU_PERCENT, figures)
    mib = statistics.median(one.mib for one in default)
    yield Finding("idling", "idle node: memory beside a process that has loaded Graft", f"<= {RSS_MIB:.0f} MiB",
                  f"{mib - bare:.1f} MiB ({mib:.1f} in all)", mib - bare <= RSS_MIB)  # fmt: skip
    yield _wakes(default, slow)


def _bare() -> float:
    with subprocess.Popen([sys.executable, "-c", _BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        return proc.resident(process.pid)


def _at_rest(members: Members, seconds: float) -> list[Rest]:
    time.sleep(5)
    leader = members.leader()
    before = {id_: proc.usage(one.pid) for id_, one in members.procs.items()}
    begun = time.monotonic()
    time.sleep(seconds)
    found: list[Rest] = []
    for id_, one in members.procs.items():
        used, took = proc.usage(one.pid), time.monotonic() - begun
        wakes = {name: (count - before[id_].wakes[name]) / took for name, count in used.wakes.items()}
        busy = (used.nanoseconds - before[id_].nanoseconds) / 1e9 / took * 100
        role = "leader" if id_ == leader else "follower"
        found.append(Rest(role, busy, proc.resident(one.pid), sum(wakes.values()), wakes))
    return sorted(found, key=lambda rest: rest.role, reverse=True)


def _wakes(default: list[Rest], slow: list[Rest]) -> Finding:
    """A line through both rates of heartbeats: where it meets none, nobody would be woken by heartbeats."""
    # At rest a leader is heard half as often.
    rates = (1 / 0.06, 1 / 0.6)
    words, beyond = list[str](), list[float]()
    for many, few in zip(default, slow, strict=True):
        each = (many.wakes - few.wakes) / (rates[0] - rates[1])
        beyond.append(few.wakes - each * rates[1])
        words.append(f"{many.role} {many.wakes:.0f}/s: {each:.1f} each heartbeat, {beyond[-1]:.1f}/s beside")
    figures = {"beyond": beyond}
    return Finding("idling", "idle node: wake-ups beyond heartbeats", "none (< 2/s)", "; ".join(words),
                   max(beyond) < 2, figures)  # fmt: skip
