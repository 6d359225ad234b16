"""What would come of a change of the membership, without making it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from graft import _changes
from graft._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graft._changes import Change

_KINDS = ("remove", "add", "promote", "demote", "apply")
# Whoever only asks need not know the address yet, and nobody is dialled.
_SOME_ADDRESS = "unknown.invalid:1"


class Question(TypedDict, total=False):
    """The keywords of `Node.what_if`: one of them."""

    remove: str
    add: str
    promote: str
    demote: str
    apply: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """What would come of a change. True if it would be allowed; `str()` gives it in words."""

    allowed: bool
    reason: str | None
    """Why it would be refused; None if it would not."""
    voters: tuple[str, ...]
    """Who would vote."""
    learners: tuple[str, ...]
    """Who would have everything and decide nothing."""
    needed: int
    """How many voters would be needed to decide anything."""
    alive: tuple[str, ...]
    """Those of them that are within reach now."""
    tolerates: int
    """How many more voters might fail then."""

    def __bool__(self) -> bool:
        return self.allowed

    def __str__(self) -> str:
        if not self.allowed:
            return f"it would be refused: {self.reason}"
        learners = f", and learners {', '.join(self.learners)}" if self.learners else ""
        failures = f"{self.tolerates} of them" if self.tolerates else "none of them"
        return (
            f"voters {', '.join(self.voters)}{learners}; {self.needed} of {len(self.voters)} needed, {len(self.alive)} "
            f"within reach; then {failures} may fail"
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:  # noqa: ARG002
        return {"text/plain": str(self)}


def change_of(question: Mapping[str, object]) -> Change:
    """The change that is asked about. Raises `ConfigError` unless it is exactly one."""
    given = {name: value for name, value in question.items() if value is not None}
    unknown = [name for name in given if name not in _KINDS]
    if unknown:
        raise ConfigError(f"there is no question {unknown[0]!r}; there are: {', '.join(_KINDS)}")
    if len(given) != 1:
        raise ConfigError(
            f"ask about one change: {' or '.join(f'{name}=…' for name in _KINDS)}; "
            "apply={id: address} asks about any set"
        )
    [(name, value)] = given.items()
    match name:
        case "remove":
            return _changes.removal(value)
        case "add":
            return _changes.addition(value, _SOME_ADDRESS)
        case "promote":
            return _changes.promotion(value)
        case "demote":
            return _changes.demotion(value)
        case _:
            return _changes.application(value)


def from_native(found: Mapping[str, Any]) -> WhatIf:
    """The answer as the engine gives it."""
    return WhatIf(
        allowed=found["allowed"],
        reason=found["reason"],
        voters=tuple(found["voters"]),
        learners=tuple(found["learners"]),
        needed=found["needed"],
        alive=tuple(found["alive"]),
        tolerates=found["tolerates"],
    )
