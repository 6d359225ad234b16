"""The members of a cluster: who they are, and changing that."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from graft import _changes, _progress, _units
from graft._errors import GraftError, MembershipRefused, Timeout, UnknownOutcome
from graft._status import Member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from graft._access import Access
    from graft._changes import Change
    from graft._progress import Report
    from graft._status import Status
    from graft._units import Duration

    Condition = Callable[[Status], bool]

CHANGE_SECONDS = 60.0
TRANSFER_SECONDS = 10.0
_POLL_SECONDS_MAX = 0.05


class Roster:
    """The members as a node or a client knows them: what `Members` and `AsyncMembers` have in common."""

    def __init__(self, access: Access[Any]) -> None:
        self._access = access

    def __iter__(self) -> Iterator[Member]:
        """All members, voters and learners, in the order of their ids."""
        return iter(self._access.status().members)

    def __len__(self) -> int:
        return len(self._access.status().members)

    def __getitem__(self, id: str) -> Member:  # noqa: A002 - the word of the product
        """The member of this id. Raises `KeyError` if there is none."""
        return found_in(self._access.status(), id)

    def __contains__(self, member: object) -> bool:
        """Whether there is a member of this id."""
        id_ = getattr(member, "id", member)
        return any(one.id == id_ for one in self)

    @property
    def version(self) -> int:
        """Stands for the membership as it is now: the index in the log of its last change. `if_unchanged=` takes it."""
        return self._access.status().membership_index

    @property
    def change(self) -> str | None:
        """The change that is under way, in words; None if there is none."""
        return self._access.status().change

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:  # noqa: ARG002
        from graft._display import of_members

        return of_members(self)

    def __repr__(self) -> str:
        try:
            return table(self._access.status())
        except (GraftError, RuntimeError) as error:  # a client that reaches nobody, or in an event loop
            return f"<members of {self._access!r}: {error}>"


class Members(Roster):
    """The members of the cluster as this node knows them, and all that changes them.

    ```python
    node.members.add("n4", "10.0.0.4:7001")  # gets the log first, and votes when it has it
    node.members.replace("n1", "n5", "10.0.0.5:7001")
    print(node.members)
    ```

    Any node takes any change and passes it to the leader. A change returns when it is committed, after which it cannot
    be lost; there is one at a time. A change that was begun is finished by whoever leads then: a call that raises
    `Timeout` only stops waiting for it.

    All take `timeout` (default 60 s), and `progress`: a function that is given a `Progress` for each step, or True
    for a bar, below the cell in a notebook, else on standard error. With `if_unchanged=members.version` a change is
    refused if another one came first.

    Raises `MembershipRefused` with the reason if a change cannot be made; `ConfigError` for what is wrong in itself.
    """

    def add(
        self,
        id: str,  # noqa: A002 - the word of the product
        address: str,
        *,
        voter: bool = True,
        timeout: Duration = CHANGE_SECONDS,
        progress: Report = None,
        if_unchanged: int | None = None,
    ) -> Member:
        """Adds a node, which is running already, with `join=`: it gets the log first, and votes once it has it, so it
        never costs the majority. With `voter=False` it stays a learner. Returns the new member.

        An id is used once: one that was removed never comes back.
        """
        return self._member(_changes.addition(id, address, voter=voter), timeout, progress, if_unchanged)

    def remove(
        self,
        id: str,  # noqa: A002
        *,
        timeout: Duration = CHANGE_SECONDS,
        progress: Report = None,
        if_unchanged: int | None = None,
    ) -> tuple[Member, ...]:
        """Removes a member, this one or the leader included. Returns those that stay. The removed node knows it: its
        role is "removed" and its calls raise `Removed`; its id never comes back. To remove one that is being added is
        to give that up."""
        return self._all(_changes.removal(id), timeout, progress, if_unchanged)

    def promote(
        self,
        id: str,  # noqa: A002
        *,
        timeout: Duration = CHANGE_SECONDS,
        progress: Report = None,
        if_unchanged: int | None = None,
    ) -> Member:
        """Lets a learner vote, once it has caught up. Returns it."""
        return self._member(_changes.promotion(id), timeout, progress, if_unchanged)

    def demote(
        self,
        id: str,  # noqa: A002
        *,
        timeout: Duration = CHANGE_SECONDS,
        progress: Report = None,
        if_unchanged: int | None = None,
    ) -> Member:
        """Makes a voter a learner, which has everything and decides nothing. Returns it."""
        return self._member(_changes.demotion(id), timeout, progress, if_unchanged)

    def replace(
        self,
        old: str,
        new: str,
        address: str,
        *,
        timeout: Duration = CHANGE_SECONDS,
        progress: Report = None,
        if_unchanged: int | None = None,
    ) -> Member:
        """Puts a new node, which is running already, into the place of a member, which may be dead: the new one gets
        the log first, then both votes change in one step. Returns the new member."""
        return self._member(_changes.replacement(old, new, address), timeout, progress, if_unchanged)

    def apply(
        self,
        members: Mapping[str, str],
        *,
        timeout: Duration = CHANGE_SECONDS,
        progress: Report = None,
        if_unchanged: int | None = None,
    ) -> tuple[Member, ...]:
        """Makes these `{id: address}` the voters, and the only members, whoever they are now: who is new gets the log
        first, then all votes change in one step. Returns the members."""
        return self._all(_changes.application(members), timeout, progress, if_unchanged)

    def cancel(self, *, timeout: Duration = CHANGE_SECONDS) -> tuple[Member, ...]:
        """Gives up the change that is under way: everybody stays what he is, so who was to vote and does not yet stays
        a learner, to be promoted or removed. Refused where the old and the new voters decide together already, for then
        it ends by itself. Returns the members."""
        return self._all(_changes.cancellation(), timeout, None, None)

    def transfer_leadership(self, to: str | None = None, *, timeout: Duration = TRANSFER_SECONDS) -> Member:
        """Hands leadership over, to this voter or to the best one. Returns the new leader. Commands wait meanwhile, for
        about as long as one takes. If it does not succeed the leader goes on leading, and this raises."""
        change = _changes.transfer(to)
        before = self._access.status().term
        seconds, deadline = limit(timeout)
        self._changed(change, seconds, None, None)
        self._until(lambda status: leads(status, to, before), change, deadline)
        return leader_of(self._access.status())

    def _member(self, change: Change, timeout: Duration, progress: Report, if_unchanged: int | None) -> Member:
        seconds, deadline = limit(timeout)
        index = self._changed(change, seconds, progress, if_unchanged)
        self._until(lambda status: knows(status, index), change, deadline)
        return result(change, self._access.status())

    def _all(self, change: Change, timeout: Duration, progress: Report, if_unchanged: int | None) -> tuple[Member, ...]:
        seconds, deadline = limit(timeout)
        index = self._changed(change, seconds, progress, if_unchanged)
        self._until(lambda status: knows(status, index), change, deadline)
        return self._access.status().members

    def _changed(self, change: Change, seconds: float, progress: Report, if_unchanged: int | None) -> int:
        body = change.guarded(if_unchanged)
        tell = _progress.checked(progress)
        verb = f"members.{change.verb}"
        native = self._access._engine(verb)
        self._access._refuse_to_block(verb)
        watcher = None if tell is None else _progress.Watcher(change, native, tell)

        def look() -> None:
            if watcher is not None and watcher.wants():
                watcher.look(self._access._last_status())

        try:
            index = native.change(body, seconds, None if watcher is None else look)
        except (Timeout, UnknownOutcome) as error:
            index = _changes.done_or_unfinished(change, error, self._access._last_status(), seconds)
        if watcher is not None:
            watcher.end(self._access._last_status())
        return index

    def _until(self, condition: Condition, change: Change, deadline: float) -> None:
        pause = 0.001
        while not condition(self._access.status()):
            refuse_late(change, self._access.status(), deadline)
            self._access._engine(f"members.{change.verb}")
            self._access._ended.wait(pause)
            pause = min(2 * pause, _POLL_SECONDS_MAX)


def limit(timeout: Duration) -> tuple[float, float]:
    """How long to wait, and until when."""
    seconds = _units.seconds("timeout", timeout)
    return seconds, time.monotonic() + seconds


def knows(status: Status, index: int) -> bool:
    """Whether this node knows what stands at this index; one that was removed is not told any more."""
    return status.removed or status.commit_index >= index


def leads(status: Status, to: str | None, before: int) -> bool:
    """Whether the one that was named leads, or, if nobody was, anybody in a later term."""
    return status.leader is not None and (status.leader == to if to is not None else status.term > before)


def refuse_late(change: Change, status: Status, deadline: float) -> None:
    """Raises `Timeout` for a node that has not heard of what the leader has answered."""
    if time.monotonic() >= deadline:
        raise Timeout(
            f"{change.title} is done, but {status.id} has not heard of it: it has the log up to {status.commit_index}, "
            f"and takes {status.leader or 'nobody'} for the leader",
            fix="look at `node.why()`; the other members know",
        )


def result(change: Change, status: Status) -> Member:
    """The member that a change was about."""
    for member in status.members:
        if member.id == change.member:
            return member
    if status.removed and change.member is not None and "address" in change.what:
        # This node is not told how the change ends that removes it. What it can say of the new one is what was asked.
        return asked_for(change.member, str(change.what["address"]))
    raise MembershipRefused(
        f"{change.title} was done, but {change.member} is no member: another change has removed it since",
        fix="look at `node.members` and `node.events(since=0)`",
    )


def asked_for(id_: str, address: str) -> Member:
    """A member of which nothing is known but that it votes."""
    return Member(
        id=id_,
        address=address,
        role="follower",
        voter=True,
        target="voter",
        incarnation=None,
        installing=False,
        reachable=None,
        match_index=None,
        lag=None,
        last_contact=None,
        trouble=None,
    )


def leader_of(status: Status) -> Member:
    """The member that leads."""
    return found_in(status, status.leader or "")


def found_in(status: Status, id_: str) -> Member:
    """The member of this id. Raises `KeyError`."""
    for member in status.members:
        if member.id == id_:
            return member
    raise KeyError(
        f"there is no member {id_!r}; there are: {', '.join(member.id for member in status.members) or 'none'}"
    )


def table(status: Status) -> str:
    """The members, a line each."""
    if not status.members:
        return f"no members are known to node {status.id}, which is {status.role}"
    rows = [("id", "address", "role", "reachable", "lag")]
    for member in status.members:
        reachable = True if member.id == status.id else member.reachable
        rows.append(
            (
                member.id,
                member.address,
                _role(member),
                "?" if reachable is None else "yes" if reachable else "no",
                "" if member.lag is None else str(member.lag),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if status.change is not None:
        lines.append(f"under way: {status.change}")
    return "\n".join(lines)


def _role(member: Member) -> str:
    role = f"{member.role}, installing" if member.installing else member.role
    is_settled = member.target == ("voter" if member.voter else "learner")
    return role if is_settled else f"{role} -> {member.target}"
