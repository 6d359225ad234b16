"""Three real processes under load, killed and paused in every way: nothing that was acknowledged is ever lost."""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path

import pytest
from histories import History
from processes import Cluster

ROUNDS_OF_ALL = 20
ROUNDS_OF_LEADER = 10
FAILOVER_SECONDS_MAX = 5.0


@pytest.mark.timeout(300)
def test_killing_all_three_at_once_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    luck = random.Random(1)
    with Cluster(tmp_path) as cluster:
        history = History(cluster)
        for _ in range(ROUNDS_OF_ALL):
            cluster.ready()
            history.check(all_were_killed=True)
            cluster.load(writers=64)
            history.wait_for(luck.choice((1, 100, 500, 1500, 3000)), "acknowledged writes")
            if luck.random() < 0.3:
                # One is behind the others when all go down, or has what they replaced.
                cluster.kill(luck.choice(cluster.ids))
                history.wait_for(100, "writes of the other two")
            cluster.kill(*cluster.running())
            cluster.start(*cluster.ids)
        cluster.ready()
        history.check(all_were_killed=True)
    with capsys.disabled():
        print(f"\nall killed, {ROUNDS_OF_ALL} rounds: {history}")


@pytest.mark.timeout(300)
def test_killing_the_leader_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failovers: list[float] = []
    luck = random.Random(2)
    with Cluster(tmp_path) as cluster:
        history = History(cluster)
        cluster.ready()
        for number in range(ROUNDS_OF_LEADER):
            # Every other time no call waits for as long as an election takes, so that some are of unknown outcome.
            cluster.load(writers=24, readers=6, pause=0.001, seconds=0.1 if number % 2 else 10.0)
            history.wait_for(luck.choice((100, 500, 1000)), "acknowledged writes")
            leader = cluster.leader()
            killed = time.monotonic_ns()
            cluster.kill(leader)
            failovers.append(history.failover(killed))
            cluster.start(leader)
            cluster.end_load()
            history.check()
    print_failovers(capsys, failovers, history)
    assert history.unknown
    assert max(failovers) < FAILOVER_SECONDS_MAX


def print_failovers(capsys: pytest.CaptureFixture[str], failovers: list[float], history: History) -> None:
    median, most = statistics.median(failovers), max(failovers)
    with capsys.disabled():
        print(f"\nleader killed, {len(failovers)} rounds: failover median {median:.2f} s, max {most:.2f} s; {history}")
