"""`LocalCluster`: real nodes in this process, and what is done to them."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import graft
import graft.tls
import pytest
from graft import _neighbours
from machines import Bank
from nodes import DEADLINE_SECONDS, free_addresses, until

# The machine may be busy, and an election under way.
PATIENT = {"timeout": DEADLINE_SECONDS}


@pytest.fixture
def cluster() -> Iterator[graft.LocalCluster[Bank]]:
    with graft.LocalCluster(Bank, 3, **PATIENT) as made:
        yield made


def total(node: graft.Node[Bank]) -> int:
    return node.machine.accounts.get("ann", 0)


def test_in_an_event_loop_it_says_how_to_make_it():
    async def main() -> int:
        with pytest.raises(RuntimeError, match=r"asyncio\.to_thread\(graft\.LocalCluster"):
            graft.LocalCluster(Bank, 1)
        made = await asyncio.to_thread(graft.LocalCluster, Bank, 1)
        try:
            return await made["n1"].aio.execute(Bank.deposit, "ann", 5)
        finally:
            await asyncio.to_thread(made.close)

    assert asyncio.run(main()) == 5


def test_it_is_ready_when_it_is_made_and_has_every_verb(cluster):
    assert cluster.execute(Bank.deposit, "ann", 5) == 5
    assert cluster.query(Bank.balance, "ann") == 5
    assert cluster.submit(Bank.deposit, "ann", 1).result(DEADLINE_SECONDS).value == 6
    assert cluster.execute_many([(Bank.deposit, "ann", 1), (Bank.deposit, "ann", 1)]) == [7, 8]
    assert cluster.options(consistency="lease").query("balance", "ann") == 8
    assert cluster.proxy.deposit("ann", 2) == 10
    assert [member.id for member in cluster.members] == ["n1", "n2", "n3"]
    assert cluster.status().leader == cluster.leader.id
    assert cluster.why().startswith("all is well")
    assert cluster.verify().agree
    assert next(cluster.events(since=0, timeout=DEADLINE_SECONDS)).sequence == 1
    assert cluster.ids == ("n1", "n2", "n3")
    assert len(cluster) == 3
    assert "n1" in cluster
    assert "n9" not in cluster
    assert [node.id for node in cluster] == ["n1", "n2", "n3"]
    assert {cluster.leader.id, *(node.id for node in cluster.followers)} == {"n1", "n2", "n3"}
    with pytest.raises(KeyError, match="n1, n2, n3"):
        cluster["n9"]
    cluster.wait_converged()
    assert [total(node) for node in cluster] == [10, 10, 10]


def test_a_killed_leader_is_replaced_and_nothing_is_lost(cluster):
    cluster.execute(Bank.deposit, "ann", 5)
    old = cluster.leader
    cluster.kill(old)
    assert cluster.execute(Bank.deposit, "ann", 5) == 10
    assert cluster.leader.id != old.id
    assert old.status().role == "stopped"
    assert old.id not in [node.id for node in cluster.followers]
    new = cluster.restart(old.id)
    assert new is cluster[old.id]
    assert new is not old
    cluster.wait_converged()
    assert total(new) == 10


def test_acknowledged_commands_survive_the_kill_of_every_node(cluster):
    assert cluster.execute_many([(Bank.deposit, "ann", 1)] * 50)[-1] == 50
    for id_ in cluster.ids:
        cluster.kill(id_)
    for id_ in cluster.ids:
        cluster.restart(id_)
    assert cluster.query(Bank.balance, "ann") == 50


def test_a_partitioned_leader_decides_nothing(cluster):
    old = cluster.leader
    others = [node.id for node in cluster.followers]
    with cluster.partition([old], others):
        assert cluster.execute(Bank.deposit, "ann", 5) == 5
        assert cluster.leader.id in others
        with pytest.raises(graft.GraftError) as caught:
            old.options(timeout=0.5).execute(Bank.deposit, "ann", 100)
        assert not isinstance(caught.value, graft.ApplyError)
        assert total(old) == 0
        with pytest.raises(graft.Timeout, match=f"{old.id} "):
            cluster.wait_converged(0.2)
    cluster.wait_converged()
    # What the old leader was told may still be in no log but its own, which is cut back.
    assert {total(node) for node in cluster} <= {5, 105}
    assert len({total(node) for node in cluster}) == 1


def test_a_node_that_no_group_names_is_in_the_rest(cluster):
    leader = cluster.leader
    cluster.partition([leader])
    until(lambda: cluster.leader.id != leader.id, "another leader")
    cluster.heal()
    cluster.wait_converged()


def test_a_way_can_be_cut_in_one_direction(cluster):
    leader, follower = cluster.leader, cluster.followers[0]
    with cluster.cut(leader, follower):
        index = cluster.submit(Bank.deposit, "ann", 1).result(DEADLINE_SECONDS).index
        # It hears nothing, and is heard: it never gets the entry, unless leadership moved away from the cut.
        seen = follower.status()
        assert seen.applied_index < index or cluster.leader.id != leader.id
    cluster.wait_converged()
    assert total(follower) == 1


def test_messages_can_be_late(cluster):
    with cluster.delay(0.05):
        since = time.monotonic()
        cluster.execute(Bank.deposit, "ann", 1)
        assert time.monotonic() - since >= 0.1  # there and back again
    cluster.delay("20ms", cluster.leader)
    cluster.heal()
    cluster.wait_converged()


def test_messages_can_be_lost_and_commands_are_not(cluster):
    with cluster.drop(0.2):
        results = [cluster.execute(Bank.deposit, "ann", 1) for _ in range(20)]
    assert results == list(range(1, 21))
    with cluster.drop(1.0), pytest.raises(graft.GraftError):
        cluster.options(timeout=1).execute(Bank.deposit, "ann", 1)
    cluster.wait_converged()


def test_a_paused_leader_is_replaced_and_follows_when_it_goes_on(cluster):
    old = cluster.leader
    with cluster.pause(old):
        assert cluster.execute(Bank.deposit, "ann", 5) == 5
        assert cluster.leader.id != old.id
        assert total(old) == 0
    cluster.wait_converged()
    assert total(old) == 5
    assert old.status().role == "follower"


def test_a_paused_node_can_be_killed_stopped_and_restarted(cluster):
    one, other, third = cluster.ids
    cluster.pause(one)
    cluster.kill(one)
    cluster.restart(one)
    cluster.pause(other)
    cluster.restart(other)
    cluster.pause(third)
    cluster.resume(third)
    cluster.wait_converged()
    cluster.pause(one)  # and closed like that


def test_a_leader_whose_disk_fails_is_replaced(cluster):
    old = cluster.leader
    cluster.fail_disk(old)
    assert cluster.execute(Bank.deposit, "ann", 5) == 5
    assert cluster.leader.id != old.id
    assert "disk" in (until(lambda: old.status().error, "the error") or "")
    cluster.restart(old.id)
    cluster.wait_converged()
    assert total(cluster[old.id]) == 5


def test_nodes_are_added_and_removed(cluster):
    cluster.execute(Bank.deposit, "ann", 5)
    steps: list[graft.Progress] = []
    node = cluster.add(progress=steps.append)
    assert node.id == "n4"
    assert node.status().own.voter
    assert steps[-1].words == "done"
    cluster.wait_converged()
    assert total(node) == 5
    learner = cluster.add("observer", voter=False)
    assert not learner.status().own.voter
    cluster.kill("observer")
    cluster.restart("observer").wait_ready(DEADLINE_SECONDS)
    cluster.remove("n4")
    assert cluster.ids == ("n1", "n2", "n3", "observer")
    assert cluster.add().id == "n5"  # an id is used once
    with pytest.raises(graft.ConfigError, match="already"):
        cluster.add("n1")
    assert cluster.execute(Bank.deposit, "ann", 5) == 10


def test_a_cluster_of_the_same_name_takes_the_place_of_the_old_one():
    first = graft.LocalCluster(Bank, 1, name="again")
    other = graft.LocalCluster(Bank, 1)
    with graft.LocalCluster(Bank, 1, name="again") as second:
        assert second.execute(Bank.deposit, "ann", 5) == 5
        with pytest.raises(graft.Stopped, match="closed"):
            first.execute(Bank.deposit, "ann", 5)
        with pytest.raises(graft.Stopped):
            first.restart("n1")
        assert "closed" in repr(first)
        assert "leader" in repr(second)
        assert other.execute(Bank.deposit, "ann", 1) == 1
    other.close()


def test_nothing_is_left_of_it():
    with graft.LocalCluster(Bank, 3) as cluster:
        directory = cluster._temporary
        assert (Path(directory) / "n1").is_dir()
        cluster.execute(Bank.deposit, "ann", 5)
    assert not os.path.exists(directory)
    assert all(node.status().role == "stopped" for node in cluster)
    cluster.close()
    with pytest.raises(graft.Stopped):
        cluster.execute(Bank.deposit, "ann", 5)


def test_one_that_is_forgotten_says_so_and_ends():
    cluster = graft.LocalCluster(Bank, 1)
    kept = Path(cluster._temporary)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del cluster
    assert any(issubclass(one.category, ResourceWarning) for one in caught)
    assert not kept.exists()


def test_directories_that_are_given_are_kept(tmp_path):
    with graft.LocalCluster(Bank, 3, data_dir=tmp_path) as cluster:
        cluster.execute(Bank.deposit, "ann", 5)
    assert (tmp_path / "n1").is_dir()


def test_a_function_may_make_the_machines():
    with graft.LocalCluster(lambda: Bank(), 1) as cluster:
        assert cluster.execute(Bank.deposit, "ann", 5) == 5


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda: graft.LocalCluster(Bank(), 3), TypeError, "pass the class Bank"),
        (lambda: graft.LocalCluster(int, 3), TypeError, "subclass"),
        (lambda: graft.LocalCluster(Bank, 0), graft.ConfigError, "above 0"),
        (lambda: graft.LocalCluster(Bank, 99), graft.ConfigError, "more than 15"),
        (lambda: graft.LocalCluster(Bank, 1, hartbeat=1), graft.ConfigError, "heartbeat"),
        (lambda: graft.LocalCluster(Bank, nodez=1), graft.ConfigError, "no argument 'nodez'; did you mean 'nodes'?"),
        (lambda: graft.LocalCluster(Bank, qqq=1), graft.ConfigError, "insecure, log_bytes_max, name, nodes, session"),
        (lambda: graft.LocalCluster(Bank, 1, name="a b"), graft.ConfigError, "name"),
    ],
)
def test_what_cannot_be_is_refused(act, error, words):
    with pytest.raises(error, match=words):
        act()


def test_faults_that_cannot_be_are_refused(cluster):
    for act, words in [
        (lambda: cluster.partition(), "at least one"),
        (lambda: cluster.partition(["n1"], ["n1", "n2"]), "two groups"),
        (lambda: cluster.cut("n1", "n1"), "itself"),
        (lambda: cluster.drop(2), "probability"),
        (lambda: cluster.delay(-1), "above 0"),
        (lambda: cluster.delay(100), "more than"),
    ]:
        with pytest.raises(graft.ConfigError, match=words):
            act()
    with pytest.raises(KeyError, match="n9"):
        cluster.kill("n9")


def test_a_machine_that_cannot_be_replicated_is_named_and_nothing_is_left(tmp_path):
    class Handle(graft.StateMachine):
        def __init__(self) -> None:
            self.handle = object()

        @graft.command
        def go(self) -> int:
            return 1

    with pytest.raises(TypeError, match="handle"):
        graft.LocalCluster(Handle, 3, data_dir=tmp_path)


def test_its_connections_are_secured_and_this_process_gets_in(tmp_path):
    with graft.LocalCluster(Bank, 3) as cluster:
        address = cluster["n1"].address
        with graft.Client([address], Bank) as client:
            assert client.execute(Bank.deposit, "ann", 5) == 5
        stranger = graft.tls.CertificateAuthority.ephemeral("local").client("stranger")
        with (
            graft.Client([address], Bank, tls=stranger, timeout=5) as client,
            pytest.raises(graft.TlsError, match="authority"),
        ):
            client.execute(Bank.deposit, "ann", 5)
        (free,) = free_addresses(1)
        join = [node.address for node in cluster]
        with graft.Node(Bank(), id="n4", address=free, data_dir=tmp_path, join=join) as node:
            node.wait_ready(DEADLINE_SECONDS)
            assert node.query(Bank.balance, "ann") == 5
    with graft.LocalCluster(Bank, 1, insecure=True) as cluster, socket.create_connection(_place(cluster)) as plain:
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        assert plain.recv(9)[3:4] == b"\x04", "its SETTINGS, in plain text"


def test_closing_again_takes_no_address_from_the_next_cluster():
    first = graft.LocalCluster(Bank, 1)
    address = first["n1"].address
    first.close()
    next_ = graft.tls.CertificateAuthority.ephemeral("next")
    _neighbours.announce(address, next_)
    first.close()
    assert _neighbours.of_client([address]) is not None
    _neighbours.leave(next_)
    assert _neighbours.of_client([address]) is None


def _place(cluster):
    host, port = cluster["n1"].address.rsplit(":", 1)
    return host, int(port)


def test_a_load_of_so_many_calls_ends_by_itself_and_tells_how_far_it_is():
    told = []
    with graft.LocalCluster(Bank, 3) as cluster:
        load = cluster.load(
            lambda: cluster.execute(Bank.deposit, "ann", 1), threads=4, number=200, progress=told.append
        )
        load.wait(DEADLINE_SECONDS)
        assert (load.done, load.failed, load.is_running) == (200, 0, False)
        assert cluster.query(Bank.balance, "ann") == 200
        assert (told[0].words, told[-1].words) == ("begins", "done")
        assert told[-1].fraction == 1.0
        assert all(before.done <= after.done for before, after in itertools.pairwise(told))
        with pytest.raises(graft.Timeout, match="goes on"), cluster.load() as endless:
            endless.wait(0.05)
        assert not endless.is_running
        with pytest.raises(TypeError, match="progress"):
            cluster.load(progress="yes")
        # The thread that finds nothing to do ends it no sooner than the one that has the last call.
        slow = cluster.load(lambda: time.sleep(0.3), threads=2, number=1).wait(DEADLINE_SECONDS)
        assert (slow.done, slow.failed) == (1, 0)

        def fails(_: object) -> None:
            raise RuntimeError("as told")

        with pytest.raises(RuntimeError, match="as told"):
            cluster.load(progress=fails)
        assert not any(thread.name.startswith("graft-load") for thread in threading.enumerate())
