"""What the clients of a story do: which operations on which objects, how often."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from linearizable import Scalar, Value

# How long calls wait: some for less than an election takes, so that their outcome is unknown.
CALL_SECONDS = (0.1, 0.5, 3.0, 3.0)

# How reads are read, as `linearizable.models` has it.
READINGS: tuple[tuple[Scalar, ...], ...] = ((), ("lease",), ("lease",), ("stale",), ("stale", 200))


@dataclass(frozen=True, slots=True)
class Workload:
    """How many objects of each kind, and how long a lane rests between two calls, in seconds, on average."""

    epoch: int
    registers: int = 3
    counters: int = 2
    entries: int = 3
    pause: float = 0.02
    reads: float = 0.4
    """The share of reads of a lane that does not only read."""
    left_unknown: float = 0.2
    """The share of unknown outcomes that are left so. Those of counters are always found out: each that is not would be
    an excuse for one increment too many."""

    def told(self) -> dict[str, Any]:
        """For another process."""
        return asdict(self)

    def keys(self) -> list[str]:
        """All objects. Those of another epoch are others."""
        numbers = {"register": self.registers, "counter": self.counters, "map": self.entries}
        return [f"{model}/{self.epoch}.{number}" for model, most in numbers.items() for number in range(most)]


class Chooser:
    """Draws the operations of one lane. No two lanes write the same, and none writes anything twice."""

    def __init__(self, workload: Workload, lane: str, luck: random.Random, *, only_reads: bool = False) -> None:
        self._keys = workload.keys()
        self._lane = lane
        self._reads = 1.0 if only_reads else workload.reads
        self._luck = luck
        self._written = 0
        self._seen: dict[str, Value] = {}

    def saw(self, key: str, value: Value) -> None:
        """What was read there: what the next swap may expect."""
        self._seen[key] = value

    def draw(self) -> tuple[str, str, tuple[Scalar, ...]]:
        """The key, the verb and the arguments of the next call."""
        key = self._luck.choice(self._keys)
        model = key.partition("/")[0]
        if self._luck.random() < self._reads:
            return key, "get" if model == "map" else "read", self._luck.choice(READINGS)
        if model == "counter":
            return key, "increment", (1,)
        self._written += 1
        value = f"{self._lane}.{self._written}"
        draw = self._luck.random()
        if draw < 0.4:
            seen = self._seen.get(key)
            return key, "cas", (seen if isinstance(seen, str) else None, value)
        if model == "map" and draw < 0.6:
            return key, "delete", ()
        return key, "put" if model == "map" else "write", (value,)
