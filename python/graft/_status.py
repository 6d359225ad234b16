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
    target: str
    """What it is to become: "voter", "learner" or "gone". Differs from what it is while a change is under way."""
    incarnation: str | None
    """Names its data directory, which it keeps for life; None if that is not known yet."""
    installing: bool
    """Whether it is taking in a snapshot; only the leader tells."""
    reachable: bool | None
    """Whether it answers this node; None if that is not known yet."""
    match_index: int | None
    """The last index known to be in its log; None unless this node leads."""
    lag: int | None
    """How many entries it is behind this node; None unless this node leads."""
    last_contact: float | None
    """Seconds since this node heard of it: a leader tells of the others, and these tell of the leader; else None."""
    trouble: str | None
    """The first of these that is known: why there is no connection to it, and what to do; why it does not work, if it
    told this leader; that its state differs, if the last `verify()` of this member found that. `health()` has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A node at one moment. Indexes count entries of the log from 1; 0 is none."""

    id: str
    address: str
    role: str
    """"leader", "follower", "learner"; "pre-candidate" and "candidate" ask for votes; "removed" if it is no member any
    more, "stopped" if it does not run, "failed" after `error`."""
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
    snapshot_bytes: int | None
    """Bytes of the newest snapshot on disk; None without one."""
    snapshot_phase: str | None
    """What goes on with a snapshot here: "writing", "fetching" or "applying"; None if nothing does."""
    snapshot_progress: float | None
    """How much of that is done, from 0 to 1; None if it is not known."""
    snapshot_error: str | None
    """Why the last attempt to take a snapshot failed; None once one succeeds. The node goes on all the same."""
    certificate_expires: int | None
    """Until when the node's certificate is good, in seconds since the epoch; None without TLS. From a third of its life
    on `health()` tells that it is to be renewed."""
    log_bytes: int
    """Bytes of log in memory: commands are refused with `Busy` at `Config.log_bytes_max`."""
    membership_index: int
    """Where in the log the last change of the membership stands; goes with `if_unchanged=`."""
    cluster: str | None
    """The UUID of the cluster; None before its first leader."""
    members: tuple[Member, ...]
    former: tuple[str, ...]
    """The ids of those who were members and are not any more; an id is never used again."""
    change: str | None
    """The change of the membership that is under way, in words; None if there is none."""
    removed: bool
    """Whether this node was a member and is not any more."""
    error: str | None
    """Why this replica has stopped, with the traceback; None if it has not."""
    error_code: str | None
    """The `code` of the `GraftError` that tells of `error`; None without one."""
    trouble: str | None
    """What keeps this node from its work for now: a full or hanging disk, a machine stuck in a command or a query, a
    full log. It goes on by itself when that ends; None if nothing does."""

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:  # noqa: ARG002
        from graft._display import of_status

        return of_status(self)

    @property
    def own(self) -> Member | None:
        """The member that this node is; None if it is none."""
        return next((member for member in self.members if member.id == self.id), None)


def from_native(found: dict[str, Any], address: str) -> Status:
    """The status as the engine of the node at this address tells it."""
    fields: dict[str, Any] = {"former": (), **found, "address": address}
    leader, last_index = fields["leader"], fields["last_index"]
    fields["former"] = tuple(fields["former"])
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
        snapshot_bytes=None,
        snapshot_phase=None,
        snapshot_progress=None,
        snapshot_error=None,
        certificate_expires=None,
        log_bytes=0,
        membership_index=0,
        cluster=None,
        members=(),
        former=(),
        change=None,
        removed=False,
        error=None,
        error_code=None,
        trouble=None,
    )


def _member(found: dict[str, Any], leader: str | None, last_index: int) -> Member:
    match_index: int | None = found["match_index"]
    role = "leader" if found["id"] == leader else "follower" if found["voter"] else "learner"
    return Member(
        id=found["id"],
        address=found["address"],
        role=role,
        voter=found["voter"],
        target=found["target"],
        incarnation=found["incarnation"],
        installing=found["installing"],
        reachable=found["reachable"],
        match_index=match_index,
        lag=None if match_index is None else max(0, last_index - match_index),
        last_contact=found["last_contact"],
        trouble=found["trouble"],
    )
