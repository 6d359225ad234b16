"""The gRPC service graft.v1.Admin, called with the real grpcio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graft
import grpc
import pytest
from grpc_schema import DEADLINE_SECONDS, Api, Told, balance, deposit, value
from machines import Bank
from nodes import Trio, free_addresses, until


def test_status_and_members(trio: Trio) -> None:
    leader = trio.leader()
    with Api(leader.address) as api:
        status = api.status()
        assert (status.id, status.role, status.leader, status.has_quorum) == (leader.id, "leader", leader.id, True)
        assert len(status.cluster) == 16
        assert status.commit >= status.applied > 0
        members = api.Admin.Members(api.message("MembersRequest"), timeout=DEADLINE_SECONDS)
        assert {member.id: member.address for member in members.members} == trio.members
        assert (members.leader, members.membership_index) == (leader.id, status.membership_index)


def test_leadership_moves(trio: Trio) -> None:
    leader = trio.leader()
    to = next(node for node in trio.running() if node.id != leader.id)
    with Api(to.address) as api:
        api.Admin.TransferLeadership(api.message("TransferLeadershipRequest", to=to.id), timeout=DEADLINE_SECONDS)
        until(lambda: api.status().leader == to.id, f"{to.id} leads")


def test_members_come_and_go(trio: Trio, tmp_path: Path) -> None:
    (address,) = free_addresses(1)
    leader = trio.leader()
    with (
        graft.Node(Bank(), id="n4", address=address, data_dir=tmp_path / "n4", join=[leader.address]) as newcomer,
        Api(leader.address) as api,
    ):
        newcomer.wait_ready(DEADLINE_SECONDS)
        what_if = api.Admin.WhatIf(api.message("Change", remove="n4"), timeout=DEADLINE_SECONDS)
        assert (sorted(what_if.voters), what_if.needed, what_if.refused) == (["n1", "n2", "n3"], 2, "")
        guard = api.status().membership_index
        change = api.message("Change", remove="n4", guard=guard)
        done = api.Admin.ChangeMembership(change, timeout=DEADLINE_SECONDS)
        assert done.index > guard
        assert "n4" in api.status().former
        with pytest.raises(grpc.RpcError) as error:
            api.Admin.ChangeMembership(api.message("Change", remove="n3", guard=guard), timeout=DEADLINE_SECONDS)
        told = Told(error.value)
        assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MEMBERSHIP_REFUSED")


def test_a_change_that_is_none(trio: Trio) -> None:
    with Api(trio.leader().address) as api:
        for change in ({}, {"remove": "no id!"}, {"remove": "n9"}, {"add": {"id": "n4", "address": "x" * 5000}}):
            with pytest.raises(grpc.RpcError) as error:
                api.Admin.ChangeMembership(api.message("Change", **change), timeout=DEADLINE_SECONDS)
            told = Told(error.value)
            assert told.reason in {"INVALID_CALL", "MEMBERSHIP_REFUSED"}
            assert told.metadata["applied"] == "no"


def test_a_snapshot_and_a_comparison(trio: Trio) -> None:
    with Api(trio.leader().address) as api:
        index = api.execute(deposit("ann", 5)).index
        taken = api.Admin.Snapshot(api.message("SnapshotRequest"), timeout=DEADLINE_SECONDS)
        assert taken.index >= index
        compared = api.Admin.Verify(api.message("VerifyRequest"), timeout=DEADLINE_SECONDS)
        digests = {digest.id: digest.bytes for digest in compared.digests}
        assert digests.keys() == trio.members.keys()
        assert len(set(digests.values())) == 1


def test_events(node: graft.Node[Bank]) -> None:
    with Api(node.address) as api:
        events = api.Admin.Events(api.message("EventsRequest", since=0), timeout=60)
        heard: list[Any] = []
        while not any(event.kind == "leader" for event in heard):
            heard += next(events).events
        assert [event.sequence for event in heard] == list(range(1, len(heard) + 1))
        leader = next(event for event in heard if event.kind == "leader")
        assert leader.details["leader"].text in {"", "n1"}
        assert leader.details["term"].number >= 0
        events.cancel()


def test_shutdown_from_afar(trio: Trio) -> None:
    leader = trio.leader()
    with Api(leader.address) as api:
        assert value(api.execute(deposit("ann", 5))) == 5
        watching = api.Admin.Events(api.message("EventsRequest"), timeout=60)
        api.Admin.Shutdown(api.message("ShutdownRequest"), timeout=DEADLINE_SECONDS)
        with pytest.raises(grpc.RpcError) as error:
            for _ in watching:
                pass
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    until(lambda: leader.status().role == "stopped", "it stops")
    other = next(node for node in trio.running() if node.id != leader.id)
    with Api(other.address) as api:
        until(lambda: api.status().leader not in {"", leader.id}, "another one leads")
        assert value(api.query(balance("ann"))) == 5
