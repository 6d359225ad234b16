"""The load, in a process of its own: lanes that each count on a counter of their own, so that every answer is known
before it comes. A write that is lost, or done twice, shows in the next answer."""

from __future__ import annotations

import json
import logging
import os
import random
import statistics
import sys
import threading
import time
import traceback
from typing import Any

import graft
from graft.tls import CertificateAuthority
from process_node import Answering
from scale.report import quantile

from soak.machine import Counters

_READS = 0.2
# Enough for every file of the log to be filled and used again within a minute or two.
WORDS_BYTES = 1000
_SECONDS = 10.0
_GIVE_UP_SECONDS = 120.0


class Lane:
    """One who counts. `wrong` is what did not come as it had to."""

    def __init__(self, calls: graft.Calls[Counters], name: str) -> None:
        self.name = name
        self.count = 0
        self.wrong: list[str] = []
        self.times: list[float] = []
        self.failed = self.unknown = 0
        self._calls = calls
        self._luck = random.Random(name)

    def call(self) -> None:
        """A write, or a read."""
        begun = time.monotonic()
        if self._luck.random() < _READS:
            self._read()
            return
        words = self._luck.randbytes(WORDS_BYTES).hex()
        while not self._write(words):
            time.sleep(0.05)
            if time.monotonic() - begun > _GIVE_UP_SECONDS:
                self.wrong.append(f"{self.name} could not write for {_GIVE_UP_SECONDS:.0f} s")
                return
        self.times.append(time.monotonic() - begun)

    def _write(self, words: str) -> bool:
        try:
            answer = self._calls.execute(Counters.add, self.name, words)
        except graft.UnknownOutcome as error:
            self.unknown += 1
            answer = self._resolved(error)
        except graft.GraftError:
            self.failed += 1
            return False
        self.count += 1
        if answer != self.count:
            self.wrong.append(f"{self.name} came to {answer}, and must be at {self.count}")
            self.count = answer
        return True

    def _resolved(self, error: graft.UnknownOutcome) -> int:
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while True:
            try:
                return int(error.resolve())
            except graft.GraftError as trouble:
                if time.monotonic() > deadline:
                    self.wrong.append(f"{self.name}: what became of a write was never known: {trouble}")
                    return self.count + 1
                time.sleep(0.1)

    def _read(self) -> None:
        try:
            found = self._calls.query(Counters.count, self.name)
        except graft.GraftError:
            self.failed += 1
            return
        if found != self.count:
            self.wrong.append(f"{self.name} was read as {found}, and must be {self.count}")


class Worker(Answering):
    """All lanes."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__()
        tls = CertificateAuthority.load(told["authority"]).client("soak")
        self._client = graft.Client(told["endpoints"], Counters, timeout=_SECONDS, tls=tls)
        self._ending = threading.Event()
        self._pause: float = told["lanes"] / told["rate"]
        self._lanes = [Lane(self._client, f"lane-{number}") for number in range(told["lanes"])]
        self._threads = [threading.Thread(target=self._run, args=(lane,), daemon=True) for lane in self._lanes]

    def do_work(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def do_sample(self) -> dict[str, Any]:
        """What has been since the last look."""
        times: list[float] = []
        for lane in self._lanes:
            taken, lane.times = lane.times, []
            times.extend(taken)
        return {
            "writes": len(times),
            "p50_ms": statistics.median(times) * 1e3 if times else None,
            "p99_ms": quantile(times, 0.99) * 1e3 if times else None,
            "failed": sum(lane.failed for lane in self._lanes),
            "unknown": sum(lane.unknown for lane in self._lanes),
            "wrong": [what for lane in self._lanes for what in lane.wrong][:20],
        }

    def do_end(self) -> dict[str, Any]:
        """Ends, and reads each counter once more; gives how many writes there were, and what is wrong."""
        self._ending.set()
        for thread in self._threads:
            thread.join()
        for lane in self._lanes:
            found = self._client.query(Counters.count, lane.name)
            if found != lane.count:
                lane.wrong.append(f"{lane.name} is {found} in the end, and must be {lane.count}")
        return {"written": sum(lane.count for lane in self._lanes), **self.do_sample()}

    def _run(self, lane: Lane) -> None:
        try:
            due = time.monotonic()
            while not self._ending.is_set():
                lane.call()
                # What was late is not caught up with: the load is steady, also after an outage.
                due = max(due + self._pause, time.monotonic() - self._pause)
                self._ending.wait(max(0.0, due - time.monotonic()))
        except BaseException:  # noqa: BLE001 - a lane that ends before its time would be a load that is none
            traceback.print_exc()
            os._exit(70)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    Worker(json.loads(sys.argv[1])).serve()
    os._exit(0)
