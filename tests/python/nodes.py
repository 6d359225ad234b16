"""Nodes for tests. Nothing here waits for a time: only for conditions, with a deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graft
from machines import Bank
from processes import free_ports

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


class Group:
    """Nodes in this process that found a cluster and enter it. Each has a line, which is the same at every start."""

    def __init__(self, directory: Path, machine: Callable[[], graft.StateMachine] = Bank, **settings: Any) -> None:
        self.directory = directory
        self.machine = machine
        self.settings = settings
        self.lines: dict[str, dict[str, Any]] = {}
        self.nodes: dict[str, graft.Node[Any]] = {}

    def __getitem__(self, id_: str) -> graft.Node[Any]:
        return self.nodes[id_]

    def address(self, id_: str) -> str:
        """Where a node is to be reached."""
        return str(self.lines[id_]["address"])

    def line(self, id_: str, **more: Any) -> dict[str, Any]:
        """Writes the line of a node, at a free address unless told otherwise, and keeps it."""
        address = more.pop("address", None) or f"127.0.0.1:{free_ports(1)[0]}"
        self.lines[id_] = {"id": id_, "address": address, "data_dir": self.directory / id_, **self.settings, **more}
        return self.lines[id_]

    def start(self, *ids: str) -> graft.Node[Any]:
        """Starts nodes by their lines, the first time or again. Gives the last of them."""
        for id_ in ids:
            self.nodes[id_] = graft.Node(self.machine(), **self.lines[id_])
            self.nodes[id_].start()
        return self.nodes[ids[-1]]

    def found(self, *ids: str) -> graft.Node[Any]:
        """A cluster of one, or of those, ready. Gives the first of them."""
        for id_ in ids:
            self.line(id_)
        if len(ids) > 1:
            members = {id_: self.address(id_) for id_ in ids}
            for id_ in ids:
                self.lines[id_]["members"] = members
        self.start(*ids)
        for id_ in ids:
            self[id_].wait_ready(DEADLINE_SECONDS)
        return self[ids[0]]

    def join(self, id_: str, *via: str, **more: Any) -> graft.Node[Any]:
        """A node that enters by the address of those members, ready."""
        self.line(id_, join=[self.address(member) for member in via], **more)
        return self.start(id_).wait_ready(DEADLINE_SECONDS)

    def waiting(self, id_: str, **more: Any) -> graft.Node[Any]:
        """A node that runs, and finds nobody to ask whether it may enter: somebody else has to add it."""
        self.line(id_, join=f"127.0.0.1:{free_ports(1)[0]}", **more)
        return self.start(id_)

    def grow(self, *ids: str) -> graft.Node[Any]:
        """The first founds, the others enter by it. Gives the first."""
        founder = self.found(ids[0])
        for id_ in ids[1:]:
            self.join(id_, ids[0])
        return founder

    def stop(self, *ids: str) -> None:
        """Stops those, or all."""
        for id_ in ids or tuple(self.nodes):
            self.nodes[id_].stop()

    def running(self) -> list[graft.Node[Any]]:
        """Those that run and are members."""
        statuses = {id_: node.status() for id_, node in self.nodes.items()}
        ended = ("stopped", "removed")
        return [self.nodes[id_] for id_, status in statuses.items() if status.own and status.role not in ended]

    def leader(self) -> graft.Node[Any]:
        """The leader, once all that run agree on it."""

        def agreed() -> graft.Node[Any] | None:
            found = {node.status().leader for node in self.running()}
            leader = self.nodes.get(next(iter(found)) or "") if len(found) == 1 else None
            return leader if leader is not None and leader.status().role == "leader" else None

        found = until(agreed, "a leader that all agree on")
        assert isinstance(found, graft.Node)
        return found

    def follower(self) -> graft.Node[Any]:
        """One that does not lead."""
        leader = self.leader()
        return next(node for node in self.running() if node is not leader)

    def ids(self) -> set[str]:
        """The members as the leader has them."""
        return {member.id for member in self.leader().members}

    def agree(self, ask: Callable[[graft.Node[Any]], Any], value: Any) -> None:
        """Waits until all replicas answer the same."""
        for node in self.running():
            until(lambda node=node: ask(node) == value, f"{node.id} has {value!r}")
