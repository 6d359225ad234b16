"""A member of a cluster with a machine in Python, in a process of its own, for `benches/bench.py`.

`python python_member.py MACHINE ID DIRECTORY ID=ADDRESS…` says its role when it has one, then takes loads, a line of
JSON each: `{"how": "sequential" | "threads" | "asyncio" | "many", "depth": 64, "seconds": 2, "bytes": 128}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from typing import Any

import graft


class Nothing(graft.StateMachine):
    """What the engine and the way into Python cost, and no more."""

    def apply(self, command: bytes) -> None:
        pass

    def snapshot(self) -> bytes:
        return b""

    def restore(self, file: Any) -> None:
        pass


class Words(graft.StateMachine):
    """A dictionary with typed commands."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}

    @graft.command
    def put(self, key: str, value: str) -> int:
        self.words[key] = value
        return len(self.words)


Call = tuple[Any, ...]


def calls_of(machine: str, size: int) -> list[Call]:
    """A call for each of 1024 places, as the arguments of `execute`."""
    if machine == "nothing":
        return [(b"x" * size,)] * 1024
    return [(Words.put, f"key-{number:04}", "x" * max(1, size - 30)) for number in range(1024)]


def sequential(node: Any, calls: list[Call], _depth: int, seconds: float) -> list[float]:
    times, end = [], time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        node.execute(*calls[len(times) % 1024])
        times.append(time.perf_counter() - begun)
    return times


def threads(node: Any, calls: list[Call], depth: int, seconds: float) -> list[float]:
    each: list[list[float]] = [[] for _ in range(depth)]

    def work(number: int) -> None:
        each[number] = sequential(node, calls[number:] + calls[:number], 1, seconds)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(depth)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [taken for times in each for taken in times]


def tasks(node: Any, calls: list[Call], depth: int, seconds: float) -> list[float]:
    times: list[float] = []

    async def work(number: int, end: float) -> None:
        while (begun := time.perf_counter()) < end:
            await node.aio.execute(*calls[number])
            times.append(time.perf_counter() - begun)

    async def main() -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(work(number % 1024, end) for number in range(depth)))

    asyncio.run(main())
    return times


def many(node: Any, calls: list[Call], depth: int, seconds: float) -> list[float]:
    times, end = [], time.perf_counter() + seconds
    batch = [call[0] if len(call) == 1 else call for call in (calls * (1 + depth // 1024))[:depth]]
    while (begun := time.perf_counter()) < end:
        node.execute_many(batch)
        times.extend([time.perf_counter() - begun] * depth)
    return times


LOADS = {"sequential": sequential, "threads": threads, "asyncio": tasks, "many": many}


def main() -> None:
    kind, member, directory, *named = sys.argv[1:]
    members = dict(name.split("=") for name in named)
    machine: Any = Nothing() if kind == "nothing" else Words()
    node = graft.Node(machine, id=member, address=members[member], data_dir=f"{directory}/{member}", members=members)
    with node:
        node.wait_ready(timeout=60)
        print(node.status().role, flush=True)
        for line in sys.stdin:
            load = json.loads(line)
            calls = calls_of(kind, load["bytes"])
            begun = time.perf_counter()
            times = sorted(LOADS[load["how"]](node, calls, load["depth"], load["seconds"]))
            elapsed = time.perf_counter() - begun
            at = [times[int((len(times) - 1) * share)] * 1e6 for share in (0.5, 0.99, 0.999)]
            print(json.dumps({"calls": len(times), "rate": len(times) / elapsed, "us": at}), flush=True)


if __name__ == "__main__":
    main()
