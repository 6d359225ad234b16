"""Changing who is in a cluster, with nodes in this process, real sockets and disks."""

from __future__ import annotations

import asyncio
import threading

import graft
import pytest
from machines import Bank
from nodes import DEADLINE_SECONDS, Group, until
from processes import free_ports
from proxies import Proxy

REFUSED_SOON = {"timeout": DEADLINE_SECONDS}


def total(node):
    return node.options(consistency="stale").query(Bank.total)


def writable(node):
    """One more command; any of a moment's trouble is waited out."""
    return node.options(timeout=DEADLINE_SECONDS).execute(Bank.deposit, "ann", 1)


def test_a_cluster_grows_and_then_one_may_fail(group):
    n1 = group.grow("n1", "n2", "n3")
    writable(n1)
    assert {member.id: member.address for member in n1.members} == {id_: group.address(id_) for id_ in group.lines}
    assert all(member.voter and member.target == "voter" for member in n1.members)
    assert {member.role for member in n1.members} == {"leader", "follower"}
    assert len({member.incarnation for member in n1.members} - {None}) == 3
    assert repr(n1.members).splitlines()[0].split() == ["id", "address", "role", "reachable", "lag"]
    assert len(repr(n1.members).splitlines()) == 4
    group.leader().stop()
    survivor = group.running()[0]
    assert writable(survivor) == 2
    group.agree(total, 2)


def test_add_returns_the_member_that_votes(group):
    n1 = group.found("n1")
    n1.execute_many([(Bank.deposit, "ann", 1)] * 100)
    n2 = group.waiting("n2")
    added = n1.members.add("n2", group.address("n2"))
    assert (added.id, added.address, added.voter) == ("n2", group.address("n2"), True)
    n2.wait_ready(DEADLINE_SECONDS)
    assert n1.members["n2"].voter
    until(lambda: total(n2) == 100, "it has everything")
    assert n2.members.version == n1.members.version > 1


def test_a_learner_is_promoted_and_demoted(group):
    n1 = group.grow("n1", "n2", "n3")
    n4 = group.waiting("n4")
    assert not n1.members.add("n4", group.address("n4"), voter=False).voter
    n4.wait_ready(DEADLINE_SECONDS)
    assert n4.status().role == "learner"
    writable(n4)
    until(lambda: total(n4) == 1, "a learner has everything")
    assert n1.members.promote("n4").voter
    until(lambda: n4.status().role == "follower", "it votes")
    assert not n1.members.demote("n4").voter
    until(lambda: n4.status().role == "learner", "it does not vote any more")
    assert group.ids() == {"n1", "n2", "n3", "n4"}


def test_a_leader_may_be_demoted(group):
    group.grow("n1", "n2", "n3")
    leader = group.leader()
    assert not leader.members.demote(leader.id).voter
    until(lambda: leader.status().role == "learner", "it follows as a learner")
    assert group.leader() is not leader
    writable(leader)


def test_a_removed_node_says_so_and_disturbs_nobody(group):
    n1 = group.grow("n1", "n2", "n3")
    gone = group.follower()
    others = {"n1", "n2", "n3"} - {gone.id}
    events = gone.events(timeout=DEADLINE_SECONDS)
    asked = n1 if gone is not n1 else group["n2"]
    assert {member.id for member in asked.members.remove(gone.id)} == others
    until(lambda: gone.status().removed, "it knows")
    assert gone.status().role == "removed"
    assert any(event.kind == "role" and event.data["role"] == "removed" for event in events)
    calls = [
        lambda: gone.execute(Bank.deposit, "ann", 1),
        lambda: gone.query(Bank.total),
        lambda: gone.members.remove("n1"),
        lambda: gone.members.transfer_leadership(),
        lambda: gone.submit(Bank.deposit, "ann", 1).result(DEADLINE_SECONDS),
        lambda: gone.wait_ready(DEADLINE_SECONDS),
        lambda: asyncio.run(gone.aio.execute(Bank.deposit, "ann", 1)),
    ]
    for call in calls:
        with pytest.raises(graft.Removed) as caught:
            call()
        assert "new id" in caught.value.fix
    term = asked.status().term
    quiet = threading.Event()
    assert not quiet.wait(4 * asked.config.election_timeout), "as long as a node that campaigns would take twice over"
    assert asked.status().term == term
    writable(asked)
    with pytest.raises(graft.MembershipRefused, match=gone.id):
        asked.members.add(gone.id, group.address(gone.id), **REFUSED_SOON)


