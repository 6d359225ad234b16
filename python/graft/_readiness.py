"""Whether a node is ready, why not, and which end of a node is an error."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from graft._address import named
from graft._errors import Halted, Removed, Stopped, Timeout, of_code

if TYPE_CHECKING:
    from collections.abc import Callable

    from graft._node import Node
    from graft._status import Member, Status


_LOOK_SECONDS = 0.25


def readiness(node: Node[Any]) -> Callable[[float, float], bool]:
    """A question to be asked, with the deadline and the seconds that it was made of, until it says yes, or raises.

    Ready is a node that is in the cluster (and votes, if it is to), knows a leader, and has applied what was committed
    when it first did.
    """
    node._engine("wait_ready")
    target: int | None = None

    def ready(deadline: float, seconds: float) -> bool:
        nonlocal target
        native = node._engine("wait_ready")
        status = node.status()
        refuse_ended(status)
        if status.role == "stopped":
            raise Stopped(f"node {node.id} was stopped over the network")
        if status.leader is not None and status.has_quorum is not False and _has_entered(status):
            if target is None:
                # A leader learns how far its log is committed only with the first entry of its own term.
                target = status.last_index if status.role == "leader" else status.commit_index
            if status.applied_index >= target:
                return True
        if time.monotonic() >= deadline:
            why = why_not_ready(status, node._join, native.view(_LOOK_SECONDS)[1])
            raise Timeout(
                f"node {node.id} is not ready after {seconds:g} s: {why}",
                fix="start the members that are missing, or wait longer",
            )
        return False

    return ready


def refuse_ended(status: Status) -> None:
    """Raises what keeps this node from ever working again: `Removed`, `Halted`, or what its joining was refused
    with."""
    if status.removed:
        raise Removed(f"node {status.id} was removed from the cluster")
    if status.error is None:
        return
    kind = of_code(status.error_code or Halted.code)
    if kind is Halted:
        raise Halted(f"node {status.id} has halted: {status.error}")
    raise kind(f"node {status.id}: {status.error}")


def why_not_ready(status: Status, join: tuple[str, ...], why: list[str]) -> str:
    """In words, what a node that is not ready waits for. `why` is what the engine says."""
    if not _has_entered(status):
        return " ".join([_why_not_in(status, join), *why])
    if status.leader is not None:
        return f"the leader is {status.leader}; {status.applied_index} of {status.commit_index} entries are applied"
    voters = [member for member in status.members if member.voter]
    reachable = [member.id for member in voters if member.reachable or member.id == status.id]
    needed = len(voters) // 2 + 1
    words = f"{len(reachable)} of {len(voters)} members reachable ({', '.join(reachable)}); {needed} needed"
    missing = [_missing(member) for member in voters if member.id not in reachable]
    if len(reachable) < needed:
        return f"{words}; waiting for {', '.join(missing)}"
    return f"{words}; no leader is elected yet in term {status.term}"


def all_is_well(status: Status) -> str:
    """What `why` answers when nothing stands in the way."""
    voters = [member for member in status.members if member.voter]
    reachable = [member for member in voters if member.reachable or member.id == status.id]
    return f"all is well: {status.leader} leads, {len(reachable)} of {len(voters)} voters reachable"


def _has_entered(status: Status) -> bool:
    own = status.own
    return own is not None and (own.voter or own.target != "voter")


def _why_not_in(status: Status, join: tuple[str, ...]) -> str:
    own = status.own
    if own is not None:
        return f"it gets the log, up to index {status.applied_index} so far, and does not vote yet."
    if join:
        return f"it is not a member yet, and asks to be let in at {', '.join(join)}."
    return "it is no member of a cluster yet."


def _missing(member: Member) -> str:
    where = named(member.id, member.address)
    return where if member.trouble is None else f"{where} ({member.trouble})"
