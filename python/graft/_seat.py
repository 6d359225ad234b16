"""One place in a `LocalCluster`: a member's id, port and directory, whoever runs there now."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Any

from graft._node import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from graft._config import Config
    from graft._machine import StateMachine
    from graft.tls import TLS

    Faults = Mapping[str, tuple[bool, float, float]]

_KILL_SECONDS = 5.0


class Seat:
    """Keeps what outlives a node that is killed: its port, which nobody else gets meanwhile, and its directory."""

    node: Node[Any]

    def __init__(
        self,
        id_: str,
        machine: Callable[[], StateMachine],
        data_dir: Path,
        config: Config,
        tls: TLS | None,
    ) -> None:
        self.id = id_
        self.tls = tls
        self.machine = machine
        self.data_dir = data_dir
        self.config = config
        self._port = reserved()
        self.address = f"127.0.0.1:{self._port.getsockname()[1]}"
        self.members: Mapping[str, str] | None = None
        self.join: list[str] | None = None
        self.is_killed = False
        self.is_paused = False
        self.is_disk_failing = False

    @property
    def is_running(self) -> bool:
        """Whether a node is there that is not stopped; a paused one is."""
        # A cluster may fail before it has a node for every seat.
        node: Node[Any] | None = self.__dict__.get("node")
        return node is not None and node._running is not None

    @property
    def is_live(self) -> bool:
        """Whether a node is there that goes on."""
        return self.is_running and not self.is_paused

    @property
    def condition(self) -> str | None:
        """What was done to it: "killed", "paused", "disk failing"; None if nothing."""
        if self.is_killed:
            return "killed"
        if self.is_paused:
            return "paused"
        return "disk failing" if self.is_disk_failing else None

    def make(self) -> Node[Any]:
        """A node to be started here, in the place of the one before."""
        self.node = Node(
            self.machine(),
            id=self.id,
            address=self.address,
            data_dir=self.data_dir / self.id.replace(":", "_"),
            members=self.members,
            join=self.join,
            config=self.config,
            tls=self.tls,
        )
        return self.node

    def start(self) -> Node[Any]:
        """Starts what `make` made."""
        if sys.platform != "linux":
            # Elsewhere a port that is only bound cannot be listened on by others.
            self._port.close()
        self.node.start()
        self.is_killed = self.is_paused = self.is_disk_failing = False
        return self.node

    def kill(self) -> None:
        """Ends the node as its process would end by `kill -9`."""
        if self.is_running:
            self.node._kill(_KILL_SECONDS)
            self.is_killed = True
        self.is_paused = False

    def stop(self, timeout: float) -> None:
        """Ends the node in good order."""
        self.node.stop(timeout)
        self.is_paused = False

    def pause(self) -> None:
        """The node stands still."""
        native = self.node._running
        if native is not None:
            native.pause()
            self.is_paused = True

    def resume(self) -> None:
        """The node goes on."""
        native = self.node._running
        if native is not None:
            native.resume()
        self.is_paused = False

    def fail_disk(self) -> None:
        """Every write of the node fails."""
        native = self.node._running
        if native is not None:
            native.fail_disk()
            self.is_disk_failing = True

    def fault_links(self, faults: Faults, seed: int) -> None:
        """These faults are on the ways from here to those addresses."""
        native = self.node._running
        if native is not None:
            native.link_faults(dict(faults), seed)

    def give_up(self) -> None:
        """Nobody will run here any more."""
        self.kill()
        self._port.close()


def reserved() -> socket.socket:
    """A port of this machine that nobody else is given for as long as the socket is open."""
    held = socket.socket()
    # Whoever listens says the same of his socket, and may then share the port with one that does not listen.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