@pytest.mark.parametrize("asked_of", ["itself", "another"])
def test_the_leader_can_be_removed(group, asked_of):
    group.grow("n1", "n2", "n3")
    leader, other = group.leader(), group.follower()
    (leader if asked_of == "itself" else other).members.remove(leader.id)
    until(lambda: leader.status().removed, "the old leader knows")
    assert group.leader() is not leader
    writable(other)
    assert group.ids() == {"n1", "n2", "n3"} - {leader.id}


def test_two_become_one(group):
    n1 = group.grow("n1", "n2")
    n1.members.remove(group.leader().id)
    remaining = until(group.running, "one that stays")[0]
    remaining.wait_ready(DEADLINE_SECONDS)
    writable(remaining)
    assert len(remaining.members) == 1


def test_the_last_voter_stays(group):
    n1 = group.found("n1")
    for call in (lambda: n1.members.remove("n1"), lambda: n1.members.demote("n1"), lambda: n1.stop(leave=True)):
        with pytest.raises(graft.MembershipRefused) as caught:
            call()
        assert caught.value.code == "MEMBERSHIP_REFUSED"
    writable(n1)


def test_stop_and_leave(group):
    n1 = group.grow("n1", "n2", "n3")
    leaver = group.leader()
    leaver.stop(DEADLINE_SECONDS, leave=True)
    assert leaver.status().role == "stopped"
    survivor = n1 if leaver is not n1 else group["n2"]
    survivor.wait_ready(DEADLINE_SECONDS)
    until(lambda: leaver.id not in survivor.members, "it is no member")
    writable(survivor)
    leaver.stop(leave=True)  # once more is fine


def test_a_stop_without_leaving_leaves_nobody_out(group):
    n1 = group.grow("n1", "n2", "n3")
    follower = group.follower()
    follower.stop()
    assert follower.id in (n1 if follower is not n1 else group["n2"]).members


def test_a_dead_member_is_replaced(group):
    n1 = group.grow("n1", "n2", "n3")
    writable(n1)
    group.stop("n3")
    n4 = group.waiting("n4")
    assert n1.members.replace("n3", "n4", group.address("n4")).voter
    n4.wait_ready(DEADLINE_SECONDS)
    assert group.ids() == {"n1", "n2", "n4"}
    group.leader().stop()  # the newcomer's vote counts
    assert writable(n4) == 2


def test_any_set_becomes_any_other(group):
    n1 = group.grow("n1", "n2", "n3")
    writable(n1)
    group.waiting("n4")
    group.waiting("n5")
    after = {id_: group.address(id_) for id_ in ("n3", "n4", "n5")}
    assert {member.id: member.address for member in n1.members.apply(after)} == after
    until(lambda: group["n1"].status().removed and group["n2"].status().removed, "the old ones know")
    group["n5"].wait_ready(DEADLINE_SECONDS)
    assert group.ids() == set(after)
    assert writable(group["n4"]) == 2
    group.agree(total, 2)
    assert group["n3"].members.apply(after), "what is so already is no change"


def test_leadership_goes_where_it_is_sent(group):
    n1 = group.grow("n1", "n2", "n3")
    for to in ("n2", "n3", "n1"):
        assert n1.members.transfer_leadership(to).id == to
        assert group.leader().id == to
        writable(n1)
    chosen = n1.members.transfer_leadership()
    assert chosen.id in ("n2", "n3")
    assert group.leader().id == chosen.id


