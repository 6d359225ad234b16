"""How long nobody can write after the leader was killed: SIGKILL under load, everything at its defaults."""

from __future__ import annotations

import random
import statistics
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import graft
from processes import until

from scale.cluster import LONG_SECONDS, Members, asked
from scale.member import Words
from scale.report import Finding, quantile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

ELECTION_SECONDS = 0.3
MEDIAN_SECONDS, P99_SECONDS = 0.45, 0.8
PROBE_SECONDS = 0.005


class Probe:
    """Sends a write every few milliseconds, whatever became of those before; others, as they are answered."""

    def __init__(self, client: graft.Client[Words], writers: int) -> None:
        self._client = client
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._answered: list[tuple[float, float]] = []
        self.done = self.failed = 0
        targets = [self._probe, *[self._write] * writers]
        self._threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()

    def first(self, after: float) -> float | None:
        """When the first of the writes that were sent after that moment was acknowledged; None if none is yet."""
        with self._lock:
            self._answered = [one for one in self._answered if one[0] >= after]
            return min((answered for _, answered in self._answered), default=None)

    def end(self) -> None:
        """Ends it."""
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _probe(self) -> None:
        while not self._ending.wait(PROBE_SECONDS):
            sent = time.monotonic()
            self._client.submit(Words.put, "probe", "x").add_done_callback(partial(self._note, sent))

    def _note(self, sent: float, future: Future[graft.Result[int]]) -> None:
        answered = time.monotonic()
        with self._lock:
            if future.exception() is None:
                self._answered.append((sent, answered))
            else:
                self.failed += 1

    def _write(self) -> None:
        while not self._ending.is_set():
            try:
                self._client.execute(Words.put, "load", "x" * 100)
                self.done += 1
            except graft.GraftError:
                self.failed += 1


def measured(directory: Path, kills: int) -> Iterator[Finding]:
    """So many leaders, one after the other; each is started again, and all are well before the next one goes."""
    luck, outages = random.Random(1), list[float]()
    with (
        Members(directory, machine="words") as members,
        graft.Client(members.addresses, Words, timeout=30) as client,
    ):
        probe = Probe(client, writers=4)
        try:
            for _ in range(kills):
                leader = members.leader()
                time.sleep(luck.uniform(0.5, 0.6))
                killed = time.monotonic()
                members.kill(leader)
                answered: float = until(partial(probe.first, killed), "a write is acknowledged again")
                outages.append(answered - killed)
                members.start(leader)
                # It applies all of its log first, which grows from kill to kill.
                asked(members[leader], "wait_ready", seconds=LONG_SECONDS)
        finally:
            probe.end()
    median, p99 = statistics.median(outages), quantile(outages, 0.99)
    counts = f"{len(outages)} kills, {min(outages):.3f}-{max(outages):.3f} s"
    figures = {"seconds": outages, "written": probe.done, "failed": probe.failed}
    what = "killed leader to the next acknowledged write"
    yield Finding("failing over", f"{what}, median", f"<= {MEDIAN_SECONDS} s", f"{median:.3f} s; {counts}",
                  median <= MEDIAN_SECONDS, figures)  # fmt: skip
    limit = min(P99_SECONDS, 2 * ELECTION_SECONDS + 0.1)
    yield Finding("failing over", f"{what}, p99", f"<= {limit:.1f} s (2 election timeouts + 100 ms)", f"{p99:.3f} s",
                  p99 <= limit)  # fmt: skip
    yield Finding("failing over", "writes that failed meanwhile", "0", str(probe.failed), probe.failed == 0)
