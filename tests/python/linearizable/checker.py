"""Checks a history key by key, for a history is linearizable if that of each object is (Herlihy and Wing)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from linearizable.going_back import gone_back
from linearizable.history import OK, UNKNOWN, History, Operation
from linearizable.models import model_of
from linearizable.problem import Move, moves_of, problem_of
from linearizable.search import CONFIGURATIONS_MAX, search
from linearizable.shrink import Part, shrunk
from linearizable.staleness import widened
from linearizable.story import told


@dataclass(frozen=True, slots=True)
class Failure:
    """An object whose history no order explains."""

    key: str
    part: Part
    """The smallest part that was found of what cannot be explained."""

    @property
    def culprit(self) -> Operation:
        """The first in that part, by its end, that nothing explains."""
        return self.part.culprit.operation

    def __str__(self) -> str:
        return told(self.key, self.part)


@dataclass(slots=True)
class Verdict:
    """What a check came to. As a string it tells the whole story."""

    operations: int
    unknown: int
    objects: int
    failures: list[Failure] = field(default_factory=list[Failure])
    undecided: list[str] = field(default_factory=list[str])
    """The keys of the objects for which the search was given up at its limit."""
    configurations: int = 0
    seconds: float = 0.0

    @property
    def is_linearizable(self) -> bool:
        """Whether all of it is explained."""
        return not self.failures and not self.undecided

    def not_explained(self) -> set[str]:
        """The keys of the objects that are not known to be sound."""
        return {failure.key for failure in self.failures} | set(self.undecided)

    def __str__(self) -> str:
        size = (
            f"{self.operations} operations, {self.unknown} of unknown outcome, on {self.objects} objects; "
            f"{self.configurations} configurations in {self.seconds:.1f} s"
        )
        if self.is_linearizable:
            return f"linearizable: {size}"
        lines = [f"NOT linearizable: {size}" if self.failures else f"undecided: {size}"]
        lines += [str(failure) for failure in self.failures]
        lines += [f"{key}: given up, there are too many possibilities" for key in self.undecided]
        return "\n\n".join(lines)


def check(history: History, configurations_max: int = CONFIGURATIONS_MAX) -> Verdict:
    """Looks for an order of the operations on each object. `configurations_max` bounds the memory, for each object.

    Raises `Malformed` for operations that no model has, and `ValueError` for an end before its beginning.
    """
    began = time.monotonic()
    _check_times(history)
    told, objects = history.by_key(), widened(history).by_key()
    verdict = Verdict(len(history), history.outcomes()[UNKNOWN], len(objects))
    for key, operations in sorted(objects.items()):
        model = model_of(key)
        _check_object(key, moves_of(model, operations), configurations_max, verdict)
        part = None if key in verdict.not_explained() else gone_back(moves_of(model, told[key]), model.initial)
        if part is not None:
            verdict.failures.append(Failure(key, part))
    verdict.seconds = time.monotonic() - began
    return verdict


def _check_object(key: str, moves: list[Move], configurations_max: int, verdict: Verdict) -> None:
    problem = problem_of(moves, model_of(key).initial)
    found = search(problem, configurations_max)
    verdict.configurations += found.configurations
    if found.explained is None:
        verdict.undecided.append(key)
    elif not found.explained:
        verdict.failures.append(Failure(key, shrunk(moves, found.due, model_of(key).initial)))


def _check_times(history: History) -> None:
    for operation in history:
        if operation.call < 0 or (operation.end is not None and operation.end < operation.call):
            raise ValueError(f"{operation.key}: {operation} of {operation.process} ended before it began")
        if operation.end is None and operation.outcome == OK:
            raise ValueError(f"{operation.key}: {operation} of {operation.process} has no time of its end")
