"""What a process has and uses, as Linux tells it."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
_SWITCHES = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)


def resident(pid: int) -> float:
    """MiB of memory that is in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def files(pid: int) -> int:
    """Descriptors that are open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    """Threads that live."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def disk(directory: Path) -> float:
    """MiB that the files below take; those that go meanwhile count nothing."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH116, PTH118 - called often
            except FileNotFoundError:
                continue
    return total / MIB


def sync_seconds(directory: Path, count: int = 25) -> float:
    """What a bare sync of a few bytes takes at this moment, the median of so many."""
    times: list[float] = []
    with (directory / "probe").open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(b"x" * 128)
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


@dataclass(frozen=True)
class Usage:
    """What the threads of a process have used, each since it began."""

    nanoseconds: int
    wakes: Counter[str]
    """How often those of a name waited and were woken; members' ids are left out of names."""


def usage(pid: int) -> Usage:
    """As of now."""
    nanoseconds, wakes = 0, Counter[str]()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            nanoseconds += int((task / "schedstat").read_text().split()[0])
            found = _SWITCHES.search((task / "status").read_text())
            name = (task / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended
        wakes[re.sub(r"-n?\d+$", "", name)] += int(found[1]) if found else 0
    return Usage(nanoseconds, wakes)
