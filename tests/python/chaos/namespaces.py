"""A network of the kernel's own: each process in a network namespace, all of them on one bridge. Needs root, and `ip`.

To cut a direction the sender is told a wrong hardware address of the other end: its packets go nowhere, and nobody is
told. Packets are lost for TCP, which sends them again later and later, as when a real switch fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from typing import ClassVar

from chaos.cables import Pair
from chaos.network import QUIET, Noise

_PORT = 7000
_NOBODY = "02:00:00:00:ff:ff"
_SECONDS_MAX = 10.0


class Namespaces:
    """One for each place, and one with the bridge."""

    name: ClassVar[str] = "namespaces"
    lacks: ClassVar[frozenset[str]] = frozenset({"delay", "reset", "noise"})

    def __init__(self, places: list[str]) -> None:
        self._prefix = f"graft{os.getpid()}"
        self._numbers = {place: number for number, place in enumerate(places, 1)}
        self._lost: set[Pair] = set()
        self._made: list[str] = []
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def trouble() -> str | None:
        """Why they cannot be had here; None if they can."""
        if os.geteuid() != 0:
            return "network namespaces need root"
        for command in ("ip", "nsenter"):
            if shutil.which(command) is None:
                return f"network namespaces need the command {command}"
        try:
            Namespaces(["probe"]).close()
        except subprocess.CalledProcessError as error:
            return f"network namespaces cannot be made: {error.stderr.strip()}"
        return None

    def address(self, place: str) -> str:
        """Where the others reach the member there."""
        return f"{self._ip(place)}:{_PORT}"

    def bind(self, place: str) -> str:
        """Where it listens: the same."""
        return self.address(place)

    def command(self, place: str) -> list[str]:
        """Enters the namespace. `ip netns exec` would hold on to mounts, too."""
        return ["nsenter", f"--net=/run/netns/{self._namespace(place)}"]

    def placed(self, place: str, pid: int) -> None:
        """It is there already."""

    def shape(self, cuts: Iterable[Pair], delays: Mapping[Pair, float], noises: Mapping[Pair, Noise] = QUIET) -> None:
        """From now on nothing comes through in these directions. Raises `NotImplementedError` for delays and noise."""
        if delays or noises:
            raise NotImplementedError(f"{sorted({**delays, **noises})} cannot be spoiled on a bridge")
        lost = set(cuts)
        for source, target in lost - self._lost:
            self._neighbour(source, target, _NOBODY)
        for source, target in self._lost - lost:
            self._neighbour(source, target, self._hardware(target))
        self._lost = lost

    def reset(self, pairs: Iterable[Pair]) -> None:
        """Raises `NotImplementedError`."""
        raise NotImplementedError(f"connections between {sorted(pairs)} cannot be reset in namespaces")

    def close(self) -> None:
        """Removes them, and with them all that is in them."""
        for namespace in self._made:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", namespace)
        self._made.clear()

    def _make(self) -> None:
        hub = f"{self._prefix}-hub"
        self._add(hub)
        ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", hub, "link", "set", "bridge", "up")
        for place, number in self._numbers.items():
            own = self._namespace(place)
            self._add(own)
            port = f"port{number}"
            ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", own)
            ip("-n", hub, "link", "set", port, "master", "bridge", "up")
            ip("-n", own, "link", "set", "eth0", "address", self._hardware(place), "up")
            ip("-n", own, "link", "set", "lo", "up")
            ip("-n", own, "address", "add", f"{self._ip(place)}/16", "dev", "eth0")
        for source in self._numbers:
            for target in self._numbers:
                if source != target:
                    self._neighbour(source, target, self._hardware(target))

    def _add(self, namespace: str) -> None:
        ip("netns", "add", namespace)
        self._made.append(namespace)

    def _neighbour(self, source: str, target: str, hardware: str) -> None:
        at = ("-n", self._namespace(source), "neighbour", "replace", self._ip(target))
        ip(*at, "lladdr", hardware, "dev", "eth0", "nud", "permanent")

    def _namespace(self, place: str) -> str:
        return f"{self._prefix}-{place}"

    def _ip(self, place: str) -> str:
        return f"10.77.0.{self._numbers[place]}"

    def _hardware(self, place: str) -> str:
        return f"02:00:00:00:00:{self._numbers[place]:02x}"


def ip(*words: str) -> None:
    """Raises `subprocess.CalledProcessError` with what it said."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=_SECONDS_MAX)
