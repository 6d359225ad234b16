"""One member, which calls itself and tells how long that took: what `scale.cluster` starts."""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import time
from typing import Any

import graft
from graft.recipes import KeyValue
from process_node import Process

from scale.report import quantile

_BATCH = 1024
_FILL = 4096


class Nothing(graft.StateMachine):
    """What the engine and the way into Python cost, and no more."""

    def apply(self, command: bytes) -> None:
        """Forgets it."""

    def snapshot(self) -> bytes:
        """Nothing."""
        return b""

    def restore(self, file: Any) -> None:
        """From nothing."""


class Bells(graft.StateMachine):
    """Rings the bell whose name a command begins with."""

    def apply(self, command: bytes) -> None:
        """Tells whoever watches that bell."""
        self.context.emit(command[:16].decode().rstrip(), len(command))

    def snapshot(self) -> bytes:
        """Nothing."""
        return b""

    def restore(self, file: Any) -> None:
        """From nothing."""


class Words(graft.StateMachine):
    """A dictionary with a typed command."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}

    @graft.command
    def put(self, key: str, value: str) -> int:
        """Sets it; gives how many there are."""
        self.words[key] = value
        return len(self.words)


MACHINES = {"nothing": Nothing, "bells": Bells, "words": Words, "keys": KeyValue}


class Member(Process):
    """A process with a node, and marks of when it came how far."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._kind: str = told["machine"]
        self._marks = {"begun": told["begun"], "imported": time.monotonic()}
        super().__init__(told)

    def _machine(self) -> Any:
        return MACHINES[self._kind]()

    def _start(self) -> int:
        found = super()._start()
        self._marks["started"] = time.monotonic()
        return found

    def do_marks(self) -> dict[str, float]:
        """When it was begun, had loaded Python, had its log, and was ready."""
        self._node.wait_ready(600)
        self._marks["ready"] = time.monotonic()
        return self._marks

    def do_fill(self, entries: int, size: int) -> int:
        """Puts so many commands into the log."""
        for begin in range(0, entries, _FILL):
            self._node.execute_many([self._call(number, size) for number in range(begin, min(begin + _FILL, entries))])
        return self._node.status().last_index

    def do_alone(self, seconds: float, size: int) -> dict[str, float]:
        """One call after the other."""
        call, times, end = self._call(0, size), list[float](), time.perf_counter() + seconds
        begun = first = time.perf_counter()
        while begun < end:
            self._node.execute(*([call] if isinstance(call, bytes) else call))
            now = time.perf_counter()
            times.append(now - begun)
            begun = now
        return {
            "rate": len(times) / (begun - first),
            "p50": statistics.median(times),
            "p99": quantile(times, 0.99),
        }

    def do_many(self, seconds: float, size: int) -> dict[str, float]:
        """1024 at once, again and again."""
        calls, times, end = [self._call(number, size) for number in range(_BATCH)], list[float](), 0.0
        first = begun = time.perf_counter()
        end = first + seconds
        while begun < end:
            self._node.execute_many(calls)
            now = time.perf_counter()
            times.append(now - begun)
            begun = now
        return {"rate": len(times) * _BATCH / (begun - first), "p50": statistics.median(times)}

    def do_lock(self, seconds: float) -> list[float]:
        """A lock, acquired and released again and again: how long both took together."""
        return lock(self._node, seconds)

    def _call(self, number: int, size: int) -> Any:
        if self._kind == "words":
            return (Words.put, f"key-{number % 100_000:06}", "x" * max(1, size - 30))
        # The topic of bells.
        return b"bell".ljust(16).ljust(size, b"x")


def lock(calls: graft.Calls[KeyValue], seconds: float) -> list[float]:
    """As a program does it: the key must not be there, ends by itself if the program does, and goes at its revision."""
    times, end = list[float](), time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        revision = calls.execute(KeyValue.set, "lock", "me", ttl=10.0, if_revision=0)
        calls.execute(KeyValue.delete, "lock", if_revision=revision)
        times.append(time.perf_counter() - begun)
    return times


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    Member(json.loads(sys.argv[1])).serve()
    os._exit(0)
