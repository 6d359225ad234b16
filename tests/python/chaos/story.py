"""What is done to a cluster, and what must be true of it in the end."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Self

from linearizable import OK, UNKNOWN, History, Operation, Verdict
from processes import until

from chaos.checking import Checker, Checking
from chaos.clocks import Clocks
from chaos.cluster import LANES, Clients, Members, leads
from chaos.disks import MODES, Disk, keep
from chaos.namespaces import Namespaces
from chaos.nemesis import Nemesis
from chaos.network import Network, Proxies
from chaos.router import Router
from chaos.tally import Tally
from chaos.workload import Workload

KINDS = ("proxies", "namespaces", "router")
_KILL_SECONDS = 2.5
_JOIN_SECONDS = 300.0
_HISTORY = "history.jsonl"


class NotLinearizable(AssertionError):
    """What the clients saw has no explanation. The message tells it, and where the history lies."""


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
        machines: bool = False,
    ) -> None:
        """With `machines` each member has a disk and a clock of its own, as far as that is possible here."""
        self.directory = directory
        self.tally = Tally()
        self.seed = seed
        self._ids = [f"n{number + 1}" for number in range(members)]
        self._names = [f"c{number + 1}" for number in range(clients)]
        self._kind = kind
        self._machines = machines
        self._stack = contextlib.ExitStack()
        self._epoch = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._checker = Checker()
            stack.callback(self._checker.close)
            network = self._network()
            stack.callback(network.close)
            self.members = stack.enter_context(Members(self.directory, self._ids, network, *self._made(stack)))
            self.clients = stack.enter_context(Clients(self.members, self._names, self.seed))
            self.nemesis = Nemesis(self.members, self._names, self.seed)
            self.members.ready()
            self.tally = Tally()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.members.kill(*self.members.procs)
            keep(self.members.disks, self.directory)
        self._stack.__exit__(kind, error, trace)  # type: ignore[arg-type]

    def _network(self) -> Network:
        places = [*self._ids, *self._names]
        match self._kind:
            case "router":
                return Router(places, self.seed)
            case "namespaces":
                return Namespaces(places)
            case _:
                return Proxies(self.directory, self._ids)

    def _made(self, stack: contextlib.ExitStack) -> tuple[dict[str, Disk], Clocks | None]:
        if not self._machines:
            return {}, None
        disks: dict[str, Disk] = {}
        if Disk.trouble() is None:
            for number, id_ in enumerate(self._ids):
                disks[id_] = disk = Disk(self.directory / id_ / "disk", MODES[number % len(MODES)])
                stack.callback(disk.close)
        return disks, Clocks(self.directory / "clocks") if Clocks.trouble() is None else None

    def epoch(self, seconds: float, pause: float = 0.02) -> Verdict:
        """Some time of work and harm, and its verdict. Raises `NotLinearizable`."""
        return self.verdict(self.harm(seconds, pause))

    def harm(self, seconds: float, pause: float) -> Checking:
        """Some time of work and harm, on objects that nobody has used; then everything is healed, and what was seen
        begins to be checked."""
        self._epoch += 1
        workload = Workload(self._epoch, pause=pause)
        self.clients.live(workload)
        self.nemesis.run(seconds)
        self.clients.end()
        self.tally.seconds += seconds
        self.tally.faults, self.tally.stopped = self.nemesis.done, self.nemesis.stopped
        return self._looked_at(f"epoch-{self._epoch}", workload.keys())

    def verdict(self, checking: Checking) -> Verdict:
        """What the check comes to. Raises `NotLinearizable`."""
        checked = checking.result()
        self.tally.add(checked)
        if not checked.verdict.is_linearizable:
            path = self.directory / _HISTORY
            History.load(checked.paths).save(path)
            raise NotLinearizable(f"seed {self.seed}, the history is in {path}\n{checked.verdict}")
        return checked.verdict

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
        verdict = self.verdict(self._looked_at("increments", [key]))
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

    def _looked_at(self, name: str, keys: list[str]) -> Checking:
        self.members.ready()
        self.clients.look(f"look-{name}", keys)
        self.members.agreed()
        return self._checker.begin(self.clients.journals(name, f"look-{name}"))
