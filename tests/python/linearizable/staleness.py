"""Reads that may be old: how far back that what they saw may lie.

Such a read takes effect at some time before its end like any other one, but that time may lie before its call. It does
not lie before anything that the same client knew already: a client ("c1" of the process "c1.2") sees what it wrote
or saw, in every later answer, whatever it is about. Nor further back than its age, if it has one. So it is an ordinary
read that was called earlier: then, at the latest, when the last of these may have taken effect.
"""

from __future__ import annotations

import heapq
from dataclasses import replace

from linearizable.history import OK, History, Operation
from linearizable.models import READS, how_read

_MS_NS = 1_000_000


def client_of(operation: Operation) -> str:
    """Whose lane it is."""
    return operation.process.partition(".")[0]


def widened(history: History) -> History:
    """The same, with the calls of stale reads as early as they may have taken effect. Raises `Malformed`."""
    clients: dict[str, list[Operation]] = {}
    for operation in history:
        clients.setdefault(client_of(operation), []).append(operation)
    return History([operation for ours in clients.values() for operation in _of_client(ours)])


def _of_client(operations: list[Operation]) -> list[Operation]:
    found: list[Operation] = []
    known = 0
    """The client knows something that took effect then or later."""
    answers: list[tuple[int, int]] = []
    for operation in sorted(operations, key=lambda one: one.call):
        while answers and answers[0][0] < operation.call:
            known = max(known, heapq.heappop(answers)[1])
        earliest = _earliest(operation, known)
        if operation.outcome == OK and operation.end is not None:
            heapq.heappush(answers, (operation.end, earliest))
        found.append(operation if earliest == operation.call else replace(operation, call=earliest))
    return found


def _earliest(operation: Operation, known: int) -> int:
    is_stale, age_ms = how_read(operation) if operation.verb in READS else (False, None)
    if not is_stale:
        return operation.call
    bound = 0 if age_ms is None else operation.call - age_ms * _MS_NS
    return min(operation.call, max(known, bound))
