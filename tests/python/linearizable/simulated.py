"""Histories made up by a cluster that is only told of: its leaders fail now and then, its clients call again.

A sound one gives linearizable histories. One with a `fault` does what a wrong engine would:

- `lease`: a leader that was replaced goes on answering the reads of the clients that have not noticed.
- `sessions`: a command that was applied, and whose answer was lost, is applied again when it is sent again.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, TypeAlias

from linearizable.history import OK, UNKNOWN, History, Operation, Scalar, Value
from linearizable.models import model_of

Fault: TypeAlias = Literal["lease", "sessions"]
CALL_NS_MAX = 1_000_000
ELECTION_NS = 5 * CALL_NS_MAX
_SLOW = 0.0005
_SLOW_FACTOR = 500


@dataclass(slots=True)
class _Call:
    lane: int
    key: str
    begin: int
    effects: list[int]
    end: int | None
    verb: str = ""
    arguments: tuple[Scalar, ...] = ()
    results: list[Value] = field(default_factory=list[Value])


def simulated(
    seed: int,
    calls: int,
    *,
    lanes: int = 8,
    keys: tuple[str, ...] = ("counter/a",),
    failures: int = 20,
    unknown: float = 0.003,
    fault: Fault | None = None,
) -> History:
    """So many calls by so many clients, each one at a time. `unknown` is the share of calls whose outcome is never
    known, besides those in flight at a failure."""
    # Failures come at even times over the time that the calls take, roughly.
    whole = calls * CALL_NS_MAX // lanes
    failing = [whole * (number + 1) // (failures + 1) for number in range(failures)]
    cluster = _Cluster(random.Random(seed), failing, lanes, unknown, fault)
    made = cluster.calls(calls, keys)
    cluster.run(made)
    return History([_noted(call) for call in made])


@dataclass(slots=True)
class _Cluster:
    luck: random.Random
    failing: list[int]
    lanes: int
    unknown: float
    fault: Fault | None

    def calls(self, number: int, keys: tuple[str, ...]) -> list[_Call]:
        """When each is made, takes effect, and ends."""
        luck = self.luck
        free = [(luck.randrange(CALL_NS_MAX), lane) for lane in range(self.lanes)]
        heapq.heapify(free)
        made: list[_Call] = []
        for _ in range(number):
            begin, lane = heapq.heappop(free)
            took = luck.randrange(1000, CALL_NS_MAX) * (_SLOW_FACTOR if luck.random() < _SLOW else 1)
            call = _Call(lane, luck.choice(keys), begin, [luck.randrange(begin + 1, begin + took)], begin + took)
            failed = self._fail(call)
            heapq.heappush(free, ((call.end or 0) + luck.randrange(1000, CALL_NS_MAX // 4), lane))
            if luck.random() < (0.3 if failed else self.unknown):
                call.end = None
                late = begin + took * luck.randrange(1, 50)
                call.effects = luck.choice(([], call.effects, [late]))
            made.append(call)
        return made

    def _fail(self, call: _Call) -> bool:
        """Whether the leader fails during the call, which then is sent again, to the next leader."""
        place = bisect_right(self.failing, call.begin)
        if place == len(self.failing) or self.failing[place] > (call.end or 0):
            return False
        again = self.failing[place] + ELECTION_NS + self.luck.randrange(1, CALL_NS_MAX)
        call.end = again + self.luck.randrange(1, CALL_NS_MAX)
        if call.effects[0] > self.failing[place]:
            call.effects = [again]
        elif self.fault == "sessions":
            call.effects.append(again)
        return True

    def run(self, made: list[_Call]) -> None:
        """Gives the calls their results, in the order of their effects."""
        states: dict[str, Scalar] = {}
        old: dict[str, Scalar] = {}
        values = count()
        failed = 0
        effects = sorted((time, number) for number, call in enumerate(made) for time in (call.effects or [call.begin]))
        for time, number in effects:
            call = made[number]
            while failed < len(self.failing) and self.failing[failed] < time:
                old = dict(states)
                failed += 1
            initial = model_of(call.key).initial
            state = states.get(call.key, initial)
            if not call.verb:
                _choose(self.luck, call, state, values)
            is_read = call.verb in ("read", "get")
            sleeps = (
                failed and time < self.failing[failed - 1] + 2 * ELECTION_NS and call.lane < max(1, self.lanes // 3)
            )
            if self.fault == "lease" and sleeps and is_read:
                state = old.get(call.key, initial)
            after, result = _applied(call, state)
            call.results.append(result)
            if call.effects and not is_read:
                states[call.key] = after


def _choose(luck: random.Random, call: _Call, state: Scalar, values: count[int]) -> None:
    value = f"v{next(values)}"
    expected = state if luck.random() < 0.7 else "v0"
    name, _, _ = call.key.partition("/")
    if name == "counter":
        choices: list[tuple[str, tuple[Scalar, ...]]] = [("read", ()), ("increment", (1,)), ("increment", (1,))]
    elif name == "register":
        choices = [("read", ()), ("write", (value,)), ("cas", (expected, value))]
    else:
        choices = [("get", ()), ("put", (value,)), ("delete", ()), ("cas", (expected, value))]
    call.verb, call.arguments = luck.choice(choices)


def _applied(call: _Call, state: Scalar) -> tuple[Scalar, Value]:
    arguments = call.arguments
    match call.verb:
        case "read" | "get":
            return state, state
        case "write" | "put":
            return arguments[0], None
        case "delete":
            return None, state
        case "cas":
            return (arguments[1], (True, state)) if state == arguments[0] else (state, (False, state))
        case _:
            after = int(state or 0) + int(arguments[0] or 0)
            return after, after


def _noted(call: _Call) -> Operation:
    known = call.end is not None
    return Operation(
        f"c{call.lane}",
        call.key,
        call.verb,
        call.arguments,
        call.begin,
        call.end,
        OK if known else UNKNOWN,
        call.results[-1] if known else None,
    )
