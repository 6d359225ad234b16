"""What is done to a cluster, and what must be true of it in the end."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from linearizable import FAILED, OK, UNKNOWN, History, Operation, Verdict, check
from linearizable.models import READS
from processes import until

from chaos.cluster import LANES, Clients, Members, leads
from chaos.namespaces import Namespaces
from chaos.nemesis import Nemesis
from chaos.network import Network, Proxies
from chaos.workload import Workload

KINDS = ("proxies", "namespaces")
_KILL_SECONDS = 2.5
_JOIN_SECONDS = 300.0
_HISTORY = "history.jsonl"


class NotLinearizable(AssertionError):
    """What the clients saw has no explanation. The message tells it, and where the history lies."""


@dataclass
class Tally:
    """What was done so far."""

    seconds: float = 0.0
    operations: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    faults: Counter[str] = field(default_factory=Counter[str])
    reads: Counter[str] = field(default_factory=Counter[str])
    """Those that were answered, by how they were read."""
    check_seconds: float = 0.0

    def add(self, history: History, verdict: Verdict, seconds: float) -> None:
        """One epoch more."""
        self.seconds += seconds
        self.operations += len(history)
        self.outcomes.update(history.outcomes())
        self.reads.update(_kind(one) for one in history if one.verb in READS and one.outcome == OK)
        self.check_seconds += verdict.seconds

    def __str__(self) -> str:
        outcomes = ", ".join(f"{self.outcomes[name]} {name}" for name in (OK, FAILED, UNKNOWN))
        faults = ", ".join(f"{number} {name}" for name, number in sorted(self.faults.items()))
        reads = ", ".join(f"{number} {name}" for name, number in sorted(self.reads.items()))
        checked = f"checked in {self.check_seconds:.1f} s"
        return f"{self.operations} operations ({outcomes}; reads: {reads}); faults: {faults or 'none'}; {checked}"


def _kind(read: Operation) -> str:
    return " ".join(map(str, read.arguments)) or "linearizable"


class Story:
    """Members, clients, and the network between them, from first to last."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        *,
        members: int = 3,
        clients: int = 8,
        kind: str = "proxies",
    ) -> None:
        self.directory = directory
        self.tally = Tally()
        self.seed = seed
        self._ids = [f"n{number + 1}" for number in range(members)]
        self._names = [f"c{number + 1}" for number in range(clients)]
        self._kind = kind
        self._stack = contextlib.ExitStack()
        self._epoch = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            network: Network = (
                Namespaces([*self._ids, *self._names])
                if self._kind == "namespaces"
                else Proxies(self.directory, self._ids)
            )
            stack.callback(network.close)
            self.members = stack.enter_context(Members(self.directory, self._ids, network))
            self.clients = stack.enter_context(Clients(self.members, self._names, self.seed))
            self.nemesis = Nemesis(self.members, self._names, self.seed)
            self.members.ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def epoch(self, seconds: float, pause: float = 0.02) -> Verdict:
        """Some time of work and harm, on objects that nobody has used; then everything is healed, and what was seen is
        checked. Raises `NotLinearizable`."""
        self._epoch += 1
        workload = Workload(self._epoch, pause=pause)
        self.clients.live(workload)
        self.nemesis.run(seconds)
        self.clients.end()
        self.tally.faults = self.nemesis.done
        return self._checked(f"epoch-{self._epoch}", workload.keys(), seconds)

    def increments(self, number: int, kills: int) -> Verdict:
        """Each client increments one counter until so many of its calls are acknowledged, while one leader after the
        other is killed, at even distances. Not one may be missing, and none may be there twice."""
        key, total = "counter/all", number * len(self._names)
        pause = kills * _KILL_SECONDS * len(self._names) * LANES / total
        self.clients.increment("increments", key, number, pause)
        for kill in range(kills):
            self._wait_for(total * (kill + 1) // (kills + 1))
            leader = leads(self.members)
            self.members.kill(leader)
            self.members.start(leader)
            self.tally.faults["kill_leader"] += 1
        self.clients.join(_JOIN_SECONDS)
        verdict = self._checked("increments", [key], 0.0)
        self._count([one for one in self.clients.history("increments") if one.verb == "increment"], total)
        return verdict

    def _wait_for(self, increments: int) -> None:
        until(lambda: self.clients.counts().get(OK, 0) >= increments, f"{increments} increments", _JOIN_SECONDS)

    def _count(self, operations: list[Operation], total: int) -> None:
        unknown = [one for one in operations if one.outcome == UNKNOWN]
        assert not unknown, f"{len(unknown)} outcomes were never found out, the first of them {unknown[0]}"
        results = sorted(int(str(one.result)) for one in operations if one.outcome == OK)
        assert results == list(range(1, total + 1)), "each increment has a result of its own, and none is missing"
        reads = {one.result for one in self.clients.history("look-increments")}
        assert reads == {total}, f"the counter is {reads}, and {total} calls were acknowledged"

    def _checked(self, name: str, keys: list[str], seconds: float) -> Verdict:
        self.members.ready()
        self.clients.look(f"look-{name}", keys)
        self.members.agreed()
        history = self.clients.history(name, f"look-{name}")
        verdict = check(history)
        self.tally.add(history, verdict, seconds)
        if not verdict.is_linearizable:
            path = self.directory / _HISTORY
            history.save(path)
            raise NotLinearizable(f"seed {self.seed}, the history is in {path}\n{verdict}")
        return verdict
