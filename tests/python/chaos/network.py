"""The network between the processes of a story, which a nemesis can spoil."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from processes import Proc, free_ports

from chaos.cables import Pair


def run(module: str) -> list[str]:
    """What runs a module of these tests as a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return ["env", f"PYTHONPATH={path}", sys.executable, "-W", "error", "-m", module]


@dataclass(frozen=True, slots=True)
class Noise:
    """What becomes of packets: shares of them are lost or come twice, each is late by up to so many seconds more."""

    loss: float = 0.0
    twice: float = 0.0
    jitter: float = 0.0


QUIET: Mapping[Pair, Noise] = MappingProxyType({})


class Network(Protocol):
    """What both kinds can do. A place is a process, whatever its number at the time."""

    name: ClassVar[str]
    lacks: ClassVar[frozenset[str]]
    """The faults of a nemesis that this kind cannot do."""

    def address(self, place: str) -> str:
        """Where the others reach the member there."""
        ...

    def bind(self, place: str) -> str:
        """Where it listens."""
        ...

    def command(self, place: str) -> list[str]:
        """What a process is started with to be there."""
        ...

    def placed(self, place: str, pid: int) -> None:
        """A process has been started there."""
        ...

    def shape(self, cuts: Iterable[Pair], delays: Mapping[Pair, float], noises: Mapping[Pair, Noise] = QUIET) -> None:
        """From now on nothing comes through in these directions, that many seconds later in those, and in others with
        noise."""
        ...

    def reset(self, pairs: Iterable[Pair]) -> None:
        """Ends the connections between these."""
        ...

    def close(self) -> None:
        """Takes everything down."""
        ...


class Proxies:
    """Everybody calls everybody through a process that passes on: works anywhere."""

    name: ClassVar[str] = "proxies"
    lacks: ClassVar[frozenset[str]] = frozenset({"noise"})

    def __init__(self, directory: Path, servers: list[str]) -> None:
        ports = iter(free_ports(2 * len(servers)))
        self._outer = {place: f"127.0.0.1:{next(ports)}" for place in servers}
        self._inner = {place: f"127.0.0.1:{next(ports)}" for place in servers}
        told = {
            "ports": [
                {"address": address, "target": self._inner[place], "place": place}
                for place, address in self._outer.items()
            ]
        }
        self._cables = Proc("cables", told, directory / "cables.log", run("chaos.cables"))
        self._cables.started.value()

    def address(self, place: str) -> str:
        """Where the others reach the member there."""
        return self._outer[place]

    def bind(self, place: str) -> str:
        """Where it listens."""
        return self._inner[place]

    def command(self, place: str) -> list[str]:
        """Nothing."""
        return []

    def placed(self, place: str, pid: int) -> None:
        """Says so to the process that passes on."""
        self._call("place", pid=pid, place=place)

    def shape(self, cuts: Iterable[Pair], delays: Mapping[Pair, float], noises: Mapping[Pair, Noise] = QUIET) -> None:
        """From now on nothing comes through in these directions, and that many seconds later in those. Raises
        `NotImplementedError` for noise: there are no packets."""
        if noises:
            raise NotImplementedError(f"{sorted(noises)} cannot lose anything through proxies")
        late = [(*pair, seconds) for pair, seconds in delays.items()]
        self._call("shape", cuts=sorted(cuts), delays=late)

    def reset(self, pairs: Iterable[Pair]) -> None:
        """Ends the connections between these."""
        self._call("reset", pairs=sorted(pairs))

    def close(self) -> None:
        """Ends the process."""
        self._cables.kill()
        self._cables.reap()

    def _call(self, do: str, **arguments: Any) -> None:
        self._cables.call(do, **arguments)
