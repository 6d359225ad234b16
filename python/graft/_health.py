"""Whether all is well, and what to do about what is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graft._errors import GraftError


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is not well."""

    what: str
    """What it is, in words."""
    fix: str
    """What to do about it."""

    def __str__(self) -> str:
        return f"{self.what}. {self.fix}"


@dataclass(frozen=True, slots=True)
class Health:
    """Whether all is well, as far as the member that was asked can tell. True if it is; `str()` gives it in words."""

    troubles: tuple[Trouble, ...]
    """All that is not well; empty if all is."""

    @property
    def healthy(self) -> bool:
        """Whether there is no trouble."""
        return not self.troubles

    def __bool__(self) -> bool:
        return self.healthy

    def __str__(self) -> str:
        return "\n".join(map(str, self.troubles)) or "healthy"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:  # noqa: ARG002
        return {"text/plain": str(self)}


def from_native(found: dict[str, Any]) -> Health:
    """The health as the engine tells it beside a status."""
    return Health(tuple(Trouble(what, fix) for what, fix in found["troubles"]))


def of_error(error: GraftError) -> Health:
    """That of a cluster of which nothing else can be learned."""
    return Health((Trouble(error.message, error.fix[:1].upper() + error.fix[1:]),))
