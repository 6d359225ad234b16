"""Finds a client to whom an object went back: a stale read of what was over before that which it knew.

The calls that `linearizable.staleness` widens say when what a client knew may have taken effect at the earliest, which
may be long before it did. Here the order of the states themselves is looked at, where the history leaves no doubt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from linearizable.models import READS, Mark, State, how_read
from linearizable.problem import Move, only_grows
from linearizable.shrink import Part
from linearizable.staleness import client_of

# The last answers that a stale read is held against, of each client.
_KNOWN_MAX = 32


def gone_back(moves: list[Move], initial: State) -> Part | None:
    """The first stale read of this object that goes back behind what its client knew; the calls are not widened."""
    order = _Order.of(moves, initial)
    clients: dict[str, list[Move]] = {}
    for move in moves:
        clients.setdefault(client_of(move.operation), []).append(move)
    for ours in clients.values():
        answered = sorted((move for move in ours if move.end is not None), key=lambda move: move.end or 0)
        for stale in filter(_is_stale, answered):
            known = [move for move in answered if (move.end or 0) < stale.call][-_KNOWN_MAX:]
            for before in reversed(known):
                if order.is_before(stale.step.needs, _left(before)):
                    return order.part(stale, before)
    return None


def _is_stale(move: Move) -> bool:
    return move.operation.verb in READS and how_read(move.operation)[0]


def _left(move: Move) -> State:
    """The state after it."""
    return move.step.needs if move.step.becomes is Mark.SAME else move.step.becomes


@dataclass(frozen=True, slots=True)
class _Order:
    """Which states certainly came before which."""

    initial: State
    sources: dict[State, list[Move]]
    """What brings a state about, or may have done so."""
    only_grows: bool

    @staticmethod
    def of(moves: Iterable[Move], initial: State) -> _Order:
        listed = list(moves)
        sources: dict[State, list[Move]] = {}
        for move in listed:
            if move.step.becomes is not Mark.SAME:
                sources.setdefault(move.step.becomes, []).append(move)
        return _Order(initial, sources, isinstance(initial, int) and only_grows(listed))

    def is_before(self, one: State, other: State) -> bool:
        """Whether `one` was over for good whenever it was `other`."""
        if isinstance(one, int) and isinstance(other, int):
            return self.only_grows and one < other
        if other in {one, self.initial} or isinstance(one, Mark) or isinstance(other, Mark):
            return False
        later = self.sources.get(other, [])
        earlier = self.sources.get(one, [])
        if len(earlier) == 1 and one != self.initial and later and all(_saw(move, one) for move in later):
            return True
        return bool(later) and all(_precedes(a, b) for a in earlier for b in later)

    def part(self, stale: Move, before: Move) -> Part:
        """What there is to tell."""
        written = [*self.sources.get(stale.step.needs, []), *self.sources.get(_left(before), [])]
        told = {id(move): move for move in (*written, before, stale)}.values()
        known = sorted((move for move in told if move.end is not None), key=lambda move: move.call)
        return Part(self.initial, known, [move for move in told if move.end is None], stale, frozenset({_left(before)}))


def _precedes(one: Move, other: Move) -> bool:
    """Whether `one` certainly took effect before `other`."""
    return one.end is not None and one.end < other.call


def _saw(move: Move, state: State) -> bool:
    """Whether it is a swap that met this state, which came about once and ended with it."""
    return move.end is not None and move.step.needs == state
