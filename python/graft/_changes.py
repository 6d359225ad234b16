"""Changes of the membership as the engine takes them: checked here before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from graft import _address
from graft._errors import ConfigError, GraftError, Timeout, UnknownOutcome

if TYPE_CHECKING:
    from graft._status import Status

INDEX_MAX = 2**64 - 1
_VERBS = {"transfer": "transfer_leadership"}


class Change(NamedTuple):
    """What is asked for."""

    what: dict[str, object]
    title: str
    """For messages: "adding n4"."""
    member: str | None = None
    """The member that it is about, if it is about one."""

    @property
    def verb(self) -> str:
        """What the user called: "add"."""
        return _VERBS.get(str(self.what["what"]), str(self.what["what"]))

    def removes(self, id_: str) -> bool:
        """Whether this member is none any more when the change is done."""
        match self.what:
            case {"what": "remove", "id": gone} | {"what": "replace", "old": gone}:
                return gone == id_
            case {"what": "apply", "members": dict(members)}:
                return id_ not in members
            case _:
                return False

    def guarded(self, if_unchanged: object) -> dict[str, object]:
        """With the condition that the membership is still the one of this version."""
        if if_unchanged is None:
            return self.what
        if type(if_unchanged) is not int or not 0 <= if_unchanged <= INDEX_MAX:
            raise ConfigError(
                f"if_unchanged={if_unchanged!r:.100} must be a version: the int that `members.version` gave"
            )
        return {**self.what, "guard": if_unchanged}


def addition(id_: object, address: object, *, voter: object = True) -> Change:
    """A new member."""
    if not isinstance(voter, bool):
        raise ConfigError(f"voter={voter!r:.100} must be True, or False for a learner, which does not vote")
    id_ = _address.checked_id("id", id_)
    where = _address.checked_peer("address", address)
    return Change({"what": "add", "id": id_, "address": where, "voter": voter}, f"adding {id_}", id_)


def removal(id_: object) -> Change:
    """A member less."""
    id_ = _address.checked_id("id", id_)
    return Change({"what": "remove", "id": id_}, f"removing {id_}", id_)


def promotion(id_: object) -> Change:
    """A learner is to vote."""
    id_ = _address.checked_id("id", id_)
    return Change({"what": "promote", "id": id_}, f"promoting {id_}", id_)


def demotion(id_: object) -> Change:
    """A voter is to be a learner."""
    id_ = _address.checked_id("id", id_)
    return Change({"what": "demote", "id": id_}, f"demoting {id_}", id_)


def replacement(old: object, new: object, address: object) -> Change:
    """A new member takes the place of an old one."""
    old, new = _address.checked_id("old", old), _address.checked_id("new", new)
    if old == new:
        raise ConfigError(
            f"old and new are both {old!r}: an id is never used again, so give the new node a new one; a member that "
            "only moves to another address keeps its id, and announces the address itself when it starts"
        )
    where = _address.checked_peer("address", address)
    return Change({"what": "replace", "old": old, "new": new, "address": where}, f"replacing {old} by {new}", new)


def application(members: object) -> Change:
    """These, and no others, are to be the voters."""
    voters = _address.checked_voters(members)
    return Change({"what": "apply", "members": voters}, f"making {', '.join(sorted(voters))} the members")


def cancellation() -> Change:
    """Whatever is under way is given up."""
    return Change({"what": "cancel"}, "cancelling the change of the membership")


def transfer(to: object) -> Change:
    """Another one is to lead."""
    to = None if to is None else _address.checked_id("to", to)
    return Change({"what": "transfer", "to": to}, f"handing leadership to {to or 'another voter'}", to)


def done_or_unfinished(change: Change, error: GraftError, status: Status | None, seconds: float) -> int:
    """The index up to which this node knows that the change is done: a node that removes itself may be cut off before
    it is answered. Raises what there is to say if it is not done."""
    if isinstance(error, UnknownOutcome) and status is not None and status.removed and change.removes(status.id):
        return status.commit_index
    raise unfinished(change, error, status, seconds) from None


def unfinished(change: Change, error: GraftError, status: Status | None, seconds: float) -> GraftError:
    """What is raised when no answer came: whether the change goes on, and how to follow it."""
    late = f"{change.title} is not done after {seconds:g} s"
    if status is None or status.role == "stopped" or (isinstance(error, UnknownOutcome) and status.change is None):
        return UnknownOutcome(
            f"{change.title}: it is not known what came of it: {error}",
            fix="look at `members` of any node, and ask again: asking twice changes nothing twice",
        )
    if change.what["what"] != "transfer" and status.change is not None:
        return Timeout(
            f"{late}, and goes on without this call: {status.change}",
            fix="follow it with `node.members.change` or `node.events()`, or give it up with `node.members.cancel()`",
        )
    return Timeout(
        f"{late}, and as far as {status.id} knows it is not under way: {error}",
        fix="look at `node.why()` and `node.members`, and ask again: asking twice changes nothing twice",
    )
