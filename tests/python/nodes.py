"""Nodes for tests. Nothing here waits for a time: only for conditions, with a deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graft
from machines import Bank

DEADLINE_SECONDS = 20.0


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """What the condition gives once it is true. Fails at the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS:g} s: {what or condition}"
        time.sleep(0.005)


def free_addresses(number: int) -> list[str]:
    """Addresses that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


class Trio:
    """Three nodes in this process."""

    def __init__(self, directory: Path, machine: Callable[[], graft.StateMachine] = Bank, **settings: Any) -> None:
        self.directory = directory
        self.machine = machine
        self.settings = settings
        self.members = dict(zip(("n1", "n2", "n3"), free_addresses(3), strict=True))
        self.nodes: dict[str, graft.Node[Any]] = {}

    def start(self, *ids: str) -> Trio:
        for id_ in ids or tuple(self.members):
            node = graft.Node(
                self.machine(),
                id=id_,
                address=self.members[id_],
                data_dir=self.directory / id_,
                members=self.members,
                **self.settings,
            )
            self.nodes[id_] = node.start()
        return self

    def stop(self, *ids: str) -> None:
        for id_ in ids or tuple(self.nodes):
            self.nodes[id_].stop()

    def __getitem__(self, id_: str) -> graft.Node[Any]:
        return self.nodes[id_]

    def ready(self) -> Trio:
        for node in self.running():
            node.wait_ready(DEADLINE_SECONDS)
        return self

    def running(self) -> list[graft.Node[Any]]:
        return [node for node in self.nodes.values() if node.status().role != "stopped"]

    def leader(self) -> graft.Node[Any]:
        def find() -> graft.Node[Any] | None:
            found = {node.status().leader for node in self.running()}
            return self.nodes.get(next(iter(found)) or "") if len(found) == 1 else None

        found = until(find, "a leader that all agree on")
        assert isinstance(found, graft.Node)
        return found

    def followers(self) -> list[graft.Node[Any]]:
        leader = self.leader()
        return [node for node in self.running() if node is not leader]
