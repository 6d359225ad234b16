"""The search for an order that explains everything: Wing and Gong's, with Lowe's memory of what was tried.

The answers are taken in the order in which they came. A configuration says: all that was answered before the answer
`due` has taken effect; so have those of `taken`, which are under way; the state is `state`; of the operations of
unknown outcome those of `used` have taken effect. From a configuration one operation more takes effect; who reaches the
end of the answers has found an order.

What keeps the search short, besides the memory:

- An operation that is under way and would only see the state as it is takes effect at once: that hinders nobody.
- Operations of unknown outcome that do the same are used in the order of their calls.
- A configuration that differs from one that was tried only in having used more of them can do no more than that one.
- A state that comes about once is not left before the last that shows it.
- A write that nobody will see happens at once when another one overwrites it.
- Where numbers only grow, one that has grown past what somebody under way must still see is given up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from linearizable.models import Mark, State
from linearizable.problem import Due, Maybe, Problem

CONFIGURATIONS_MAX = 3_000_000

Configuration: TypeAlias = tuple[int, int, State, int]


@dataclass(frozen=True, slots=True)
class Found:
    """What the search came to."""

    explained: bool | None
    """None if it was given up at the limit."""
    due: int
    """The place, in the order of the answers, of the first that was not reached."""
    states: frozenset[State]
    """The states that were possible when that answer was due."""
    configurations: int


def search(problem: Problem, configurations_max: int = CONFIGURATIONS_MAX, *, foresees: bool = True) -> Found:
    """Looks for an order. Takes at most so many configurations, about 300 bytes each, into memory.

    A search that `foresees` gives up what cannot come to a good end. It is faster, and says the same, but it does not
    say at which answer it failed: the answer it names may be explained, and a later one not.
    """
    tried: dict[tuple[int, int, State], list[int]] = {}
    waiting: list[Configuration] = [_settled(problem, 0, 0, problem.initial, 0)]
    furthest, states, number = -1, set[State](), 0
    while waiting:
        configuration = waiting.pop()
        due, taken, state, used = configuration
        if due == len(problem.known):
            return Found(True, due, frozenset(), number)
        before = tried.setdefault((due, taken, state), [])
        if any(other & used == other for other in before):
            continue
        before.append(used)
        number += 1
        if number > configurations_max:
            return Found(None, furthest, frozenset(states), number)
        if due > furthest:
            furthest, states = due, set()
        if due == furthest:
            states.add(state)
        waiting += _successors(problem, configuration, foresees=foresees)
    return Found(False, furthest, frozenset(states), number)


def _successors(problem: Problem, configuration: Configuration, *, foresees: bool) -> list[Configuration]:
    """Where one operation more leads, the likeliest last."""
    due, taken, state, _ = configuration
    keeper = _keeper(problem, configuration) if foresees else None
    found: list[Configuration] = []
    for operation in problem.pending[due]:
        if taken & operation.bit:
            continue
        after = _take(problem, configuration, operation, keeper)
        if after is None:
            if foresees and problem.only_grows and _is_missed(operation, state):
                return []
        elif operation.becomes is Mark.SAME and state is not Mark.ANY:
            return [after]
        else:
            found.append(after)
    # The one that ends first was looked at first, and is to be taken up first.
    found.reverse()
    if keeper is not None:
        return found
    by_luck = [use for maybe in problem.maybes[due] if (use := _use(problem, configuration, maybe)) is not None]
    return by_luck + found


def _take(problem: Problem, configuration: Configuration, operation: Due, keeper: int | None) -> Configuration | None:
    """Where it leads that this operation takes effect; None if it cannot, or the state is not to be left."""
    due, taken, state, used = configuration
    needs, becomes = operation.needs, operation.becomes
    if becomes is not Mark.SAME and keeper is not None and keeper != operation.bit:
        return None
    if needs is Mark.ANY:
        return _settled(problem, due, _swept(problem, due, taken) | operation.bit, becomes, used)
    if needs != state and (state is not Mark.ANY or needs is Mark.NEVER):
        return None
    return _settled(problem, due, taken | operation.bit, needs if becomes is Mark.SAME else becomes, used)


def _is_missed(operation: Due, state: State) -> bool:
    return isinstance(state, int) and isinstance(operation.needs, int) and operation.needs < state


def _keeper(problem: Problem, configuration: Configuration) -> int | None:
    """The bit of the operation before which the state is not to be left, or 0 if that has not begun; None if the state
    may be left."""
    due, taken, state, _ = configuration
    last = problem.last_to_show.get(state, -1)
    if last < due:
        return None
    if problem.known[last].call > (problem.known[due].end or 0):
        return 0
    return None if taken & problem.bits[last] else problem.bits[last]


def _swept(problem: Problem, due: int, taken: int) -> int:
    """With the writes that nobody will see."""
    end = problem.known[due].end or 0
    for operation in problem.pending[due]:
        if operation.needs is Mark.ANY and problem.until.get(operation.becomes, -1) < end:
            taken |= operation.bit
    return taken


def _use(problem: Problem, configuration: Configuration, maybe: Maybe) -> Configuration | None:
    due, taken, state, used = configuration
    count = (used >> maybe.shift & maybe.mask).bit_length()
    if count == len(maybe.calls) or maybe.calls[count] > (problem.known[due].end or 0):
        return None
    step = maybe.step
    if state is Mark.ANY:
        # Where a swap, or an addition, leads to is as open as where it came from.
        after = Mark.ANY if step.only_if is not Mark.ANY or step.adds else step.becomes
    elif step.adds and isinstance(state, int):
        after = state + step.adds
    elif step.only_if is Mark.ANY or step.only_if == state:
        after = step.becomes
    else:
        return None
    if after == state:
        return None
    return due, taken, after, used | 1 << maybe.shift + count


def _settled(problem: Problem, due: int, taken: int, state: State, used: int) -> Configuration:
    """The configuration with all the answers passed whose operations have taken effect."""
    bits = problem.bits
    while due < len(bits) and taken & bits[due]:
        taken ^= bits[due]
        due += 1
    return due, taken, state, used
