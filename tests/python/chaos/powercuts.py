"""All members lose their power at once, again and again, while somebody writes. See `chaos.disks`."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import graft
from processes import Cluster, Proc, ProcessError, until

from chaos.disks import MODES, Disk, keep
from chaos.ledger import Broken, Ledger
from chaos.network import run
from chaos.nursery import Nursery
from chaos.receipts import Receipts

SIZE = 3
# As short as a busy machine lets them be: most of a round is an election.
SETTINGS: dict[str, Any] = {"election_timeout": "150ms", "heartbeat": "20ms", "snapshot_every_entries": 3000}
LANES = 9
_PAUSE_SECONDS = 0.002
_CALL_SECONDS = 10.0
_READY_SECONDS = 60.0
_WRITING_SECONDS_MAX = 0.4
_EARLY_SECONDS_MAX = 0.6
_LYING = Path(__file__).with_name("lying.c")


def compiler_trouble() -> str | None:
    """Why disks cannot be made to lie here; None if they can."""
    return None if shutil.which("cc") else "disks that lie need a C compiler, cc"


class Machines(Cluster):
    """Members with a disk each, born in a nursery."""

    def __init__(self, directory: Path, nursery: Nursery, disks: dict[str, Disk]) -> None:
        super().__init__(directory, SIZE, **SETTINGS)
        self.data_dirs = {id_: disk.path / "data" for id_, disk in disks.items()}
        self._nursery = nursery
        self.disks = disks

    def _launched(self, id_: str, told: dict[str, Any]) -> Proc:
        return self._nursery.have(id_, told, self.home(id_) / "log")

    def cut(self, luck: random.Random) -> None:
        """Cuts the power of all, some of what was not synced having reached the disks or nothing; they come back with
        nobody running."""
        if luck.random() < 0.5:
            for disk in self.disks.values():
                disk.write_some(luck)
        for disk in self.disks.values():
            disk.cut()
        self.kill(*self.procs)
        for disk in self.disks.values():
            disk.unmount()
            disk.mount()


class PowerCuts:
    """The members, the writer, and what is known of them."""

    def __init__(self, directory: Path, seed: int, *, lying: int = 0) -> None:
        self.directory = directory
        self.cuts = 0
        self.early = 0
        self._luck = random.Random(seed)
        self._lying = lying
        self._stack = contextlib.ExitStack()
        self.ledger = Ledger([directory / "writer" / "journal"])

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            ids = [f"n{number + 1}" for number in range(SIZE)]
            disks: dict[str, Disk] = {}
            for id_, mode in zip(ids, MODES, strict=True):
                disks[id_] = disk = Disk(self.directory / id_ / "disk", mode)
                stack.callback(disk.close)
            nursery = Nursery(self.directory / "nursery.log", self._environment())
            stack.callback(nursery.close)
            self.members = Machines(self.directory, nursery, disks)
            stack.enter_context(self.members)
            addresses = list(self.members.members.values())
            self._client = stack.enter_context(graft.Client(addresses, Receipts, timeout=_READY_SECONDS))
            writer = self._writer(addresses)
            stack.callback(writer.reap)
            stack.callback(writer.kill)
            writer.started.value()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.members.kill(*self.members.procs)
            keep(self.members.disks, self.directory)
        self._stack.__exit__(kind, error, trace)  # type: ignore[arg-type]

    def _environment(self) -> dict[str, str]:
        if not self._lying:
            return {}
        library = self.directory / "lying.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(_LYING)], check=True)
        return {"LD_PRELOAD": str(library), "LYING": str(self._lying)}

    def _writer(self, addresses: list[str]) -> Proc:
        home = self.directory / "writer"
        home.mkdir()
        told = {
            "name": "w",
            "members": addresses,
            "directory": str(home),
            "lanes": LANES,
            "pause": _PAUSE_SECONDS,
            "seconds": _CALL_SECONDS,
        }
        return Proc("writer", told, home / "log", run("chaos.receipts"))

    def round(self) -> None:
        """They write for a while, or are not even ready; the power is cut; all are started. Raises `Broken`."""
        if self._luck.random() < 0.2:
            # In the midst of a recovery, an election, the first writes.
            time.sleep(self._luck.uniform(0, _EARLY_SECONDS_MAX))
            self.early += 1
        else:
            self.check()
            before = self.ledger.acknowledged
            until(lambda: self.ledger.update() > before, "a write that is acknowledged", _READY_SECONDS)
            if self._luck.random() < 0.15:
                # One is behind the others when all go down, or has what they replaced.
                self.members.kill(self._luck.choice(self.members.ids))
            time.sleep(self._luck.uniform(0, _WRITING_SECONDS_MAX))
        self.members.cut(self._luck)
        self.cuts += 1
        try:
            self.members.start(*self.members.ids)
        except ProcessError as error:
            raise Broken(f"a member does not start by itself: {error}") from error

    def check(self) -> None:
        """Everything that was acknowledged is there, once, and on all members."""
        self.ledger.check(lambda place: self._client.query(Receipts.receipt, place))
        self.ledger.check_replicas(self.members)

    def __str__(self) -> str:
        cuts = f"{self.cuts} power cuts of all {SIZE} members at once, {self.early} of them before they were ready"
        return f"{cuts}; {self.ledger.acknowledged} acknowledged writes, {self.ledger.unknown} of unknown outcome"
