"""What `submit` gives in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Result(Generic[R_co]):
    """An answer, and where in the log it was given."""

    value: R_co
    index: int
    """The log index of the command; for a query, the index it had seen."""
    term: int
