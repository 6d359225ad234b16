"""Operations on one object, laid out for the search: who was under way when each answer came."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from linearizable.history import OK, Operation
from linearizable.models import Mark, Model, State, Step


@dataclass(frozen=True, slots=True)
class Move:
    """An operation and what it does. Without an `end` it may take effect at any time after its call, or never."""

    operation: Operation
    step: Step
    call: int
    end: int | None

    def relaxed(self) -> Move:
        """The same, as if nobody knew what came of it: allows all that was allowed, and more."""
        if self.end is None:
            return self
        becomes, adds = self.step.becomes, 0
        if self.operation.verb == "increment":
            becomes, adds = Mark.SAME, int(self.operation.arguments[0] or 0)
        only_if = self.step.needs if self.operation.verb == "cas" else Mark.ANY
        return Move(self.operation, Step(becomes=becomes, adds=adds, only_if=only_if), self.call, None)


@dataclass(frozen=True, slots=True)
class Due:
    """A known operation that is under way: its bit among those, and its step, spread out."""

    bit: int
    needs: State
    becomes: State


@dataclass(slots=True)
class Maybe:
    """Operations of unknown outcome that do the same, by the times of their calls. Which of them takes effect is all
    one, so they do in this order. Their bits lie from `shift` on."""

    step: Step
    calls: list[int] = field(default_factory=list)
    shift: int = 0
    until: int | None = None
    """When the last answer came that can have to do with them; None for no such time."""

    @property
    def mask(self) -> int:
        """As many ones as there are of them."""
        return (1 << len(self.calls)) - 1


@dataclass(frozen=True, slots=True)
class Problem:
    """The known operations in the order of their ends, and at each of these ends who is under way."""

    known: list[Move]
    bits: list[int]
    pending: list[tuple[Due, ...]]
    maybes: list[tuple[Maybe, ...]]
    initial: State
    until: dict[State, int]
    """For each state when the last answer came that has to do with it."""
    last_to_show: dict[State, int]
    """For each state that comes about once at the most, the place of the last answer that shows it."""
    only_grows: bool
    """Whether the state is a number that nothing makes less."""


def moves_of(model: Model, operations: Iterable[Operation]) -> list[Move]:
    """What there is to explain: all but what certainly did nothing. Raises `Malformed`."""
    found: list[Move] = []
    for operation in operations:
        step = model.step(operation)
        if step is not None:
            found.append(Move(operation, step, operation.call, operation.end if operation.outcome == OK else None))
    return found


def problem_of(moves: Iterable[Move], initial: State) -> Problem:
    """Lays the operations out, without those of unknown outcome that nothing can have to do with."""
    known: list[Move] = []
    unknown: list[Move] = []
    for move in moves:
        (unknown if move.end is None else known).append(move)
    known.sort(key=lambda move: move.end or 0)
    bits, pending = _under_way(known)
    grows = (initial is Mark.ANY or isinstance(initial, int)) and only_grows((*known, *unknown))
    until = _relevant_until(known, unknown)
    maybes = _useful_at([move.end or 0 for move in known], _classes(unknown, until))
    last_to_show = _last_to_show(known, unknown, initial)
    return Problem(known, bits, pending, maybes, initial, until, last_to_show, grows)


def only_grows(moves: Iterable[Move]) -> bool:
    """Whether they leave a number, and never a smaller one."""
    return all(_grows(move) for move in moves)


def _grows(move: Move) -> bool:
    step = move.step
    if move.end is None:
        return step.adds > 0
    if step.becomes is Mark.SAME:
        return isinstance(step.needs, int)
    return isinstance(step.needs, int) and isinstance(step.becomes, int) and step.needs < step.becomes


def _under_way(known: Sequence[Move]) -> tuple[list[int], list[tuple[Due, ...]]]:
    """For each operation its bit, which is nobody else's meanwhile, and who is under way when it ends, itself
    included: first those that end first."""
    by_call = sorted(range(len(known)), key=lambda place: known[place].call)
    free: list[int] = []
    slots = 0
    bits = [0] * len(known)
    active: dict[int, Due] = {}
    pending: list[tuple[Due, ...]] = []
    begun = 0
    for place, move in enumerate(known):
        # What is called at the very time of an answer may have taken effect before it.
        while begun < len(by_call) and known[by_call[begun]].call <= (move.end or 0):
            other = by_call[begun]
            if not free:
                heapq.heappush(free, slots)
                slots += 1
            bits[other] = 1 << heapq.heappop(free)
            step = known[other].step
            active[other] = Due(bits[other], step.needs, step.becomes)
            begun += 1
        pending.append(tuple(active[other] for other in sorted(active)))
        del active[place]
        heapq.heappush(free, bits[place].bit_length() - 1)
    return bits, pending


def _relevant_until(known: Iterable[Move], unknown: Iterable[Move]) -> dict[State, int]:
    """For each state when the last answer came that shows it, or that shows what became of it by way of an operation of
    unknown outcome. One that leads to no such state is not needed to explain anything: whoever finds the state after it
    without looking does not look, and whoever looks would have shown it."""
    until: dict[State, int] = {}
    for move in known:
        until[move.step.needs] = max(until.get(move.step.needs, 0), move.end or 0)
    swaps = [move.step for move in unknown if move.step.only_if is not Mark.ANY]
    moved = True
    while moved:
        moved = False
        for step in swaps:
            late = until.get(step.becomes)
            if late is not None and late > until.get(step.only_if, -1):
                until[step.only_if] = late
                moved = True
    return until


def _last_to_show(known: Sequence[Move], unknown: Iterable[Move], initial: State) -> dict[State, int]:
    sources = Counter(move.step.becomes for move in (*known, *unknown))
    if initial is Mark.ANY or any(move.step.adds for move in unknown):
        return {}
    sources[initial] += 1
    shown = {move.step.needs: place for place, move in enumerate(known)}
    return {state: place for state, place in shown.items() if sources[state] == 1}


def _classes(unknown: Iterable[Move], until: dict[State, int]) -> list[Maybe]:
    classes: dict[Step, Maybe] = {}
    for move in unknown:
        step = move.step
        late = None if step.adds else until.get(step.becomes, -1)
        if late is None or late >= move.call:
            maybe = classes.setdefault(step, Maybe(step, until=late))
            maybe.calls.append(move.call)
    shift = 0
    for maybe in classes.values():
        maybe.calls.sort()
        maybe.shift = shift
        shift += len(maybe.calls)
    return list(classes.values())


def _useful_at(ends: list[int], classes: list[Maybe]) -> list[tuple[Maybe, ...]]:
    """For each answer the operations of unknown outcome that may take effect before it, to some use."""
    coming = sorted(classes, key=lambda maybe: maybe.calls[0], reverse=True)
    useful = tuple[Maybe, ...]()
    found: list[tuple[Maybe, ...]] = []
    for end in ends:
        changed = [maybe for maybe in useful if maybe.until is None or maybe.until >= end]
        while coming and coming[-1].calls[0] <= end:
            changed.append(coming.pop())
        if len(changed) != len(useful) or any(one is not other for one, other in zip(changed, useful, strict=True)):
            useful = tuple(changed)
        found.append(useful)
    return found
