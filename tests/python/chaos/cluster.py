"""Members and clients, each a process at its place in a network."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from linearizable import History
from processes import Cluster, Died, Proc, ProcessError, until

from chaos.clocks import Clocks
from chaos.disks import Disk
from chaos.network import Network, run
from chaos.workload import CALL_SECONDS, Workload

# One of them only reads.
LANES = 3
READY_SECONDS = 60.0
# Small, so that followers that were away for seconds get snapshots, and logs are cut.
SETTINGS = {"election_timeout": "400ms", "heartbeat": "40ms", "snapshot_every_entries": 2000}


class Members(Cluster):
    """A cluster of members with a `Store`, each at a place of the network, on a disk and with a clock of its own where
    such can be had."""

    def __init__(
        self,
        directory: Path,
        ids: list[str],
        network: Network,
        disks: dict[str, Disk] | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        settings: dict[str, Any] = dict(SETTINGS)
        super().__init__(directory, len(ids), **settings)
        self.ids = ids
        self.network = network
        self.disks = disks or {}
        self.clocks = clocks
        self.data_dirs = {id_: disk.path / "data" for id_, disk in self.disks.items()}

    def __enter__(self) -> Members:
        self.members = {id_: self.network.address(id_) for id_ in self.ids}
        self.start(*self.ids)
        return self

    def _told(self, id_: str) -> dict[str, Any]:
        return super()._told(id_) | {"bind": self.network.bind(id_)}

    def _launched(self, id_: str, told: dict[str, Any]) -> Proc:
        clock = [] if self.clocks is None else ["env", *self.clocks.environment(id_)]
        command = [*self.network.command(id_), *clock, *run("chaos.member")]
        proc = Proc(id_, told, self.home(id_) / "log", command)
        self.network.placed(id_, proc.pid)
        return proc

    def who_leads(self) -> str | None:
        """Who takes itself for the leader, in the latest term that anybody has; None if nobody does."""
        asked = {id_: self.procs[id_].send("status") for id_ in self.running()}
        found: list[tuple[int, str]] = []
        for id_, answer in asked.items():
            with contextlib.suppress(Died, ProcessError):
                status = answer.value()
                if status["role"] == "leader":
                    found.append((status["term"], id_))
        return max(found)[1] if found else None

    def agreed(self) -> None:
        """Waits until all have applied the same log, and fails if they do not have the same state then."""
        self.converged()
        digests = {id_: self[id_].query("fingerprint", consistency="stale") for id_ in self.running()}
        assert len(set(digests.values())) == 1, f"the replicas have come to differ: {digests}"


class Clients:
    """So many client processes, which know all members."""

    def __init__(self, members: Members, names: list[str], seed: int) -> None:
        self.directory = members.directory / "clients"
        self.names = names
        self._members = members
        self._seed = seed
        self._procs: dict[str, Proc] = {}

    def __enter__(self) -> Clients:
        self.directory.mkdir()
        network = self._members.network
        try:
            for name in self.names:
                told = {
                    "name": name,
                    "directory": str(self.directory),
                    "lanes": LANES,
                    "seed": self._seed,
                    "members": [network.address(id_) for id_ in self._members.ids],
                    "timeout": max(CALL_SECONDS),
                }
                command = [*network.command(name), *run("chaos.worker")]
                self._procs[name] = Proc(name, told, self.directory / f"{name}.log", command)
                network.placed(name, self._procs[name].pid)
            for proc in self._procs.values():
                proc.started.value()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for proc in self._procs.values():
            proc.kill()
        for proc in self._procs.values():
            proc.reap()

    def live(self, workload: Workload) -> None:
        """Lets them work until `end`."""
        self._all("live", name=f"epoch-{workload.epoch}", workload=workload.told())

    def increment(self, name: str, key: str, number: int, pause: float) -> None:
        """Lets each increment until so many of its calls are acknowledged, with a rest between two calls of a lane."""
        self._all("increment", name=name, key=key, number=number, pause=pause)

    def look(self, name: str, keys: list[str], *, who: int = 2) -> None:
        """Some of them read everything once."""
        self._all("look", among=self.names[:who], name=name, keys=keys)

    def end(self) -> None:
        """Ends their work; each answers for its last calls."""
        self._all("end")

    def join(self, seconds: float) -> None:
        """Waits until their work is done."""
        self._all("join", within=seconds)

    def counts(self) -> dict[str, int]:
        """How the calls of all ended so far."""
        found: dict[str, int] = {}
        for proc in self._procs.values():
            for name, number in proc.call("counts").items():
                found[name] = found.get(name, 0) + number
        return found

    def journals(self, *names: str) -> list[Path]:
        """Where they noted things under these names."""
        return sorted(path for name in names for path in self.directory.glob(f"{name}.*.jsonl"))

    def history(self, *names: str) -> History:
        """What they noted under these names."""
        return History.load(self.journals(*names))

    def _all(self, do: str, *, within: float = 2 * READY_SECONDS, among: list[str] | None = None, **told: Any) -> None:
        answers = [self._procs[name].send(do, **told) for name in among or self.names]
        for answer in answers:
            answer.value(within)


def leads(members: Members) -> str:
    """The leader, once there is one."""
    found: str = until(members.who_leads, "a leader")
    return found
