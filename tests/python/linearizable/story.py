"""Tells what cannot be explained, as a picture of who did what when and a sentence on what was expected."""

from __future__ import annotations

from linearizable.history import OK
from linearizable.models import Mark, State
from linearizable.problem import Move
from linearizable.shrink import Part

_LINES_MAX = 40
_STATES_MAX = 8
_ADDITIONS_MAX = 5
_CELL = 3


def told(key: str, part: Part) -> str:
    """The story, some lines long."""
    additions = [move for move in part.maybe if move.step.adds]
    maybe = part.maybe if len(additions) <= _ADDITIONS_MAX else [move for move in part.maybe if not move.step.adds]
    rows = sorted((part.known + maybe)[:_LINES_MAX], key=lambda move: move.call)
    left_out = len(part.known) + len(part.maybe) - len(rows)
    lines = [f"{key}: no order of these operations explains what they returned{_beginning(part)}"]
    lines += _picture(rows)
    if left_out:
        lines.append(f"  (and {left_out} more, which may or may not have taken effect and do not explain it either)")
    return "\n".join([*lines, *(f"  {line}" for line in _why(part, rows))])


def _beginning(part: Part) -> str:
    if part.initial is Mark.ANY:
        return ", whatever the state was before; the others of that time do not matter to it"
    return f", beginning with {part.initial!r}"


def _picture(rows: list[Move]) -> list[str]:
    """A line each, with bars in the order of the times, not to scale."""
    ends = [_end(move) for move in rows]
    times = sorted({time for time in (*(move.call for move in rows), *ends) if time is not None})
    place = {time: number * _CELL for number, time in enumerate(times)}
    first = times[0]
    width = len(times) * _CELL
    names = [str(move.operation) for move in rows]
    longest = max(map(len, names))
    who = max(len(move.operation.process) for move in rows)
    lines: list[str] = []
    for number, (move, name, end) in enumerate(zip(rows, names, ends, strict=True), 1):
        begin = place[move.call]
        width_of_bar = max(0, (width if end is None else place[end]) - begin - 1)
        bar = f"|{'-' * width_of_bar}{'...' if end is None else '|'}"
        since = (move.call - first) / 1e6
        lasted = "" if end is None else f" for {(end - move.call) / 1e6:.3f} ms"
        drawn = f"{' ' * begin}{bar}".ljust(width + 4)
        lines.append(
            f"  {number:>3}  {move.operation.process:<{who}}  {name:<{longest}}  {drawn} +{since:.3f} ms{lasted}"
        )
    return lines


def _end(move: Move) -> int | None:
    """When it ended, also if that was not needed for the proof."""
    return move.operation.end if move.operation.outcome == OK else None


def _why(part: Part, rows: list[Move]) -> list[str]:
    culprit = part.culprit
    number = next((place for place, move in enumerate(rows, 1) if move is culprit), None)
    name = f"{culprit.operation}" if number is None else f"{number}, {culprit.operation},"
    needs = culprit.step.needs
    if needs is Mark.NEVER:
        return [f"{name} contradicts itself."]
    with_it = [
        str(place)
        for place, move in enumerate(rows, 1)
        if move is not culprit and _overlap(move, culprit) and move.end is not None
    ]
    before = [str(place) for place, move in enumerate(rows, 1) if move.end is not None and move.end < culprit.call]
    lines = [f"{name} needs the state {_shown(needs)}; when it ended, the state could only be {_listed(part.states)}."]
    if before:
        lines.append(f"It began after the end of {', '.join(before)}.")
    if with_it:
        lines.append(f"It overlaps {', '.join(with_it)}, which may come before it or after it.")
    return lines


def _overlap(one: Move, other: Move) -> bool:
    return one.call <= (other.end or one.call) and other.call <= (one.end or other.call)


def _listed(states: frozenset[State]) -> str:
    numbers = [state for state in states if isinstance(state, int)]
    if len(numbers) == len(states) > 2 and max(numbers) - min(numbers) == len(numbers) - 1:
        return f"a number from {min(numbers)} to {max(numbers)}"
    shown = sorted(map(_shown, states))
    more = f", or one of {len(shown) - _STATES_MAX} others" if len(shown) > _STATES_MAX else ""
    return " or ".join(shown[:_STATES_MAX]) + more


def _shown(state: State) -> str:
    return state.value if isinstance(state, Mark) else repr(state)
