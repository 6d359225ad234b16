"""Comparing the members' states."""

from __future__ import annotations

import asyncio
import itertools

import graft
import pytest
from graft._verification import verification
from machines import Bank
from nodes import Trio, until

NUMBERS = itertools.count()


class Drifting(graft.StateMachine):
    """A machine that is not deterministic."""

    def __init__(self) -> None:
        self.value = 0

    @graft.command
    def drift(self) -> int:
        self.value = next(NUMBERS)
        return self.value

    @graft.command
    def agree(self) -> None:
        self.value = 0


class Mute(graft.StateMachine):
    """Has no digest."""

    @graft.command
    def go(self) -> None: ...

    def digest(self) -> bytes:
        raise ValueError("cannot tell")


def compare(digests, members=()):
    class Status:
        pass

    status = Status()
    status.members = [graft_member(id_) for id_ in members]
    return verification(digests, 9, status)


def graft_member(id_):
    class One:
        id = id_

    return One


def test_all_agree():
    found = compare({"n1": b"\x01" * 32, "n2": b"\x01" * 32}, ["n1", "n2"])
    assert found.agree
    assert found
    assert (found.index, found.differing, found.missing) == (9, (), ())
    assert str(found).splitlines() == ["index 9: all agree", "  n1  0101010101010101", "  n2  0101010101010101"]
    assert found._repr_mimebundle_() == {"text/plain": str(found)}


def test_one_differs():
    found = compare({"n3": b"b", "n1": b"a", "n2": b"a"}, ["n1", "n2", "n3"])
    assert not found.agree
    assert not found
    assert found.differing == ("n3",)
    assert str(found).splitlines() == ["index 9: n3 differs", "  n1  61", "  n2  61", "  n3  62  differs"]


def test_without_a_majority_all_differ():
    assert compare({"n1": b"a", "n2": b"b"}).differing == ("n1", "n2")
    assert compare({"n1": b"a", "n2": b"a", "n3": b"b", "n4": b"b"}).differing == ("n1", "n2", "n3", "n4")


def test_who_is_missing_and_who_cannot_tell():
    found = compare({"n1": b"a", "n2": "Traceback\nValueError: no"}, ["n1", "n2", "n3"])
    assert (found.missing, dict(found.failed), found.agree) == (("n3",), {"n2": "Traceback\nValueError: no"}, False)
    assert str(found).splitlines() == [
        "index 9: n2 cannot tell",
        "  n1  61",
        "  n2  no digest: ValueError: no",
        "  n3  did not answer in time",
    ]
    assert compare({"n1": b"a"}, ["n1", "n2"]).agree
    assert str(compare({"n1": b"a"}, ["n1", "n2"])).startswith("index 9: all that answered agree")


def test_nobody_answered_is_no_agreement():
    assert not compare({}, ["n1"]).agree


def test_replicas_agree(trio):
    for number, node in enumerate(trio.nodes.values()):
        node.execute(Bank.deposit, "ann", number + 1)
    for node in trio.nodes.values():
        found = node.verify()
        assert found.agree, str(found)
        assert set(found.digests) == {"n1", "n2", "n3"}
        assert found.index > 0
    assert asyncio.run(trio["n1"].aio.verify()).agree


def test_a_machine_that_is_not_deterministic_is_found_out(tmp_path):
    trio = Trio(tmp_path, Drifting).start().ready()
    try:
        trio["n1"].execute(Drifting.drift)
        found = trio["n2"].verify()
        assert not found.agree
        assert found.differing == ("n1", "n2", "n3")
        health = trio["n2"].health()
        assert [trouble.what.split(" ")[0] for trouble in health.troubles] == ["n1", "n2", "n3"]
        assert f"its state differs from others', and none is that of most, as of entry {found.index}" in str(health)
        assert "not deterministic" in health.troubles[1].fix
        assert "n2 at " in trio["n2"].why()
        assert trio["n1"].health(), "it was not asked"
        trio["n3"].execute(Drifting.agree)
        assert trio["n2"].verify().agree
        assert trio["n2"].health()
    finally:
        trio.stop()


def test_a_member_that_is_down_is_missing(trio):
    down = trio.followers()[0]
    down.stop()
    leader = until(trio.leader)
    found = leader.verify(timeout="1s")
    assert found.agree
    assert found.missing == (down.id,)


def test_why_there_is_no_digest(tmp_path):
    with graft.Node(Mute(), id="n1", address="127.0.0.1:0", data_dir=tmp_path) as node:
        found = node.wait_ready().verify()
    assert not found.agree
    assert "cannot tell" in found.failed["n1"]


def test_a_node_that_does_not_run():
    with pytest.raises(graft.Stopped):
        graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=None).verify()
