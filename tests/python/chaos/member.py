"""One member in a process of its own: what `chaos.cluster` starts."""

from __future__ import annotations

import json
import logging
import os
import sys

import graft
from process_node import Process

from chaos.machine import Store


class Member(Process):
    """A process with a node that keeps a `Store`."""

    def _machine(self) -> Store:
        return Store()

    def do_ballast(self, size: int, seconds: float) -> int:
        """Gives all members so many bytes to write."""
        calls: graft.Calls[Store] = self._node.options(timeout=seconds)
        return calls.execute(Store.ballast, bytes(size))


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    Member(json.loads(sys.argv[1])).serve()
    os._exit(0)
