"""A cluster that grows, changes all its members and shrinks again, while everybody writes and reads.

One process becomes five; each of the five is replaced by a new one; four are removed. Eight writers write all the
while, through any member, and read after each write through any other.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from processes import DEADLINE_SECONDS, Cluster, Died, ProcessError, free_ports, until

WRITERS = 8
ELECTION_SECONDS = 1.0
# What is aimed at is two election timeouts; the rest is for machines that are busy with other things.
PAUSE_SECONDS_MAX = 4 * ELECTION_SECONDS
CALL_SECONDS = 5.0


class Traffic:
    """Writers that note what became of each write, and hold each read against what was acknowledged before."""

    def __init__(self, cluster: Cluster) -> None:
        self.targets: list[str] = []
        self.acknowledged: dict[str, tuple[int, int]] = {}
        self.times: list[float] = []
        self.refused: dict[str, str] = {}
        self.unknown: set[str] = set()
        self.reads = 0
        self.broken: list[BaseException] = []
        self.steps: list[tuple[float, str]] = []
        self._cluster = cluster
        self._position = 0
        self._ending = threading.Event()
        self._lock = threading.Lock()

    @contextmanager
    def flowing(self) -> Iterator[Traffic]:
        threads = [threading.Thread(target=self._run, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ending.set()
            for thread in threads:
                thread.join()

    def flows(self) -> None:
        """Waits until every writer has done something since."""
        enough = len(self.times) + 4 * WRITERS
        until(lambda: len(self.times) >= enough or self.broken, "writes go on")
        assert not self.broken, self.broken

    def pause(self) -> tuple[float, str]:
        """The longest time in which no write was acknowledged, and what was being done then."""
        seconds, end = max((after - before, after) for before, after in pairwise(sorted(self.times)))
        return seconds, max(((when, step) for when, step in self.steps if when < end), default=(0.0, "the start"))[1]

    def step(self, words: str) -> None:
        """Something is done to the cluster from now on."""
        self.steps.append((time.monotonic(), words))

    def _run(self, number: int) -> None:
        luck = random.Random(number)
        try:
            for attempt in count():
                if self._ending.is_set():
                    return
                self._write(luck, f"{number}.{attempt}")
                self._read(luck)
        except BaseException as error:
            self.broken.append(error)

    def _write(self, luck: random.Random, token: str) -> None:
        try:
            index, position = self._somebody(luck).execute("append", token, seconds=CALL_SECONDS)
        except Died:
            self.unknown.add(token)
        except ProcessError as error:
            if error.code is None:
                raise
            if error.code == "UNKNOWN_OUTCOME":
                self.unknown.add(token)
            else:
                self.refused[token] = error.code
        else:
            with self._lock:
                self.acknowledged[token] = index, position
                self.times.append(time.monotonic())
                self._position = max(self._position, position)

    def _read(self, luck: random.Random) -> None:
        with self._lock:
            due = self._position
        try:
            found = self._somebody(luck).query("count", seconds=CALL_SECONDS)
        except Died:
            return
        except ProcessError as error:
            if error.code is None:
                raise
            return
        assert found >= due, f"a stale read: {found} writes, and {due} had been acknowledged before"
        self.reads += 1

    def _somebody(self, luck: random.Random) -> Any:
        return self._cluster[luck.choice(list(self.targets))]

    def check(self, state: list[list[Any]]) -> None:
        """Nothing acknowledged is lost, nothing is there twice, and nothing that was refused is there at all."""
        assert not self.broken, self.broken
        tokens = [token for token, _ in state]
        assert len(tokens) == len(set(tokens)), "something was applied twice"
        for token, (index, position) in self.acknowledged.items():
            assert position <= len(state), f"{token} was acknowledged and is lost"
            assert state[position - 1] == [token, index], f"{token} was acknowledged and is lost"
        assert not self.refused.keys() & set(tokens), "what was refused was applied"
        assert set(tokens) <= self.acknowledged.keys() | self.unknown

    def __str__(self) -> str:
        outcomes = f"{len(self.acknowledged)} acknowledged, {len(self.refused)} refused, {len(self.unknown)} unknown"
        seconds, step = self.pause()
        return f"writes: {outcomes}; {self.reads} reads; longest pause {seconds:.2f} s, in {step}"


def change(cluster: Cluster, traffic: Traffic, asked: str, verb: str, *args: str) -> list[str]:
    """Has a member change the members."""
    traffic.step(f"{verb}{args}, with {cluster[asked].status()['leader']} leading")
    return cluster[asked].send("change", change=verb, args=args, seconds=DEADLINE_SECONDS).value(2 * DEADLINE_SECONDS)


def ready(cluster: Cluster, id_: str) -> None:
    cluster[id_].send("wait_ready", seconds=DEADLINE_SECONDS).value(2 * DEADLINE_SECONDS)


def retire(cluster: Cluster, traffic: Traffic, id_: str) -> None:
    """Sees a removed member off: it knows what it is, and is killed."""
    traffic.targets.remove(id_)
    until(lambda: cluster[id_].status()["role"] == "removed", f"{id_} knows that it is removed")
    cluster.kill(id_)


def test_one_to_five_all_replaced_and_back_to_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"election_timeout": ELECTION_SECONDS, "heartbeat": ELECTION_SECONDS / 10}
    begun = time.monotonic()
    with Cluster(tmp_path, 0, idle=True, **settings) as cluster:
        cluster.enlist("n1")
        cluster.start("n1").ready()
        traffic = Traffic(cluster)
        traffic.targets.append("n1")
        with traffic.flowing():
            originals = ["n1", *(f"n{number}" for number in range(2, 6))]
            for id_ in originals[1:]:
                cluster.enlist(id_, *(cluster.members[member] for member in traffic.targets))
                traffic.step(f"{id_} joins")
                cluster.start(id_)
                ready(cluster, id_)
                traffic.targets.append(id_)
                traffic.flows()
            for place, old in enumerate(originals):
                new = f"n{place + 6}"
                # Nobody lets it in by that address: it waits to be added.
                address = cluster.enlist(new, f"127.0.0.1:{free_ports(1)[0]}")
                cluster.start(new)
                asked = old if place % 2 else next(id_ for id_ in traffic.targets if id_ != old)
                change(cluster, traffic, asked, "replace", old, new, address)
                ready(cluster, new)
                traffic.targets.append(new)
                retire(cluster, traffic, old)
                traffic.flows()
            while len(traffic.targets) > 1:
                gone = cluster.leader() if len(traffic.targets) % 2 else traffic.targets[0]
                asked = next(id_ for id_ in traffic.targets if id_ != gone)
                change(cluster, traffic, asked, "remove", gone)
                retire(cluster, traffic, gone)
                traffic.flows()
        [last] = traffic.targets
        assert [member["id"] for member in cluster[last].status()["members"]] == [last]
        traffic.check(cluster[last].query("since", 0))
    with capsys.disabled():
        print(f"\n1 to 5, all replaced, 5 to 1, in {time.monotonic() - begun:.0f} s: {traffic}")
    assert traffic.pause()[0] < PAUSE_SECONDS_MAX
