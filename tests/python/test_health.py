"""Whether all is well, from a node, a client and a whole cluster, and what to do about what is not."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import graft
import pytest
from machines import Bank
from nodes import DEADLINE_SECONDS, free_addresses, until


def test_a_cluster_with_one_down_names_it_and_what_to_do(tmp_path) -> None:
    with graft.LocalCluster(Bank, 3, data_dir=tmp_path) as cluster:
        until(cluster.health, "all is well")
        assert str(cluster.health()) == "healthy"
        assert cluster.health()._repr_mimebundle_() == {"text/plain": "healthy"}
        assert cluster["n1"].health().healthy
        down = cluster.followers[0].id
        cluster.kill(down)
        until(lambda: not cluster.leader.health(), "one is missed")
        found = cluster.leader.health()
        (trouble,) = found.troubles
        assert trouble.what.startswith(f"{down} at ")
        assert "is not reachable" in trouble.what
        assert f"graft member replace {down}" in trouble.fix
        assert str(found) == f"{trouble.what}. {trouble.fix}"
        assert asyncio.run(cluster.leader.aio.health()) == cluster.leader.health()
        other = next(node.id for node in cluster.followers if node.id != down)
        cluster.kill(other)
        (left,) = (cluster[id_] for id_ in ("n1", "n2", "n3") if id_ not in (down, other))
        words = until(lambda: str(health) if len((health := left.health()).troubles) == 3 else None)
        assert words.startswith(("nobody leads", "no majority answers the leader"))


def test_one_whose_disk_failed_while_it_led_says_so_itself() -> None:
    with graft.LocalCluster(Bank, 3) as cluster:
        cluster.execute(Bank.deposit, "ann", 1)
        former = cluster.leader.id
        cluster.fail_disk(former)
        with contextlib.suppress(graft.GraftError):  # it is in the write of this one
            cluster.execute(Bank.deposit, "ann", 1)
        until(lambda: cluster.leader.id != former, "another one leads")

        def told() -> str | None:
            words = str(cluster.leader.health())
            return words if "does not work" in words else None

        words = until(told, "the leader knows")
        assert words.startswith(f"{former} at ")
        assert "does not work: log: the disk fails" in words
        assert "has not answered" not in words
        assert f"{former} at " in cluster.leader.why()


def test_what_does_not_run_is_not_well() -> None:
    node = graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=None)
    health = node.health()
    assert not health
    assert "not started" in health.troubles[0].what


def test_a_cluster_that_does_not_answer_is_not_well() -> None:
    (nowhere,) = free_addresses(1)
    with graft.Client([nowhere], Bank, timeout=0.2) as client:
        health = client.health()
        assert nowhere in str(health)
        assert health.troubles[0].fix

    async def ask() -> graft.Health:
        async with graft.AsyncClient([nowhere], Bank, timeout=0.2) as client:
            return await client.health()

    assert not asyncio.run(ask())


def test_one_whose_machine_is_stuck_says_so() -> None:
    go_on = threading.Event()

    class Stuck(graft.StateMachine):
        @graft.command
        def wait(self) -> None:
            go_on.wait(DEADLINE_SECONDS)

    with graft.Node(Stuck(), id="n1", address="127.0.0.1:0", data_dir=None) as node:
        node.wait_ready(DEADLINE_SECONDS)
        answer = node.submit(Stuck.wait)
        words = until(lambda: str(health) if not (health := node.health()) else None, "it is told")
        assert "n1 does not get on: its machine does not get done with what it is at" in words
        assert "it is at the command at index" in node.why()
        assert node.status().trouble
        go_on.set()
        answer.result(DEADLINE_SECONDS)
        assert node.health().healthy
        assert node.status().trouble is None


def test_one_whose_machine_is_stuck_in_a_query_does_not_blame_a_command() -> None:
    go_on = threading.Event()

    class Stuck(graft.StateMachine):
        @graft.query
        def wait(self) -> None:
            go_on.wait(DEADLINE_SECONDS)

        @graft.command
        def nothing(self) -> None: ...

    with graft.Node(Stuck(), id="n1", address="127.0.0.1:0", data_dir=None) as node:
        node.wait_ready(DEADLINE_SECONDS)
        asked, answer = node.submit(Stuck.wait), node.submit(Stuck.nothing)
        words = until(lambda: str(health) if not (health := node.health()) else None, "it is told")
        why = node.why()
        go_on.set()
        assert "stuck in a command" not in words
        assert "or at a query or a snapshot before it" in why
        assert answer.result(DEADLINE_SECONDS).value is asked.result(DEADLINE_SECONDS).value is None


def test_one_that_halted_says_so() -> None:
    class Bad(graft.StateMachine):
        @graft.command
        def halt(self) -> None:
            raise graft.Halt("this machine's own trouble")

    with graft.Node(Bad(), id="n1", address="127.0.0.1:0", data_dir=None) as node:
        node.wait_ready()
        with pytest.raises(graft.GraftError):
            node.execute(Bad.halt)
        until(lambda: not node.health(), "it halts")
        assert "this machine's own trouble" in node.health().troubles[0].what