def test_what_cannot_be_is_refused_with_the_reason(group):
    n1 = group.grow("n1", "n2", "n3")
    n4 = group.waiting("n4")
    n1.members.add("n4", group.address("n4"), voter=False)
    n4.wait_ready(DEADLINE_SECONDS)
    stranger = group.waiting("n5")
    before = n1.members.version
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    refusals = [
        (lambda: n1.members.remove("n9"), "n9"),
        (lambda: n1.members.promote("n9"), "n9"),
        (lambda: n1.members.demote("n9"), "n9"),
        (lambda: n1.members.replace("n9", "n5", stranger.address), "n9"),
        (lambda: n1.members.transfer_leadership("n4"), "n4"),
        (lambda: n1.members.transfer_leadership("n9"), "n9"),
        (lambda: n1.members.add("n6", stranger.address), "n5"),  # somebody else answers there
        (lambda: n1.members.add("n6", nobody), "n6"),
    ]
    for call, words in refusals:
        with pytest.raises(graft.MembershipRefused, match=words):
            call()
    assert n1.members.version == before, "nothing has changed"
    assert n1.members.change is None
    writable(n1)


def test_a_change_that_would_leave_no_majority_is_refused(group):
    n1 = group.grow("n1", "n2", "n3", "n4")
    group.stop("n3")
    until(lambda: group.leader().members["n3"].reachable is False, "the leader notices")
    keep = next(id_ for id_ in ("n1", "n2", "n4") if id_ != group.leader().id)
    after = {id_: group.address(id_) for id_ in ("n3", keep)}
    answer = group.leader().what_if(apply=after)
    assert not answer
    assert (answer.needed, answer.alive) == (2, (keep,))
    with pytest.raises(graft.MembershipRefused):
        n1.members.apply(after)
    assert group.ids() == {"n1", "n2", "n3", "n4"}
    writable(n1)


def test_a_joiner_that_never_starts_leaves_the_one_writable(group):
    n1 = group.found("n1")
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(graft.MembershipRefused, match="n2"):
        n1.members.add("n2", nobody)
    for _ in range(10):
        writable(n1)
    assert [member.id for member in n1.members] == ["n1"]
    assert group.leader() is n1


class Held:
    """A founder, and a newcomer whose log does not come through until it is released."""

    def __init__(self, group: Group) -> None:
        # One batch comes through, and another one does not.
        group.settings |= {"batch_bytes_max": "64KiB"}
        self.n1 = group.found("n1")
        self.n1.execute_many([(Bank.deposit, "x" * 60_000, 1)] * 32)
        near, far = free_ports(2)
        self.proxy = Proxy(near, f"127.0.0.1:{far}", hold_after=256 << 10)
        self.n2 = group.waiting("n2", address=self.proxy.address, bind=f"127.0.0.1:{far}")

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.proxy.close()


def test_a_change_goes_on_without_the_call_that_asked_for_it(group):
    with Held(group) as held:
        n1 = held.n1
        with pytest.raises(graft.Timeout) as caught:
            n1.members.add("n2", held.proxy.address, timeout=2)
        assert "adding n2 is not done after 2 s, and goes on without this call" in str(caught.value)
        assert "members.cancel()" in caught.value.fix
        assert n1.members.change is not None
        assert "under way: " in repr(n1.members)
        assert not n1.members["n2"].voter
        assert n1.members["n2"].target == "voter"
        writable(n1)  # a learner on its way costs no majority
        with pytest.raises(graft.MembershipRefused):
            n1.members.add("n3", f"127.0.0.1:{free_ports(1)[0]}")
        held.proxy.release()
        until(lambda: n1.members["n2"].voter, "the newcomer votes all the same")
        held.n2.wait_ready(DEADLINE_SECONDS)
        assert n1.members.change is None


def test_a_change_is_cancelled(group):
    with Held(group) as held:
        n1 = held.n1
        with pytest.raises(graft.Timeout):
            n1.members.add("n2", held.proxy.address, timeout=2)
        assert [(member.id, member.voter, member.target) for member in n1.members.cancel()] == [
            ("n1", True, "voter"),
            ("n2", False, "learner"),
        ]
        assert n1.members.change is None
        writable(n1)
        assert len(n1.members.cancel()) == 2, "nothing is under way, so nothing changes"
        assert [member.id for member in n1.members.remove("n2")] == ["n1"]
        writable(n1)


def test_to_remove_a_newcomer_is_to_give_its_addition_up(group):
    with Held(group) as held:
        n1 = held.n1
        with pytest.raises(graft.Timeout):
            n1.members.add("n2", held.proxy.address, timeout=2)
        assert [member.id for member in n1.members.remove("n2")] == ["n1"]
        assert n1.members.change is None
        writable(n1)


