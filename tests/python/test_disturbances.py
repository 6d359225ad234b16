"""Three real processes: what must not cost an election, and what a leader that slept through one may not do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from histories import History
from processes import Cluster, ProcessError, until

# So long that a busy machine, which may run other things beside these tests, costs no election by itself.
CALM = {"election_timeout": "1s", "heartbeat": "100ms"}
# Longer than the longest time after which a follower of these clusters campaigns, which is twice the election timeout.
LONG_SECONDS = 3


def reign(cluster: Cluster, *among: str) -> tuple[str, int]:
    """Who leads, and in which term."""
    leader = cluster.leader(*among)
    return leader, cluster[leader].status()["term"]


def hold(cluster: Cluster, seconds: float, claim: Callable[[], None]) -> None:
    """Makes the claim again and again for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        claim()
        time.sleep(0.05)


def caught_up(cluster: Cluster, id_: str) -> bool:
    """Whether this node has applied all that its leader had committed a moment ago."""
    status = cluster[id_].status()
    leader = status["leader"]
    return leader in cluster.running() and status["applied_index"] >= cluster[leader].status()["commit_index"] - 500


def test_a_restarted_leader_disturbs_nobody(tmp_path: Path) -> None:
    with Cluster(tmp_path, **CALM) as cluster:
        history = History(cluster)
        first, _ = reign(cluster.ready())
        cluster.load(writers=8, readers=2, pause=0.002)
        history.wait_for(200, "writes")
        cluster.kill(first)
        others = [id_ for id_ in cluster.ids if id_ != first]
        leader = until(
            lambda: next((id_ for id_ in others if cluster[id_].status()["role"] == "leader"), None), "a leader"
        )
        now = reign(cluster, *others)
        assert now[0] == leader
        before = len(history.update().acknowledged)
        cluster.start(first)

        def undisturbed() -> None:
            for id_, status in cluster.statuses(*others).items():
                assert (status["leader"], status["term"]) == now, f"{id_}, after {first} came back: {status}"
            status = cluster[first].status()
            assert status["role"] == "follower", status
            assert status["leader"] in (None, leader), status

        until(lambda: undisturbed() or caught_up(cluster, first), "the restarted node has what the others have")
        hold(cluster, LONG_SECONDS, undisturbed)
        cluster.end_load()
        assert len(history.update().acknowledged) > before
        assert reign(cluster) == now
        history.check()


def test_a_leader_that_slept_steps_down_and_serves_nothing_stale(tmp_path: Path) -> None:
    with Cluster(tmp_path, **CALM) as cluster:
        history = History(cluster)
        first, term = reign(cluster.ready())
        others = [id_ for id_ in cluster.ids if id_ != first]
        cluster.load(writers=12, readers=6, pause=0.002)
        history.wait_for(200, "writes")
        cluster[first].pause()
        stopped = time.monotonic()
        now = until(lambda: next((r for r in [reign(cluster, *others)] if r[0] != first), None), "another leader")
        assert now[1] > term
        history.wait_for(200, "writes without the sleeper")
        until(lambda: time.monotonic() > stopped + LONG_SECONDS, "it has slept for long")

        # These lie before the sleeper when it wakes, in the belief that it leads.
        questions = [
            cluster[first].send("query", name="count", args=[], seconds=10, consistency="linearizable")
            for _ in range(50)
        ]
        wishes = [cluster[first].send("execute", name="append", args=[f"x.{n}"], seconds=10) for n in range(10)]
        due = len(history.update().acknowledged)
        cluster[first].resume()
        for question in questions:
            assert question.value() >= due
        for wish in wishes:
            wish.value()
        assert reign(cluster) == now, "the sleeper follows, and nobody was disturbed"
        cluster.end_load()
        history.update().sent.update({f"x.{n}": 0 for n in range(10)})
        history.check()


def test_a_leader_alone_promises_nothing(tmp_path: Path) -> None:
    with Cluster(tmp_path, **CALM) as cluster:
        history = History(cluster)
        leader, term = reign(cluster.ready())
        others = [id_ for id_ in cluster.ids if id_ != leader]
        cluster.load(writers=12, readers=6, seconds=0.3)
        history.wait_for(200, "writes")
        for id_ in others:
            cluster[id_].pause()
        alone = time.monotonic_ns()
        until(lambda: cluster[leader].status()["leader"] is None, "it notices that it is alone")
        for verb, name, args in (("execute", "append", ["x.1"]), ("query", "count", [])):
            with pytest.raises(ProcessError) as caught:
                getattr(cluster[leader], verb)(name, *args, seconds=0.5)
            assert caught.value.code in ("NO_QUORUM", "NO_LEADER", "TIMEOUT"), caught.value
        history.update().sent["x.1"] = time.monotonic_ns()
        history.refused["x.1"] = "NO_QUORUM"
        assert cluster[leader].query("count", consistency="stale") > 0
        cluster.kill(leader)
        freed = time.monotonic_ns()
        for id_ in others:
            cluster[id_].resume()
        assert reign(cluster, *others)[1] > term
        history.wait_for(200, "writes of the others")
        cluster.end_load()
        history.update()
        promised = [noted for noted in history.acknowledged.values() if alone < noted.sent and noted.time < freed]
        assert not promised, "acknowledged by one of three"
        assert set(history.refused.values()) <= {"NO_QUORUM", "NO_LEADER", "TIMEOUT"}
        assert len(history.refused) > 1, "its writers were told as well"
        served = [read for read in history.reads if alone < read.start and read.end < freed]
        assert not served, "no majority confirmed that it still led"
        cluster.start(leader).ready()
        history.check()


def test_a_command_that_raises_leaves_the_cluster_writable(tmp_path: Path) -> None:
    with Cluster(tmp_path, **CALM) as cluster:
        now = reign(cluster.ready())
        for id_ in cluster.ids:
            with pytest.raises(ProcessError, match="no such luck") as raised:
                cluster[id_].execute("refuse", "no such luck")
            words = raised.value.words
            assert (words["type"], words["code"], words["type_name"]) == ("ApplyError", "APPLY", "ValueError")
            index, position = cluster[id_].execute("append", f"after.{id_}")
            assert index > words["index"] > 0
            assert position == cluster[id_].query("count")
        assert reign(cluster) == now
        assert all(status["error"] is None for status in cluster.statuses().values())
        cluster.converged()
        assert len({tuple(cluster[id_].query("summary", consistency="stale")) for id_ in cluster.ids}) == 1


@pytest.mark.parametrize("how", ["sleep", "spin", "hold_interpreter"])
def test_a_long_command_costs_no_election(tmp_path: Path, how: str) -> None:
    with Cluster(tmp_path, **CALM) as cluster:
        now = reign(cluster.ready())
        # On every replica at about the same time.
        began = time.monotonic()
        long = cluster[now[0]].send("execute", name=how, args=[LONG_SECONDS], seconds=DEADLINE)
        behind = [cluster[id_].send("execute", name="append", args=[id_], seconds=DEADLINE) for id_ in cluster.ids]
        long.value()
        assert time.monotonic() - began >= LONG_SECONDS
        assert sorted(answer.value()[1] for answer in behind) == [1, 2, 3]
        cluster.converged()
        assert reign(cluster) == now


DEADLINE = 25
