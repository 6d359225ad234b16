"""A member of a cluster with a machine in Python, in a process of its own, for `benches/bench.py`.

`python python_member.py MACHINE ID DIRECTORY ID=ADDRESS…` says its role when it has one, then takes loads as
`python_load.serve` has them; with certificates if DIRECTORY has some in `tls`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import graft
import python_load
from graft.tls import CertificateAuthority


class Nothing(graft.StateMachine):
    """What the engine and the way into Python cost, and no more."""

    def apply(self, command: bytes) -> None:
        """Does nothing."""

    def snapshot(self) -> bytes:
        """Nothing."""
        return b""

    def restore(self, file: Any) -> None:
        """Nothing."""


class Words(graft.StateMachine):
    """A dictionary with typed commands."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}

    @graft.command
    def put(self, key: str, value: str) -> int:
        """Sets one."""
        self.words[key] = value
        return len(self.words)


Call = tuple[Any, ...]
PLACES = 1024


def calls_of(kind: str, size: int) -> list[Call]:
    """A call for each of so many places, as the arguments of `execute`; the command has so many bytes."""
    if kind == "nothing":
        return [(b"x" * size,)] * PLACES
    return [(Words.put, f"key-{number:04}", "x" * max(1, size - 30)) for number in range(PLACES)]


def run(node: Any, calls: list[Call], machine: Any, load: dict[str, Any]) -> list[float]:
    """A load on this node, made as a user would."""
    how, depth, seconds = load["how"], load["depth"], load["seconds"]
    if how == "sequential":
        return python_load.sequential(lambda number: node.execute(*calls[number % PLACES]), seconds)
    if how == "threads":
        return python_load.threads(lambda number: node.execute(*calls[number % PLACES]), depth, seconds)
    if how == "asyncio":
        return python_load.tasks(lambda number: node.aio.execute(*calls[number % PLACES]), depth, seconds)
    if how == "many":
        batch = [call[0] if len(call) == 1 else call for call in (calls * (1 + depth // PLACES))[:depth]]
        return python_load.batches(lambda: node.execute_many(batch), depth, seconds)
    # The limit: what the interpreter takes for the machine's own method.
    if isinstance(machine, Words):
        return python_load.batches(lambda: [machine.put(*call[1:]) for call in calls], PLACES, seconds)
    return python_load.batches(lambda: [machine.apply(*call) for call in calls], PLACES, seconds)


def counts(node: Any) -> dict[str, float]:
    """Syncs, out of the metrics."""
    lines = (line.split() for line in node.metrics().splitlines())
    return {"syncs": next(float(words[1]) for words in lines if words[0] == "graft_log_sync_seconds_count")}


def main() -> None:
    """Lives until its input ends."""
    kind, member, directory, *named = sys.argv[1:]
    members = dict(name.split("=") for name in named)
    machine: Any = Nothing() if kind == "nothing" else Words()
    calls = calls_of(kind, 128)
    certificates = Path(directory) / "tls"
    tls = CertificateAuthority.load(certificates).node(member) if certificates.exists() else None
    node = graft.Node(
        machine, id=member, address=members[member], data_dir=f"{directory}/{member}", members=members, tls=tls
    )
    with node:
        node.wait_ready(timeout=60)
        print(node.status().role, flush=True)
        # Another one, so that what is tried there does not change what is replicated here.
        apart = type(machine)()
        python_load.serve(lambda load: run(node, calls, apart, load), lambda: counts(node))


if __name__ == "__main__":
    main()
