"""How a cluster is at one moment, as plain values that go into a recording, a picture, a browser."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from graft._cluster import LocalCluster
from graft._errors import GraftError
from graft._node import Node

if TYPE_CHECKING:
    from collections.abc import Iterable

    from graft._access import Access
    from graft._seat import Seat
    from graft._status import Member, Status

    Row = dict[str, Any]
    Moment = dict[str, Any]

STRIP_ENTRIES = 24
"""Entries of each log that a picture shows."""


def moment_of(access: Access[Any]) -> Moment:
    """How it is now. What is not known is None."""
    try:
        if isinstance(access, LocalCluster):
            return _of_cluster(access)
        if isinstance(access, Node):
            return of_status(access.status(), _strip(access))
        return of_status(access.status())
    except GraftError as error:
        return {**_of_rows([]), "trouble": error.message}


def of_status(status: Status, strip: list[tuple[int, int]] | None = None) -> Moment:
    """How the cluster is, as one member sees it."""
    rows = [_seen(status, member) for member in status.members]
    own = next((row for row in rows if row["id"] == status.id), None)
    if own is None:
        own = {**_nothing(status.id), "address": status.address}
        rows.append(own)
    _fill(own, status)
    own["strip"] = strip
    moment = _of_rows(rows, status)
    links = [[status.id, row["id"], "up" if row["reachable"] else "down"] for row in rows if row is not own]
    return {**moment, "links": links}


def _of_cluster(cluster: LocalCluster[Any]) -> Moment:
    rows: list[Row] = []
    leading = cluster._leader_now()
    statuses = {seat.id: seat.node.status() for seat in cluster._all() if seat.is_live}
    lead = statuses.get(leading.id) if leading is not None else None
    seen = {member.id: member for member in lead.members} if lead is not None else {}
    for seat in cluster._all():
        status, member = statuses.get(seat.id), seen.get(seat.id)
        row = _nothing(seat.id) if lead is None or member is None else _seen(lead, member)
        row["address"] = seat.address
        if status is not None:
            _fill(row, status)
            row["strip"] = _strip(seat.node)
            row["waited"] = _waited(status, cluster.config.election_timeout)
        else:
            row["role"] = _condition(seat)
        row["condition"] = seat.condition
        rows.append(row)
    moment = _of_rows(rows, lead or next(iter(statuses.values()), None))
    return {**moment, "links": _links(cluster, leading, statuses)}


def _links(cluster: LocalCluster[Any], leading: Seat | None, statuses: dict[str, Status]) -> list[list[str]]:
    """From each to each, as far as there is something to see: what the leader reaches, and what is cut."""
    seats = cluster._all()
    links: list[list[str]] = []
    for at, seat in enumerate(seats):
        for other in seats[at + 1 :]:
            cut = [(a, b) in cluster._cuts for a, b in ((seat.id, other.id), (other.id, seat.id))]
            if any(cut):
                links.append([seat.id, other.id, "cut" if all(cut) else "cut one way"])
            elif leading is not None and leading in (seat, other):
                far = other if leading is seat else seat
                links.append([leading.id, far.id, "up" if far.id in statuses else "down"])
    return links


def _of_rows(rows: Iterable[Row], status: Status | None = None) -> Moment:
    rows = list(rows)
    voters = [row for row in rows if row["voter"]]
    alive = sum(1 for row in voters if row["alive"])
    spare = alive - (len(voters) // 2 + 1)
    leader = None if status is None else status.leader
    if leader is None or spare < 0:
        health = "down"
    else:
        health = "healthy" if alive == len(voters) and all(row["alive"] for row in rows) else "degraded"
    return {
        "time": time.time(),
        "health": health,
        "leader": leader,
        "term": 0 if status is None else status.term,
        "commit": 0 if status is None else status.commit_index,
        "spare": spare,
        "change": None if status is None else status.change,
        "nodes": rows,
        "links": [],
        "trouble": None,
    }


def _nothing(id_: str) -> Row:
    return {
        "id": id_,
        "address": "",
        "role": "down",
        "voter": True,
        "alive": False,
        "reachable": None,
        "term": None,
        "last": None,
        "commit": None,
        "applied": None,
        "snapshot": None,
        "match": None,
        "lag": None,
        "contact": None,
        "bytes": None,
        "progress": None,
        "strip": None,
        "waited": None,
        "condition": None,
        "error": None,
    }


def _seen(status: Status, member: Member) -> Row:
    """A member as another one sees it."""
    down = member.reachable is False and member.id != status.id
    return {
        **_nothing(member.id),
        "address": member.address,
        "role": "down" if down else member.role,
        "voter": member.voter,
        "alive": not down,
        "reachable": member.reachable,
        "match": member.match_index,
        "lag": member.lag,
        "contact": member.last_contact,
        "progress": _caught_up(member, status),
    }


def _caught_up(member: Member, status: Status) -> float | None:
    if member.match_index is None or member.target != "voter" or member.voter or not status.last_index:
        return None
    return member.match_index / status.last_index


def _fill(row: Row, status: Status) -> None:
    """What a node says of itself."""
    row["role"] = status.role
    row["alive"] = status.role not in ("failed", "removed", "stopped")
    row["reachable"] = True
    row["term"] = status.term
    row["last"] = status.last_index
    row["commit"] = status.commit_index
    row["applied"] = status.applied_index
    row["snapshot"] = status.snapshot_index
    row["bytes"] = status.log_bytes + (status.snapshot_bytes or 0)
    row["error"] = status.error
    if status.own is not None:
        row["voter"] = status.own.voter
    if status.snapshot_progress is not None:
        row["progress"] = status.snapshot_progress


def _strip(node: Node[Any]) -> list[tuple[int, int]] | None:
    native = node._running
    return None if native is None else native.newest_terms(STRIP_ENTRIES)


def _waited(status: Status, election_timeout: float) -> float | None:
    """How much of the time has passed after which a follower that hears nothing of a leader campaigns."""
    heard = next((one.last_contact for one in status.members if one.id == status.leader), None)
    if status.role == "leader" or heard is None:
        return None
    return min(1.0, heard / (2 * election_timeout))


def _condition(seat: Seat) -> str:
    return "paused" if seat.is_paused else "down"
