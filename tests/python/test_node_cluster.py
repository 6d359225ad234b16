"""Three nodes in one process, with real sockets and disks."""

from __future__ import annotations

import threading
import time

import graft
import pytest
from machines import Bank, Everything, Lines
from nodes import DEADLINE_SECONDS, Trio, free_addresses, until


def test_every_member_takes_commands_and_queries(trio):
    for amount, node in enumerate(trio.nodes.values(), 1):
        node.execute(Bank.deposit, "ann", amount)
    for node in trio.nodes.values():
        assert node.query(Bank.balance, "ann") == 6
    for node in trio.nodes.values():
        until(lambda node=node: node.options(consistency="stale").query(Bank.balance, "ann") == 6, "the replicas agree")


def test_an_exception_reaches_the_caller_on_a_follower_and_the_cluster_stays_writable(trio):
    follower = trio.followers()[0]
    with pytest.raises(graft.ApplyError) as caught:
        follower.execute(Bank.deposit, "ann", -1)
    assert (caught.value.type_name, caught.value.message) == ("ValueError", "amount must be positive")
    assert any("machines.py" in note for note in caught.value.__notes__)
    for node in trio.nodes.values():
        node.execute(Bank.deposit, "ann", 1)
    assert follower.query(Bank.balance, "ann") == 3
    assert all(node.status().error is None for node in trio.nodes.values())


def test_submit_and_execute_many_through_a_follower(trio):
    follower = trio.followers()[0]
    futures = [follower.submit(Bank.deposit, "ann", 1) for _ in range(100)]
    assert sorted(future.result(DEADLINE_SECONDS).value for future in futures) == list(range(1, 101))
    assert sorted(follower.execute_many([(Bank.deposit, "ann", 1)] * 100)) == list(range(101, 201))


def test_the_others_go_on_when_the_leader_stops(trio):
    trio["n1"].execute(Bank.deposit, "ann", 1)
    gone = trio.leader()
    gone.stop()
    for node in trio.running():
        node.wait_ready(DEADLINE_SECONDS)
        node.options(timeout=DEADLINE_SECONDS).execute(Bank.deposit, "ann", 1)
    assert trio.leader() is not gone
    assert trio.leader().query(Bank.balance, "ann") == 3


def test_a_stopped_member_comes_back_with_its_directory_and_catches_up(trio):
    trio["n1"].execute(Bank.deposit, "ann", 1)
    gone = trio.leader().id
    trio.stop(gone)
    remaining = trio.running()[0].wait_ready(DEADLINE_SECONDS)
    remaining.options(timeout=DEADLINE_SECONDS).execute(Bank.deposit, "ann", 1)
    trio.start(gone)
    trio[gone].wait_ready(DEADLINE_SECONDS)
    until(lambda: trio[gone].options(consistency="stale").query(Bank.balance, "ann") == 2, "it has caught up")
    assert trio[gone].query(Bank.balance, "ann") == 2


def test_restarting_all_keeps_everything(tmp_path):
    trio = Trio(tmp_path).start().ready()
    assert trio["n2"].execute_many([(Bank.deposit, "ann", 1)] * 30)[-1] == 30
    trio.stop()
    trio.start().ready()
    try:
        assert [node.query(Bank.balance, "ann") for node in trio.nodes.values()] == [30, 30, 30]
        assert len({node.status().cluster for node in trio.nodes.values()}) == 1
    finally:
        trio.stop()


def test_without_a_majority_it_says_so(trio):
    trio["n1"].execute(Bank.deposit, "ann", 1)
    trio.stop("n2", "n3")
    until(lambda: trio["n1"].status().has_quorum is False or trio["n1"].status().leader is None, "it notices")
    with pytest.raises((graft.NoQuorum, graft.NoLeader, graft.Timeout, graft.UnknownOutcome)):
        trio["n1"].options(timeout="500ms").execute(Bank.deposit, "ann", 1)
    with pytest.raises(graft.GraftError):
        trio["n1"].options(timeout="500ms").query(Bank.balance, "ann")
    assert trio["n1"].options(consistency="stale").query(Bank.balance, "ann") == 1


