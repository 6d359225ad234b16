"""Whether the members' states are the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graft._status import Status

_SHOWN_CHARS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The digests of the members' states as of one index of the log. True if they agree; `str()` shows them."""

    index: int
    """All digests are of the state after this entry."""
    digests: Mapping[str, bytes] = field(hash=False)
    """By the member's id: of those that answered."""
    failed: Mapping[str, str] = field(hash=False)
    """Why a member that answered has no digest, by its id."""
    missing: tuple[str, ...]
    """Members that did not answer in time."""

    @property
    def agree(self) -> bool:
        """Whether all members that answered have the same state. None may have failed to tell; some may be missing."""
        return bool(self.digests) and not self.failed and not self.differing

    @property
    def differing(self) -> tuple[str, ...]:
        """Whose state is not the one that most have; all of them if no state is that of more than half who answered."""
        if len(set(self.digests.values())) < 2:  # noqa: PLR2004 - one cannot differ
            return ()
        (most, number), *_ = Counter(self.digests.values()).most_common(1)
        ids = sorted(self.digests)
        return tuple(id_ for id_ in ids if self.digests[id_] != most) if number * 2 > len(ids) else tuple(ids)

    def __bool__(self) -> bool:
        return self.agree

    def __str__(self) -> str:
        differing = self.differing
        if differing:
            words = f"{', '.join(differing)} differ{'s' if len(differing) == 1 else ''}"
        elif self.failed:
            words = f"{', '.join(sorted(self.failed))} cannot tell"
        else:
            words = "all agree" if not self.missing else "all that answered agree"
        lines = [f"index {self.index}: {words}"]
        width = max(map(len, [*self.digests, *self.failed, *self.missing]), default=0)
        ids = sorted([*self.digests, *self.failed, *self.missing])
        lines += [f"  {id_.ljust(width)}  {self._of(id_, differing)}" for id_ in ids]
        return "\n".join(lines)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:  # noqa: ARG002
        return {"text/plain": str(self)}

    def _of(self, id_: str, differing: tuple[str, ...]) -> str:
        if id_ in self.digests:
            return self.digests[id_].hex()[:_SHOWN_CHARS] + ("  differs" if id_ in differing else "")
        if id_ in self.failed:
            return f"no digest: {self.failed[id_].strip().splitlines()[-1]}"
        return "did not answer in time"


def verification(digests: Mapping[str, bytes | str], index: int, status: Status | None) -> Verification:
    """What the engine answers: bytes, or why there are none, by member."""
    members = () if status is None else tuple(member.id for member in status.members)
    return Verification(
        index=index,
        digests={id_: digest for id_, digest in digests.items() if isinstance(digest, bytes)},
        failed={id_: why for id_, why in digests.items() if isinstance(why, str)},
        missing=tuple(id_ for id_ in members if id_ not in digests),
    )
