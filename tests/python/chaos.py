"""Kills, pauses and starts nodes at random under load, for as long as told, and checks what `histories` checks.

    python tests/python/chaos.py --seed 1 --seconds 60 --nodes 3

The suite runs a few fixed stories; this one is for an evening. A failure shows its seed and leaves the directory.
The seed decides what is done to whom, but not what the machine's timing makes of it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

from histories import History
from processes import Cluster

PAUSES_SECONDS = (0, 0.05, 0.3, 0.8)


class Chaos:
    """One story."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._luck = random.Random(seed)
        self._cluster = cluster
        self.history = History(cluster)
        self._down: set[str] = set()
        self._paused: set[str] = set()

    def round(self) -> None:
        """Load, trouble, peace, and the question whether anything was lost."""
        luck, cluster = self._luck, self._cluster
        seconds = luck.choice((0.1, 1.0, 10.0))
        cluster.load(writers=luck.choice((6, 24, 64)), readers=luck.choice((0, 6)), seconds=seconds)
        self.history.wait_for(luck.choice((1, 50, 300)), "writes")
        for _ in range(luck.randrange(1, 8)):
            luck.choice((self._kill, self._kill, self._pause, self._resume, self._start, self._start))()
            time.sleep(luck.choice(PAUSES_SECONDS))
        all_were_killed = luck.random() < 0.5
        if all_were_killed:
            up = set(cluster.ids) - self._down
            cluster.kill(*sorted(up))
            self._down, self._paused = set(cluster.ids), set()
        while self._paused:
            self._resume()
        cluster.start(*sorted(self._down))
        self._down.clear()
        cluster.end_load()
        cluster.ready()
        self.history.check(all_were_killed=all_were_killed)

    def _some(self, ids: set[str]) -> str | None:
        return self._luck.choice(sorted(ids)) if ids else None

    def _kill(self) -> None:
        if id_ := self._some(set(self._cluster.ids) - self._down):
            self._cluster.kill(id_)
            self._down.add(id_)
            self._paused.discard(id_)

    def _pause(self) -> None:
        if id_ := self._some(set(self._cluster.ids) - self._down - self._paused):
            self._cluster[id_].pause()
            self._paused.add(id_)

    def _resume(self) -> None:
        if id_ := self._some(self._paused):
            self._cluster[id_].resume()
            self._paused.discard(id_)

    def _start(self) -> None:
        if id_ := self._some(self._down):
            self._cluster.start(id_)
            self._down.discard(id_)


def main() -> None:
    """Reads the arguments and goes on until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--nodes", type=int, default=3)
    told = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="graft-chaos-"))
    print(f"seed {told.seed}, {told.nodes} nodes in {directory}", flush=True)
    end = time.monotonic() + told.seconds
    rounds = 0
    with Cluster(directory, told.nodes) as cluster:
        chaos = Chaos(cluster.ready(), told.seed)
        while time.monotonic() < end:
            chaos.round()
            rounds += 1
    print(f"seed {told.seed}, {rounds} rounds: {chaos.history}")
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
