"""Many watchers in one process: what `scale.writing` starts."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import graft
from process_node import Answering

from scale.member import Bells

# A client reads 64 streams at the most.
WATCHES_EACH = 50


class Watchers(Answering):
    """Each watches a bell of its own."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__()
        self._number: int = told["number"]
        clients = range(0, self._number, WATCHES_EACH)
        self._clients = [graft.Client(told["endpoints"], Bells, timeout=60) for _ in clients]
        self._watches: list[graft.Watch] = []

    def _start(self) -> int:
        for number in range(self._number):
            client = self._clients[number // WATCHES_EACH]
            self._watches.append(client.watch(f"bell-{number}", since=0, timeout=60))
        return super()._start()

    def do_hear(self) -> int:
        """Rings each bell until it is heard; gives how many were."""
        bells = [f"bell-{number}".encode().ljust(16) for number in range(self._number)]
        self._clients[0].execute_many(bells)
        return sum(1 for number, watch in enumerate(self._watches) if self._heard(number, watch))

    def _heard(self, number: int, watch: graft.Watch) -> bool:
        item = next(watch)
        return isinstance(item, graft.Emitted) and item.topic == f"bell-{number}"


if __name__ == "__main__":
    Watchers(json.loads(sys.argv[1])).serve()
    os._exit(0)
