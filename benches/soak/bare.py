"""What a write cannot do without, and nothing else: a few wake-ups of another process, and one sync of its disk."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

_ROUNDS = 30
_WAKES = 3
_ECHO = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while what := os.read(0, 1):
    if what == b"s":
        os.write(file, b"x" * 128)
        os.fdatasync(file)
    os.write(1, what)
"""


class Bare:
    """The other process. How long it takes tells how busy the machine is, with others."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, "-c", _ECHO, str(directory / "bare")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ms(self) -> float:
        """The median of some rounds, at this moment."""
        stdin, stdout, times = self._process.stdin, self._process.stdout, list[float]()
        assert stdin
        assert stdout
        for _ in range(_ROUNDS):
            begun = time.perf_counter()
            for what in b"s" + b"w" * _WAKES:
                os.write(stdin.fileno(), bytes([what]))
                os.read(stdout.fileno(), 1)
            times.append(time.perf_counter() - begun)
        return statistics.median(times) * 1e3
