"""Closed loops of calls from Python, in a process that takes them as lines: what members and peers have in common."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Call = Callable[[int], object]
    Run = Callable[[dict[str, Any]], list[float]]


def sequential(call: Call, seconds: float, first: int = 0) -> list[float]:
    """How long each call took, one after the other."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        call(first + len(times))
        times.append(time.perf_counter() - begun)
    return times


def threads(call: Call, depth: int, seconds: float) -> list[float]:
    """The same on so many threads."""
    each: list[list[float]] = [[] for _ in range(depth)]

    def work(number: int) -> None:
        each[number] = sequential(call, seconds, number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(depth)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [taken for times in each for taken in times]


def tasks(call: Callable[[int], Awaitable[object]], depth: int, seconds: float) -> list[float]:
    """The same in so many tasks of an event loop."""
    times: list[float] = []

    async def work(number: int, end: float) -> None:
        while (begun := time.perf_counter()) < end:
            await call(number)
            times.append(time.perf_counter() - begun)

    async def main() -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(work(number, end) for number in range(depth)))

    asyncio.run(main())
    return times


def batches(call: Callable[[], object], depth: int, seconds: float) -> list[float]:
    """Calls that come back so many together: each took as long as all of them."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        call()
        times.extend([time.perf_counter() - begun] * depth)
    return times


def found(times: list[float], elapsed: float) -> dict[str, float]:
    """What is said of a run."""
    ordered = sorted(times)
    at = {name: ordered[int((len(ordered) - 1) * share)] * 1e6 for name, share in
          (("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999))}  # fmt: skip
    return {"calls": len(ordered), "rate": len(ordered) / elapsed, **at}


def serve(run: Run, counts: Callable[[], dict[str, float]] = dict) -> None:
    """Takes loads, a line of JSON each, until there are no more: `{"how": "threads", "depth": 8, "seconds": 2}`.

    What took how long is the answer; to `{"how": "counts"}` it is what this process counts of its work.
    """
    for line in sys.stdin:
        load: dict[str, Any] = json.loads(line)
        if load["how"] == "counts":
            answer = counts()
        else:
            begun = time.perf_counter()
            times = run(load)
            answer = found(times, time.perf_counter() - begun)
        print(json.dumps(answer), flush=True)
