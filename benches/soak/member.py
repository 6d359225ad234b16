"""One member in a process of its own: what `soak.cluster` starts."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

from graft.tls import CertificateAuthority
from process_node import Process

from soak.machine import MACHINES


class Member(Process):
    """A process with a node that has a certificate, and a leak if that is asked for."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._leak: str = told["leak"]
        self._hoard: list[int] = []
        certificate = CertificateAuthority.load(told["authority"]).node(told["id"])
        super().__init__({**told, "settings": {**told["settings"], "tls": certificate}})

    def _machine(self) -> Any:
        return MACHINES.get(self._leak, MACHINES["none"])()

    def do_snapshot(self) -> int:
        """Takes one."""
        return self._node.snapshot(60)

    def do_transfer(self) -> str:
        """Hands leadership over; gives to whom."""
        return self._node.members.transfer_leadership(timeout=20).id

    def do_agree(self) -> bool:
        """Whether all replicas have the same state."""
        return bool(self._node.verify(60))

    def do_sampled(self) -> None:
        """A look was taken at this process: here it forgets a file, if that is its leak."""
        if self._leak == "files":
            self._hoard.append(os.open("/dev/null", os.O_RDONLY))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    Member(json.loads(sys.argv[1])).serve()
    os._exit(0)
