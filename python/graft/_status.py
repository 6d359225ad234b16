"""What a node knows of itself and of the others, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member, as seen by the node that was asked."""

    id: str
    address: str
    role: str
    """"leader", "follower", or "learner" for a member that does not vote."""
    voter: bool
    reachable: bool | None
    """Whether it answers this node; None if that is not known yet."""
    match_index: int | None
    """The last index known to be in its log; None unless this node leads."""
    lag: int | None
    """How many entries it is behind this node; None unless this node leads."""
    last_contact: float | None
    """Seconds since this node heard of it; None if it never did."""
    trouble: str | None
    """Why there is no connection to it, and what to do; None if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A node at one moment. Indexes count entries of the log from 1; 0 is none."""

    id: str
    address: str
    role: str
    """"leader", "follower", "candidate", "learner"; "stopped" if it does not run, "failed" after `error`."""
    term: int
    leader: str | None
    """The id of the leader, if this node knows it."""
    leader_address: str | None
    has_quorum: bool | None
    """Whether enough voters answer this node to decide anything; None if that is not known yet."""
    last_index: int
    commit_index: int
    applied_index: int
    snapshot_index: int
    """The last index that the snapshot covers."""
    cluster: str | None
    """The UUID of the cluster; None before its first leader."""
    members: tuple[Member, ...]
    error: str | None
    """Why this replica has stopped, with the traceback; None if it has not."""


def from_native(found: dict[str, Any]) -> Status:
    """The status as the engine tells it."""
    fields = dict(found)
    leader, last_index = fields["leader"], fields["last_index"]
    fields["members"] = tuple(_member(member, leader, last_index) for member in fields["members"])
    return Status(**{name: fields[name] for name in Status.__slots__})


def idle(id_: str, address: str) -> Status:
    """The status of a node that never ran."""
    return Status(
        id=id_,
        address=address,
        role="stopped",
        term=0,
        leader=None,
        leader_address=None,
        has_quorum=None,
        last_index=0,
        commit_index=0,
        applied_index=0,
        snapshot_index=0,
        cluster=None,
        members=(),
        error=None,
    )


def _member(found: dict[str, Any], leader: str | None, last_index: int) -> Member:
    match_index: int | None = found["match_index"]
    role = "leader" if found["id"] == leader else "follower" if found["voter"] else "learner"
    return Member(
        id=found["id"],
        address=found["address"],
        role=role,
        voter=found["voter"],
        reachable=found["reachable"],
        match_index=match_index,
        lag=None if match_index is None else max(0, last_index - match_index),
        last_contact=found["last_contact"],
        trouble=found["trouble"],
    )


def why_not_ready(status: Status) -> str:
    """In words, what a node that is not ready waits for."""
    voters = [member for member in status.members if member.voter]
    reachable = [member.id for member in voters if member.reachable or member.id == status.id]
    needed = len(voters) // 2 + 1
    if status.leader is not None:
        return f"the leader is {status.leader}; {status.applied_index} of {status.commit_index} entries are applied"
    if not voters:
        return "it is no member of a cluster yet"
    words = f"{len(reachable)} of {len(voters)} members reachable ({', '.join(reachable)}); {needed} needed"
    missing = [_missing(member) for member in voters if member.id not in reachable]
    if len(reachable) < needed:
        return f"{words}; waiting for {', '.join(missing)}"
    return f"{words}; no leader is elected yet in term {status.term}"


def _missing(member: Member) -> str:
    where = f"{member.id} at {member.address}"
    return where if member.trouble is None else f"{where} ({member.trouble})"