def test_progress_is_told_and_may_end_the_wait(group):
    with Held(group) as held:
        told: list[graft.Progress] = []

        def enough(step: graft.Progress) -> None:
            told.append(step)
            if step.member == "n2" and step.total:
                raise LookupError("seen enough")

        with pytest.raises(LookupError, match="seen enough"):
            held.n1.members.add("n2", held.proxy.address, progress=enough)
        assert told[0].words == "asked for"
        assert 0 <= (told[-1].fraction or 0) < 1
        assert held.n1.members.change is not None, "the change itself goes on"
        held.proxy.release()
        until(lambda: held.n1.members["n2"].voter, "until it is done")


def test_progress_on_standard_error(group, capsys):
    n1 = group.found("n1")
    group.waiting("n2")
    n1.members.add("n2", group.address("n2"), progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "adding n2: asked for"
    assert lines[-1] == "adding n2: done"
    assert any("n2 votes" in line for line in lines)


def test_a_guard_sees_another_change(group):
    n1 = group.grow("n1", "n2", "n3")
    version = n1.members.version
    n1.members.remove("n3", if_unchanged=version)
    assert n1.members.version > version
    with pytest.raises(graft.MembershipRefused):
        n1.members.remove("n2", if_unchanged=version)
    assert group.ids() == {"n1", "n2"}
    n1.members.remove("n2", if_unchanged=n1.members.version)


def test_any_member_takes_a_change(group):
    n1 = group.grow("n1", "n2", "n3")
    n4 = group.waiting("n4")
    follower = group.follower()
    assert follower.members.add("n4", group.address("n4")).voter
    assert follower.members["n4"].voter, "who asked knows it when the call returns"
    n4.wait_ready(DEADLINE_SECONDS)
    n4.members.remove("n3" if n1.status().role == "leader" else "n1")
    assert len(group.ids()) == 3


def test_the_same_for_await(group):
    group.grow("n1", "n2", "n3")
    group.waiting("n4")
    told: list[graft.Progress] = []

    async def change() -> None:
        members = group["n1"].aio.members
        assert (await members.add("n4", group.address("n4"), voter=False, progress=told.append)).id == "n4"
        assert (await members.promote("n4")).voter
        assert (await members.transfer_leadership("n4")).id == "n4"
        assert {one.id for one in await members.remove("n3")} == {"n1", "n2", "n4"}
        with pytest.raises(graft.MembershipRefused, match="n9"):
            await members.remove("n9")
        assert len(members) == 3
        assert await group["n1"].aio.what_if(remove="n2")
        assert "all is well" in await group["n1"].aio.why()
        await group["n2"].aio.stop(DEADLINE_SECONDS, leave=True)
        assert {one.id for one in members} == {"n1", "n4"}

    asyncio.run(change())
    assert [told[0].words, told[-1].words] == ["asked for", "done"]


def test_what_would_be(group):
    n1 = group.grow("n1", "n2", "n3")
    for node in group.running():
        until(lambda node=node: all(one.reachable is not False for one in node.members), "all are connected")
    for node in group.running():  # followers know as well
        answer = node.what_if(remove="n3")
        assert (answer.allowed, answer.reason, answer.voters, answer.learners) == (True, None, ("n1", "n2"), ())
        assert (answer.needed, answer.alive, answer.tolerates) == (2, ("n1", "n2"), 0)
    assert n1.what_if(promote="n9").reason is not None
    assert n1.what_if(demote="n2").learners == ("n2",)
    assert n1.what_if(add="n4").voters == ("n1", "n2", "n3", "n4")
    assert group.ids() == {"n1", "n2", "n3"}, "asking changes nothing"


def test_why(group):
    n1 = group.grow("n1", "n2", "n3")
    until(lambda: n1.why() == f"all is well: {n1.status().leader} leads, 3 of 3 voters reachable", "all is well")
    group.stop("n2", "n3")
    until(lambda: "all is well" not in n1.why(), "it says what is wrong")
    for missing in ("n2", "n3", "1 of 3 voters"):
        until(lambda missing=missing: missing in n1.why(), f"it says {missing}")
    n1.stop()
    assert n1.why() == "node n1 is stopped"
