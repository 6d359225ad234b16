"""Wall clocks that can be told to jump, one for each process, by libfaketime. Monotonic ones stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

_LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")
# How often a process looks what its clock is told.
LOOK_SECONDS = 1


class Clocks:
    """A file for each process says how wrong its clock is."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def trouble() -> str | None:
        """Why they cannot be had here; None if they can."""
        return None if _library() else "clocks that jump need libfaketime"

    def environment(self, id_: str) -> list[str]:
        """What a process is started with, for `env`."""
        self.jump(id_, 0)
        return [
            f"LD_PRELOAD={_library()}",
            f"FAKETIME_TIMESTAMP_FILE={self._path(id_)}",
            f"FAKETIME_CACHE_DURATION={LOOK_SECONDS}",
            "DONT_FAKE_MONOTONIC=1",
            # Or each wait on a condition takes a twentieth of a second.
            "FAKETIME_FORCE_MONOTONIC_FIX=0",
        ]

    def jump(self, id_: str, seconds: float) -> None:
        """From now on its clock is wrong by so much."""
        path = self._path(id_)
        fresh = path.with_suffix(".new")
        fresh.write_text(f"{seconds:+.0f}\n")
        os.replace(fresh, path)

    def _path(self, id_: str) -> Path:
        return self._directory / id_


def _library() -> str | None:
    root = Path("/")
    return next((str(path) for pattern in _LIBRARIES for path in root.glob(pattern[1:])), None)
