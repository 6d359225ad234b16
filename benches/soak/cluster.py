"""Members with certificates, and what is done to them."""

from __future__ import annotations

import itertools
import random
import shutil
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from graft.tls import CertificateAuthority
from processes import Cluster, Died, Proc, ProcessError

if TYPE_CHECKING:
    from pathlib import Path

WITNESS = "n1"
"""Never killed, nor stopped, nor replaced: what its process leaks stays in it for as long as all of this lasts."""
# Often enough that logs are cut many times, and that newcomers get snapshots.
SETTINGS: dict[str, Any] = {"snapshot_every_entries": 5000}
FAULTS = ("kill", "kill", "kill leader", "restart", "pause", "pause", "snapshot", "transfer", "transfer", "replace")
PEACE_SECONDS = (2.0, 4.0, 8.0)
PAUSE_SECONDS = (0.2, 1.0, 3.0)


class Members(Cluster):
    """Three of them, with an authority."""

    def __init__(self, directory: Path, leak: str) -> None:
        super().__init__(directory, 3, **SETTINGS)
        self.leak = leak
        self.authority = directory / "tls"

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        CertificateAuthority.create(self.authority, "soak")
        super().__enter__()
        return self.ready()

    def _told(self, id_: str) -> dict[str, Any]:
        return {**super()._told(id_), "authority": str(self.authority), "leak": self.leak}

    def _launched(self, id_: str, told: dict[str, Any]) -> Proc:
        return Proc(id_, told, self.home(id_) / "log", (sys.executable, "-m", "soak.member"))

    def forget(self, id_: str) -> None:
        """Ends one that is no member any more, and removes what it had."""
        self.kill(id_)
        del self.procs[id_], self.members[id_]
        self.ids.remove(id_)
        shutil.rmtree(self.home(id_))


class Nemesis:
    """Does one thing after the other to a cluster, and waits each time until all is well again."""

    def __init__(self, members: Members, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.failure: BaseException | None = None
        self._members = members
        self._luck = random.Random(seed)
        self._numbers = itertools.count(4)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def end(self) -> None:
        """Ends, when all is well; raises what went wrong."""
        self._ending.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._ending.wait(self._luck.choice(PEACE_SECONDS)):
                fault = self._luck.choice(FAULTS)
                self._do(fault)
                self.done[fault] += 1
                self._members.ready()
        except BaseException as failure:  # noqa: BLE001 - told by `end`
            self.failure = failure

    def _do(self, fault: str) -> None:
        members = self._members
        leader = members.leader()
        others = sorted(set(members.running()) - {WITNESS})
        victim = self._luck.choice(others)
        match fault:
            case "kill" | "kill leader":
                # The witness may lead; then another one goes.
                victim = leader if fault == "kill leader" and leader != WITNESS else victim
                members.kill(victim)
                time.sleep(self._luck.choice(PAUSE_SECONDS))
                members.start(victim)
            case "restart":
                members[victim].call("stop")
                members.kill(victim)
                members.start(victim)
            case "pause":
                victim = self._luck.choice(sorted(members.running()))
                members[victim].pause()
                time.sleep(self._luck.choice(PAUSE_SECONDS))
                members[victim].resume()
            case "snapshot":
                members[self._luck.choice(members.running())].send("snapshot").value(60)
            case "transfer":
                self._transfer(leader)
            case _:
                self._replace(victim)

    def _transfer(self, leader: str) -> None:
        try:
            self._members[leader].send("transfer").value(60)
        except (ProcessError, Died):
            self.done["transfer that came to nothing"] += 1

    def _replace(self, old: str) -> None:
        members, new = self._members, f"n{next(self._numbers)}"
        members.enlist(new, *[members.members[id_] for id_ in members.running()])
        members.start(new).ready()
        members[WITNESS].send("change", change="remove", args=[old], seconds=60).value(90)
        members.forget(old)