def test_wait_ready_says_who_is_missing(tmp_path):
    trio = Trio(tmp_path).start("n1")
    try:
        with pytest.raises(graft.Timeout) as caught:
            trio["n1"].wait_ready(timeout="300ms")
        words = str(caught.value)
        assert "node n1 is not ready after 0.3 s: 1 of 3 members reachable (n1); 2 needed" in words
        assert f"n2 at {trio.members['n2']}" in words
        assert f"n3 at {trio.members['n3']}" in words
        assert isinstance(caught.value, TimeoutError)
    finally:
        trio.stop()


def test_status_of_the_others(trio):
    trio["n1"].execute(Bank.deposit, "ann", 1)
    leader = trio.leader()
    until(
        lambda: all(member.lag == 0 for member in leader.status().members if member.id != leader.id), "no member lags"
    )
    status = leader.status()
    assert {member.id: member.address for member in status.members} == trio.members
    assert {member.role for member in status.members} == {"leader", "follower"}
    assert all(member.voter for member in status.members)
    follower = trio.followers()[0].status()
    assert (follower.role, follower.leader, follower.leader_address) == ("follower", leader.id, leader.address)


def test_the_same_luck_on_every_replica(tmp_path):
    class Dice(graft.StateMachine):
        def __init__(self) -> None:
            self.seen: list[object] = []

        @graft.command
        def roll(self) -> None:
            context = self.context
            self.seen.append((context.index, context.term, context.time, context.random.random(), context.uuid()))

    trio = Trio(tmp_path, Dice).start().ready()
    try:
        for node in trio.nodes.values():
            node.execute(Dice.roll)
        first, *others = (node.machine for node in trio.nodes.values())
        until(lambda: all(len(machine.seen) == 3 for machine in (first, *others)), "all have applied")
        assert all(machine.seen == first.seen for machine in others)
        assert len({roll[3] for roll in first.seen}) == 3
        assert sorted(roll[2] for roll in first.seen) == [roll[2] for roll in first.seen]
    finally:
        trio.stop()


def test_a_command_that_blocks_costs_no_election(tmp_path):
    # The gates hold the machines of all three for far longer than an election timeout.
    trio = Trio(tmp_path, Everything, election_timeout="100ms", heartbeat="20ms").start().ready()
    try:
        term = trio.leader().status().term
        future = trio.leader().submit(Everything.wait)
        contact = threading.Event()
        assert not contact.wait(1.0)
        assert {node.status().term for node in trio.nodes.values()} == {term}
        for node in trio.nodes.values():
            node.machine._gate.set()
        assert future.result(DEADLINE_SECONDS).value == 0
    finally:
        trio.stop()


def test_64_writers(trio):
    acknowledged: list[int] = []

    def write(node):
        acknowledged.extend(node.execute(Bank.deposit, "ann", 1) for _ in range(10))

    threads = [threading.Thread(target=write, args=(trio[f"n{n % 3 + 1}"],)) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(acknowledged) == list(range(1, 641))
    assert trio["n2"].query(Bank.balance, "ann") == 640


def test_what_a_longer_election_timeout_promised_binds_after_a_restart_until_it_is_over(tmp_path):
    (address,) = free_addresses(1)

    def run(election_timeout: str, heartbeat: str) -> graft.Node[Lines]:
        node = graft.Node(
            Lines(), id="n1", address=address, data_dir=tmp_path / "n1",
            election_timeout=election_timeout, heartbeat=heartbeat,
        )  # fmt: skip
        return node.start()

    def promised() -> int:
        # docs/wal-format.md has the place.
        return int.from_bytes((tmp_path / "n1" / "identity").read_bytes()[104:112], "little")

    second = 1_000_000_000
    with run("1500ms", "100ms") as node:
        node.wait_ready()
        assert promised() == 1.5 * second
    begun = time.monotonic()
    with run("200ms", "20ms") as node:
        assert promised() == 1.5 * second
        node.wait_ready()
        until(lambda: node.execute(b"more") and promised() < second)
        assert time.monotonic() - begun > 1.5
        assert promised() == 0.2 * second
