"""Tries every order there is. Slow, and so simple that it can be believed: what the checker is held against."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import TypeAlias

from linearizable.history import FAILED, OK, Operation, Scalar, Value

_Step: TypeAlias = tuple[Scalar, Value]


def explains(operations: list[Operation], initial: Scalar) -> bool:
    """Whether some order of those that were applied, with any of those that may have been, explains all results."""
    sure = [one for one in operations if one.outcome == OK]
    unsure = [one for one in operations if one.outcome not in (OK, FAILED)]
    for number in range(len(unsure) + 1):
        for lucky in combinations(unsure, number):
            for order in permutations([*sure, *lucky]):
                if _may_be_order(order) and _is_lived(order, initial):
                    return True
    return False


def _may_be_order(order: tuple[Operation, ...]) -> bool:
    """Whether nothing comes before what had ended when it began."""
    return all(
        later.outcome != OK or later.end is None or later.end >= one.call
        for place, one in enumerate(order)
        for later in order[place + 1 :]
    )


def _is_lived(order: tuple[Operation, ...], state: Scalar) -> bool:
    for operation in order:
        state, result = _run(operation, state)
        if operation.outcome == OK and operation.result != result:
            return False
    return True


def _run(operation: Operation, state: Scalar) -> _Step:
    arguments = operation.arguments
    match operation.verb:
        case "read" | "get":
            return state, state
        case "write" | "put":
            return arguments[0], None
        case "delete":
            return None, state
        case "cas":
            return (arguments[1], (True, state)) if state == arguments[0] else (state, (False, state))
        case "increment":
            after = int(state or 0) + int(arguments[0] or 0)
            return after, after
        case _:
            raise AssertionError(f"no such operation: {operation}")
