"""Looks for the smallest part of a history that cannot be explained.

Every change made here allows at least what was allowed before, so a part that cannot be explained proves that the whole
cannot: to begin later, in any state; to leave out what only looked; to take what is known of an operation for unknown.
(Operations that add, taken for unknown, are counted and not told.)
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from linearizable.models import Mark, State
from linearizable.problem import Move, problem_of
from linearizable.search import search

_WINDOW_MIN = 8
_CONFIGURATIONS_MAX = 200_000
_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Part:
    """What cannot be explained."""

    initial: State
    """The state it begins in: `Mark.ANY` if it cannot be explained from any."""
    known: list[Move]
    """What is known, by the times of the calls."""
    maybe: list[Move]
    """What may have taken effect besides."""
    culprit: Move
    states: frozenset[State]
    """What the state could be when the culprit ended."""


def shrunk(moves: list[Move], place: int, initial: State) -> Part:
    """The smallest part found within a few seconds, looking around this place in the order of the ends."""
    deadline = time.monotonic() + _SECONDS_MAX
    kept, begins = _around(moves, place, initial, deadline)
    kept = thinned(kept, begins, deadline)
    problem = problem_of(kept, begins)
    found = search(problem, foresees=False)
    # A part that is still too large to be searched without foresight is told with the last answer in it.
    due = min(found.due, len(problem.known) - 1)
    kept.sort(key=lambda move: move.call)
    return Part(
        begins,
        [move for move in kept if move.end is not None],
        [move for move in kept if move.end is None],
        problem.known[due],
        found.states,
    )


def fails(moves: Iterable[Move], initial: State) -> bool:
    """Whether no order explains this; False as well if that is too much to search for."""
    return search(problem_of(moves, initial), _CONFIGURATIONS_MAX).explained is False


def _around(moves: list[Move], place: int, initial: State, deadline: float) -> tuple[list[Move], State]:
    """What is around the place, as little as fails from any state, found by doubling; all of it if nothing less."""
    ends = sorted(move.end for move in moves if move.end is not None)
    size = _WINDOW_MIN
    while size < len(ends) and time.monotonic() < deadline:
        kept = window(moves, ends[max(0, place - size)], ends[min(len(ends) - 1, place + size)])
        if fails(kept, Mark.ANY):
            return kept, Mark.ANY
        size *= 2
    return (moves, Mark.ANY) if fails(moves, Mark.ANY) else (moves, initial)


def window(moves: list[Move], since: int, until: int) -> list[Move]:
    """What happened from one time to another, beginning in any state.

    What was under way when it began may be in the state that it begins in, and what is under way when it ends may owe
    its result to what comes later: only those are known that lie within.
    """
    within: list[Move] = []
    for move in moves:
        if move.call <= until and (move.end is None or move.end >= since):
            is_known = move.end is not None and since <= move.call and move.end <= until
            within.append(move if is_known else move.relaxed())
    return [move for move in within if move.end is not None or not move.step.changes_nothing]


def thinned(moves: list[Move], initial: State, deadline: float) -> list[Move]:
    """Leaves out half of it, a quarter, an eighth, and so on down to single operations, again and again."""
    kept = list(moves)
    size = max(1, len(kept) // 2)
    while True:
        before = len(kept)
        place = 0
        while place < len(kept):
            if time.monotonic() > deadline:
                return kept
            chunk = kept[place : place + size]
            left = _without(kept, chunk)
            if len(left) < len(kept) and fails(left, initial):
                kept = left
            elif _changed(chunk) and fails(eased := _eased(kept, chunk), initial):
                kept = eased
                place += size
            else:
                place += size
        if size == 1 and len(kept) == before:
            return _relevant(kept, initial)
        size = max(1, size // 2)


def _without(moves: list[Move], chunk: list[Move]) -> list[Move]:
    """Leaves out, of a chunk, what only looked and what nobody has to do with; the rest stays."""
    gone = {id(move) for move in chunk if move.end is not None and move.step.changes_nothing}
    return _useful([move for move in moves if id(move) not in gone])


def _eased(moves: list[Move], chunk: list[Move]) -> list[Move]:
    """Takes the outcomes in a chunk for unknown."""
    eased = {id(move) for move in chunk}
    changed = [move.relaxed() if id(move) in eased and move.end is not None else move for move in moves]
    return _useful([move for move in changed if move.end is not None or not move.step.changes_nothing])


def _changed(chunk: list[Move]) -> bool:
    return any(move.end is not None for move in chunk)


def _relevant(moves: list[Move], initial: State) -> list[Move]:
    useful = _useful(moves)
    return useful if fails(useful, initial) else moves


def _useful(moves: list[Move]) -> list[Move]:
    """Without what is unknown and cannot have to do with anything."""
    problem = problem_of(moves, Mark.ANY)
    steps = {maybe.step for maybes in problem.maybes for maybe in maybes}
    return [move for move in moves if move.end is not None or move.step in steps]
