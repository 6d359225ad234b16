"""A network of the kernel's own whose packets pass through a program of ours, which is told what to do with them.

See `router.c`. Needs root, `ip` and a C compiler.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, ClassVar

from chaos.cables import Pair
from chaos.namespaces import Namespaces, ip
from chaos.network import QUIET, Noise

_SOURCE = Path(__file__).with_name("router.c")
_MTU_BYTES = 9000
_RESET_MILLISECONDS = 150
_MILLION = 1_000_000
_END_SECONDS = 5.0


class Router(Namespaces):
    """A namespace for each place, with a device that leads to the program."""

    name: ClassVar[str] = "router"
    lacks: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, places: list[str], seed: int = 1) -> None:
        self._seed = seed
        self._places = places
        self._shaped: dict[Pair, str] = {}
        self._process: subprocess.Popen[str] | None = None
        super().__init__(places)

    @staticmethod
    def trouble() -> str | None:
        """Why it cannot be had here; None if it can."""
        if (why := Namespaces.trouble()) is not None:
            return why
        if shutil.which("cc") is None:
            return "a router needs a C compiler, cc"
        if not Path("/dev/net/tun").exists():
            return "a router needs /dev/net/tun"
        try:
            Router(["probe"]).close()
        except (subprocess.CalledProcessError, RuntimeError) as error:
            return f"a router cannot be made: {error}"
        return None

    def shape(self, cuts: Iterable[Pair], delays: Mapping[Pair, float], noises: Mapping[Pair, Noise] = QUIET) -> None:
        """From now on nothing comes through in these directions, that many seconds later in those, and in others with
        noise."""
        cut = set(cuts)
        wanted: dict[Pair, str] = {}
        for pair in {*cut, *delays, *noises}:
            noise = noises.get(pair, Noise())
            shares = f"{noise.loss * _MILLION:.0f} {noise.twice * _MILLION:.0f}"
            times = f"{delays.get(pair, 0.0) * _MILLION:.0f} {noise.jitter * _MILLION:.0f}"
            wanted[pair] = f"{int(pair in cut)} {shares} {times}"
        healed = self._shaped.keys() - wanted.keys()
        changed = {pair: words for pair, words in wanted.items() if self._shaped.get(pair) != words}
        self._tell("shape", changed | dict.fromkeys(healed, "0 0 0 0 0"))
        self._shaped = wanted

    def reset(self, pairs: Iterable[Pair]) -> None:
        """Ends the connections between these, as soon as anything is sent by them."""
        both = {way for one, other in pairs for way in ((one, other), (other, one))}
        self._tell("reset", dict.fromkeys(both, str(_RESET_MILLISECONDS)))

    def close(self) -> None:
        """Removes everything."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        super().close()

    def _make(self) -> None:
        for place in self._places:
            self._add(self._namespace(place))
        with tempfile.TemporaryDirectory() as directory:
            program = Path(directory) / "router"
            subprocess.run(["cc", "-O2", "-o", str(program), str(_SOURCE)], check=True, capture_output=True, text=True)
            command = [str(program), str(self._seed), *map(self._namespace, self._places)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._tell("shape", {})
        for place in self._places:
            own = self._namespace(place)
            ip("-n", own, "link", "set", "lo", "up")
            ip("-n", own, "address", "add", f"{self._ip(place)}/16", "dev", "tun0")
            ip("-n", own, "link", "set", "tun0", "mtu", str(_MTU_BYTES), "up")

    def _tell(self, order: str, words: Mapping[Pair, str]) -> None:
        assert self._process is not None
        into, out = _ends(self._process)
        places = {place: number for number, place in enumerate(self._places)}
        lines = [f"{order} {places[one]} {places[other]} {rest}" for (one, other), rest in sorted(words.items())]
        with contextlib.suppress(BrokenPipeError):
            into.write("\n".join([*lines, "done", ""]))
            into.flush()
        if out.readline() != "done\n":
            raise RuntimeError(f"the router has ended, with {self._process.wait(_END_SECONDS)}")


def _ends(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout
