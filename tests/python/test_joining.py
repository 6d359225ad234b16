"""Entering a cluster, coming back to it, and everything that must be kept out."""

from __future__ import annotations

import shutil
import threading

import graft
import pytest
from machines import Bank
from nodes import DEADLINE_SECONDS, until
from processes import free_ports


def total(node):
    return node.options(consistency="stale").query(Bank.total)


def writable(node):
    """One more command; any of a moment's trouble is waited out."""
    return node.options(timeout=DEADLINE_SECONDS).execute(Bank.deposit, "ann", 1)


def undisturbed(node, *, seconds=1.5):
    """Holds the leader and its term still for some election timeouts: whoever would disturb it has the time to."""
    before = node.status()
    quiet = threading.Event()
    assert not quiet.wait(seconds)
    after = node.status()
    assert (after.leader, after.term) == (before.leader, before.term)
    assert after.leader is not None


def fresh_address():
    return f"127.0.0.1:{free_ports(1)[0]}"


def test_the_sequence_of_the_seed(group):
    """Start a cluster, add two peers, shut the leader down, restart it without any add: no election, no disturbance, it
    catches up."""
    # Start a cluster.
    n1 = group.found("n1")
    assert n1.execute(Bank.deposit, "ann", 1) == 1
    # Add two peers.
    group.join("n2", "n1")
    group.join("n3", "n1")
    assert {member.id for member in n1.members if member.voter} == {"n1", "n2", "n3"}
    # Shut the leader down.
    leader = group.leader().id
    group.stop(leader)
    survivors = group.running()
    for node in survivors:
        node.wait_ready(DEADLINE_SECONDS)
    for _ in range(50):
        writable(survivors[0])
    before = group.leader().status()
    events = group.leader().events(since=0, timeout=0)
    seen = [event.sequence for event in events][-1]
    # Restart it without any add.
    back = group.start(leader).wait_ready(DEADLINE_SECONDS)
    # No election, no disturbance, it catches up.
    until(lambda: total(back) == 51, "it catches up")
    undisturbed(back)
    assert {node.status().term for node in group.running()} == {before.term}
    assert {node.status().leader for node in group.running()} == {before.leader}
    assert back.status().role == "follower"
    news = list(group.leader().events(since=seen, timeout=0))
    assert not [event for event in news if event.kind in ("leader", "role")], [str(event) for event in news]
    assert not [event for event in news if event.kind == "membership" and event.data["step"] != "address"]
    assert writable(back) == 52


def test_the_same_line_at_every_start(group):
    group.grow("n1", "n2", "n3")
    for round_ in range(1, 4):
        for id_ in ("n1", "n2", "n3"):
            group.stop(id_)
            group.start(id_).wait_ready(DEADLINE_SECONDS)
            until(lambda id_=id_, round_=round_: total(group[id_]) >= 3 * (round_ - 1), "it has what was before")
            writable(group[id_])
    group.agree(total, 9)
    assert group.ids() == {"n1", "n2", "n3"}
    assert len({node.status().cluster for node in group.running()}) == 1
    group.stop()
    group.start("n1", "n2", "n3")
    assert writable(group["n2"]) == 10


def test_any_member_lets_a_joiner_in(group):
    n1 = group.grow("n1", "n2")
    follower = group.follower()
    group.join("n3", follower.id)
    dead = f"127.0.0.1:{free_ports(1)[0]}"
    group.line("n4", join=[dead, follower.address])
    group.start("n4").wait_ready(DEADLINE_SECONDS)
    assert group.ids() == {"n1", "n2", "n3", "n4"}
    assert writable(group["n4"]) == 1
    until(lambda: total(n1) == 1, "everybody has it")


def test_many_join_at_once(group):
    group.found("n1")
    others = [f"n{number}" for number in range(2, 6)]
    for id_ in others:
        group.line(id_, join=group.address("n1"))
    group.start(*others)
    for id_ in others:
        group[id_].wait_ready(DEADLINE_SECONDS)
    until(lambda: all(member.voter for member in group["n1"].members) and len(group["n1"].members) == 5, "all vote")
    writable(group["n5"])


def test_a_joiner_may_come_before_the_cluster(group):
    group.line("n1")
    group.line("n2", join=group.address("n1"))
    n2 = group.start("n2")
    with pytest.raises(graft.Timeout) as caught:
        n2.wait_ready(timeout="500ms")
    assert f"it is not a member yet, and asks to be let in at {group.address('n1')}" in str(caught.value)
    assert n2.status().members == ()
    assert n2.status().address == n2.address == group.address("n2")
    with pytest.raises(graft.GraftError):
        n2.options(timeout="300ms").execute(Bank.deposit, "ann", 1)
    group.start("n1").wait_ready(DEADLINE_SECONDS)
    n2.wait_ready(DEADLINE_SECONDS)
    assert writable(n2) == 1
    assert group.ids() == {"n1", "n2"}


def test_a_joiner_on_a_port_of_the_systems_choice(group):
    n1 = group.found("n1")
    group.line("n2", join=n1.address, address="127.0.0.1:0")
    first = group.start("n2").wait_ready(DEADLINE_SECONDS).address
    assert not first.endswith(":0")
    assert n1.members["n2"].address == first
    group.stop("n2")
    second = group.start("n2").wait_ready(DEADLINE_SECONDS).address
    writable(group["n2"])
    until(lambda: n1.members["n2"].address == second, "its new address is known")
    assert group.ids() == {"n1", "n2"}


