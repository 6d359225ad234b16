"""What each kind of state does with an operation, as a `Step`: what it met, and what it left behind.

| model      | operation         | returns                                    |
|------------|-------------------|--------------------------------------------|
| `register` | `read()`          | the value, at first None                   |
|            | `write(v)`        | None                                       |
|            | `cas(old, new)`   | whether it was swapped, and the value seen |
| `counter`  | `read()`          | the count, at first 0                      |
|            | `increment(by)`   | the count after it                         |
| `map`      | `get()`           | the value, None if there is none           |
|            | `put(v)`          | None                                       |
|            | `delete()`        | the value that was there, None if none was |
|            | `cas(old, new)`   | as for a register                          |

A read may say how it was read: `read("lease")` is judged like any other; what `read("stale")` and `read("stale", 200)`,
no more than 200 ms old, may have seen is told in `linearizable.staleness`.

A map is checked key by key, so to the checker each of its keys is an object of its own: "map/k1".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from linearizable.history import FAILED, OK, Operation, Scalar

READS = ("read", "get")


class Mark(Enum):
    """What a step can say instead of a state."""

    ANY = "any state"
    SAME = "the state as it was"
    NEVER = "no state there is"


State: TypeAlias = Scalar | Mark


@dataclass(frozen=True, slots=True)
class Step:
    """What an operation does to the state: it met `needs`, or else cannot have taken effect; it left `becomes`, or
    added `adds`. `only_if` is the state at which it does anything at all."""

    needs: State = Mark.ANY
    becomes: State = Mark.SAME
    adds: int = 0
    only_if: State = Mark.ANY

    @property
    def changes_nothing(self) -> bool:
        """Whether it leaves every state as it was."""
        return self.becomes is Mark.SAME and self.adds == 0


class Malformed(ValueError):
    """An operation that no model has: the history is wrong, not the cluster."""


@dataclass(frozen=True, slots=True)
class Model:
    """One kind of state."""

    name: str
    initial: Scalar
    steps: dict[str, Callable[[Operation], Step]]

    def step(self, operation: Operation) -> Step | None:
        """What it did, or may have done; None for nothing whatever. Raises `Malformed`."""
        if operation.verb not in self.steps:
            raise Malformed(f"a {self.name} has no {operation.verb}: {operation}")
        if operation.outcome == FAILED:
            return None
        try:
            step = self.steps[operation.verb](operation)
        except (TypeError, ValueError) as error:
            raise Malformed(f"{operation.key}: {operation}: {error}") from error
        return None if operation.outcome != OK and step.changes_nothing else step


def how_read(operation: Operation) -> tuple[bool, int | None]:
    """Whether what was read may be old, and by how many milliseconds at the most. Raises `Malformed`."""
    match operation.arguments:
        case () | ("lease",):
            return False, None
        case ("stale",):
            return True, None
        case ("stale", int(age)) if age >= 0:
            return True, age
        case _:
            raise Malformed(f"{operation.key}: nobody reads like that: {operation}")


def model_of(key: str) -> Model:
    """The model of the object of this key. Raises `Malformed`."""
    name, slash, _ = key.partition("/")
    if not slash or name not in MODELS:
        raise Malformed(f"{key!r} must begin with one of {', '.join(f'{name}/' for name in MODELS)}")
    return MODELS[name]


def _read(operation: Operation) -> Step:
    how_read(operation)
    return Step(needs=_scalar(operation.result)) if operation.outcome == OK else Step()


def _write(operation: Operation) -> Step:
    (value,) = operation.arguments
    return Step(becomes=value)


def _delete(operation: Operation) -> Step:
    () = operation.arguments
    if operation.outcome != OK:
        return Step(becomes=None)
    was = _scalar(operation.result)
    return Step(needs=was, becomes=Mark.SAME if was is None else None)


def _cas(operation: Operation) -> Step:
    old, new = operation.arguments
    if operation.outcome != OK:
        return Step(becomes=new, only_if=old)
    if not isinstance(operation.result, tuple):
        raise TypeError("it must return whether it was swapped, and the value seen")
    swapped, seen = operation.result
    if bool(swapped) != (seen == old):
        return Step(needs=Mark.NEVER)
    return Step(needs=seen, becomes=new if swapped else Mark.SAME)


def _increment(operation: Operation) -> Step:
    (by,) = operation.arguments
    if not isinstance(by, int):
        raise TypeError("it must be by an integer")
    if operation.outcome != OK:
        return Step(adds=by)
    if not isinstance(operation.result, int):
        raise TypeError("it must return an integer")
    return Step(needs=operation.result - by, becomes=operation.result)


def _count(operation: Operation) -> Step:
    step = _read(operation)
    if operation.outcome == OK and not isinstance(step.needs, int):
        raise TypeError("it must return an integer")
    return step


def _scalar(result: object) -> Scalar:
    if result is None or isinstance(result, str | int):
        return result
    raise TypeError("it must return one value")


MODELS = {
    model.name: model
    for model in (
        Model("register", None, {"read": _read, "write": _write, "cas": _cas}),
        Model("counter", 0, {"read": _count, "increment": _increment}),
        Model("map", None, {"get": _read, "put": _write, "delete": _delete, "cas": _cas}),
    )
}
