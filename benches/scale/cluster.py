"""Members in processes of their own, told which machine to keep and what to measure."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from processes import Cluster, Proc

if TYPE_CHECKING:
    from pathlib import Path

# What is asked of a member may take this long: filling a log, or reading it back.
LONG_SECONDS = 1800.0
# The log is to grow, and nothing to be cut from it meanwhile.
KEEPING: dict[str, Any] = {
    "snapshot_every_entries": 1 << 40,
    "snapshot_every_bytes": 8 << 30,
    "log_bytes_max": 16 << 30,
    "timeout": 120,
}


class Members(Cluster):
    """Some of them. `machine` is a name that `scale.member` knows."""

    def __init__(self, directory: Path, size: int = 3, *, machine: str = "nothing", **settings: Any) -> None:
        super().__init__(directory, size, **settings)
        self.machine = machine
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        super().__enter__()
        return self.ready()

    def _told(self, id_: str) -> dict[str, Any]:
        return {**super()._told(id_), "machine": self.machine, "begun": time.monotonic()}

    def _launched(self, id_: str, told: dict[str, Any]) -> Proc:
        return Proc(id_, told, self.home(id_) / "log", (sys.executable, "-m", "scale.member"))

    @property
    def leading(self) -> Proc:
        """The process of the leader."""
        return self[self.leader()]

    @property
    def addresses(self) -> list[str]:
        """Where all of them are."""
        return list(self.members.values())


def asked(proc: Proc, do: str, **told: Any) -> Any:
    """What a process answers, however long it takes."""
    return proc.send(do, **told).value(LONG_SECONDS)