def test_a_member_moves(group):
    group.grow("n1", "n2", "n3")
    for moving in ("n3", "n1"):  # one that has joined, and the founder, who tells those that it knows
        group.stop(moving)
        group.lines[moving]["address"] = fresh_address()
        group.start(moving).wait_ready(DEADLINE_SECONDS)
        address = group.address(moving)
        for node in group.running():
            until(lambda node=node, at=address: at in {one.address for one in node.members}, "all know where it is")
        writable(group[moving])


def test_all_move_at_once(group):
    group.grow("n1", "n2", "n3")
    assert writable(group["n1"]) == 1
    group.stop()
    for id_ in group.lines:
        group.lines[id_]["address"] = fresh_address()
    for id_ in ("n2", "n3"):
        group.lines[id_]["join"] = group.address("n1")
    group.start("n1", "n2", "n3")
    for node in group.running():
        node.wait_ready(DEADLINE_SECONDS)
    assert writable(group["n3"]) == 2
    moved = {line["address"] for line in group.lines.values()}
    for node in group.running():
        until(lambda node=node: {member.address for member in node.members} == moved, "all know where all are")


def test_a_wiped_disk_is_recognised_and_replaced(group):
    n1 = group.grow("n1", "n2", "n3")
    for _ in range(10):
        writable(n1)
    group.stop("n3")
    shutil.rmtree(group.directory / "n3")
    wiped = group.start("n3")
    with pytest.raises(graft.IdentityMismatch) as caught:
        wiped.wait_ready(DEADLINE_SECONDS)
    words = f"{caught.value} {caught.value.fix}"
    assert "n3" in words
    assert "new id" in words, "it says how to go on"
    undisturbed(n1)
    assert wiped.status().role not in ("leader", "candidate", "pre-candidate")
    writable(n1)
    group.stop("n3")
    group.waiting("n4")
    n1.members.replace("n3", "n4", group.address("n4"))
    group["n4"].wait_ready(DEADLINE_SECONDS)
    assert group.ids() == {"n1", "n2", "n4"}
    assert writable(group["n4"]) == 12


def test_a_founder_that_was_wiped_is_recognised_too(group):
    n1 = group.found("n1", "n2", "n3")
    writable(n1)
    group.stop("n2")
    shutil.rmtree(group.directory / "n2")
    wiped = group.start("n2")  # the founding line, on an empty disk
    until(lambda: wiped.status().error_code == "IDENTITY_MISMATCH", "it is told")
    with pytest.raises(graft.IdentityMismatch):
        wiped.wait_ready(DEADLINE_SECONDS)
    undisturbed(n1)
    writable(n1)


def test_a_node_of_another_cluster_is_kept_out(group):
    n1 = group.grow("n1", "n2")
    stranger = group.found("x1")
    writable(stranger)
    cluster = stranger.status().cluster
    group.stop("x1")
    group.lines["x1"]["join"] = group.address("n1")
    stranger = group.start("x1")
    with pytest.raises(graft.ClusterMismatch) as caught:
        stranger.wait_ready(DEADLINE_SECONDS)
        # It leads its own cluster, and may be ready before it has met the other one.
        until(lambda: stranger.status().error is not None, "it is told")
        stranger.wait_ready(DEADLINE_SECONDS)
    assert "data_dir" in caught.value.fix
    assert stranger.status().cluster == cluster
    undisturbed(n1)
    assert {member.id for member in n1.members} == {"n1", "n2"}
    writable(n1)


def test_two_founders_never_merge(group):
    one, two = group.found("a1"), group.found("b1")
    for founder in (one, two, two):
        writable(founder)
    for asked, other in ((one, two), (two, one)):
        with pytest.raises(graft.MembershipRefused) as caught:
            asked.members.add(other.id, other.address)
        assert other.id in str(caught.value)
        assert [member.id for member in asked.members] == [asked.id]
    assert (total(one), total(two)) == (1, 2)
    assert one.status().cluster != two.status().cluster


def test_a_removed_node_that_comes_back_is_told(group):
    n1 = group.grow("n1", "n2", "n3")
    group.stop("n3")
    n1.members.remove("n3")
    assert "n3" in n1.status().former
    back = group.start("n3")
    with pytest.raises(graft.Removed):
        back.wait_ready(DEADLINE_SECONDS)
    assert back.status().role == "removed"
    assert "removed" in back.why()
    undisturbed(n1)
    group.stop("n3")
    again = group.start("n3")  # and it still is at every later start
    with pytest.raises(graft.Removed):
        again.wait_ready(DEADLINE_SECONDS)


def test_serve_forever_ends_when_the_node_is_removed(group):
    n1 = group.grow("n1", "n2", "n3")
    ended: list[BaseException | None] = []

    def serve() -> None:
        try:
            group["n3"].serve_forever()
            ended.append(None)
        except graft.GraftError as error:
            ended.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    n1.members.remove("n3")
    thread.join(DEADLINE_SECONDS)
    assert isinstance(ended[0], graft.Removed)
    assert group["n3"].status().role == "stopped"


def test_a_line_that_lists_who_was_replaced_starts_without_a_warning(group):
    group.found("n1", "n2", "n3")
    group.stop("n3")
    group.waiting("n4")
    n1 = group["n1"]
    n1.members.replace("n3", "n4", group.address("n4"))
    group.stop("n2")
    until(lambda: "n3" not in group["n1"].members, "it knows")
    group.start("n2").wait_ready(DEADLINE_SECONDS)  # warnings are errors here
    assert {member.id for member in group["n2"].members} == {"n1", "n2", "n4"}
