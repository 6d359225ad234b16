"""What was called, when, and what came of it; in memory and in files.

A file has a line of JSON for each call and one for its end, in any order; a call without an end is of unknown outcome:

    {"id": 7, "process": "c1.2", "at": 1200, "key": "counter/a", "verb": "increment", "arguments": [1]}
    {"id": 7, "process": "c1.2", "at": 1950, "outcome": "ok", "result": 12}

Times are nanoseconds of one clock that never steps, the same for all processes.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from time import monotonic_ns
from typing import Any, Literal, TypeAlias, get_args

Outcome: TypeAlias = Literal["ok", "failed", "unknown"]
OK: Literal["ok"] = "ok"
"""It was applied, and returned this."""
FAILED: Literal["failed"] = "failed"
"""It was certainly not applied, and will not be."""
UNKNOWN: Literal["unknown"] = "unknown"
"""It may take effect at any time after its call, or never."""

_CALL_FIELDS = {"id", "process", "at", "key", "verb", "arguments"}
_END_FIELDS = {"id", "process", "at", "outcome", "result"}

Scalar: TypeAlias = str | int | None
Value: TypeAlias = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One call. What stands before the slash of its key names the model: "counter/a"."""

    process: str
    key: str
    verb: str
    arguments: tuple[Scalar, ...]
    call: int
    end: int | None
    outcome: Outcome
    result: Value = None

    def __str__(self) -> str:
        said = f"{self.verb}({', '.join(map(repr, self.arguments))})"
        return f"{said} -> {self.result!r}" if self.outcome == OK else f"{said}: {self.outcome}"


@dataclass
class History:
    """Operations, in no particular order."""

    operations: list[Operation]

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)

    def outcomes(self) -> Counter[Outcome]:
        """How many ended in which way."""
        return Counter(operation.outcome for operation in self.operations)

    def by_key(self) -> dict[str, list[Operation]]:
        """The operations of each key."""
        found: dict[str, list[Operation]] = {}
        for operation in self.operations:
            found.setdefault(operation.key, []).append(operation)
        return found

    def save(self, path: Path) -> None:
        """Writes a file that `load` reads."""
        with path.open("w") as file:
            for number, operation in enumerate(sorted(self.operations, key=lambda one: one.call)):
                file.write(_call_line(number, operation))
                if operation.end is not None:
                    file.write(_end_line(number, operation))

    @staticmethod
    def load(paths: Iterable[Path]) -> History:
        """Reads files that `save` or `Journal` wrote. A last line that was cut short is left out.

        Raises `ValueError`, with file and line, for what no history has.
        """
        operations: list[Operation] = []
        for path in paths:
            operations += _read(path)
        return History(operations)


class Journal:
    """Writes down what a process does, a line a system call: what was written stays when the process is killed."""

    def __init__(self, path: Path) -> None:
        """Begins a new file. Raises `FileExistsError`."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._ids = count()

    def called(self, process: str, key: str, verb: str, arguments: tuple[Scalar, ...]) -> tuple[int, Operation]:
        """Notes a call that is about to be made. What it gives `ended` takes."""
        number = next(self._ids)
        operation = Operation(process, key, verb, arguments, monotonic_ns(), None, UNKNOWN)
        os.write(self._file, _call_line(number, operation).encode())
        return number, operation

    def ended(self, called: tuple[int, Operation], outcome: Outcome, result: Value = None) -> None:
        """Notes what came of it."""
        number, operation = called
        operation = replace(operation, end=monotonic_ns(), outcome=outcome, result=result)
        os.write(self._file, _end_line(number, operation).encode())

    def close(self) -> None:
        """Nothing more comes."""
        os.close(self._file)


def _call_line(number: int, operation: Operation) -> str:
    words = {
        "id": number,
        "process": operation.process,
        "at": operation.call,
        "key": operation.key,
        "verb": operation.verb,
        "arguments": operation.arguments,
    }
    return json.dumps(words) + "\n"


def _end_line(number: int, operation: Operation) -> str:
    words = {
        "id": number,
        "process": operation.process,
        "at": operation.end,
        "outcome": operation.outcome,
        "result": operation.result,
    }
    return json.dumps(words) + "\n"


def _read(path: Path) -> list[Operation]:
    text = path.read_text()
    calls: dict[int, dict[str, Any]] = {}
    ends: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        try:
            words: dict[str, Any] = json.loads(line)
            into, fields = (ends, _END_FIELDS) if "outcome" in words else (calls, _CALL_FIELDS)
            if words.keys() != fields:
                raise ValueError(f"it should have {', '.join(sorted(fields))}")
            if words["id"] in into:
                raise ValueError(f"there is a call {words['id']} already")
            if into is ends and words["outcome"] not in get_args(Outcome):
                raise ValueError(f"there is no outcome {words['outcome']!r}")
            into[words["id"]] = words
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path}:{number}: no line of a history: {error}") from error
    if strays := ends.keys() - calls.keys():
        raise ValueError(f"{path}: calls that ended and never began: {sorted(strays)[:5]}")
    return [_operation(called, ends.get(number)) for number, called in calls.items()]


def _operation(called: dict[str, Any], ended: dict[str, Any] | None) -> Operation:
    result = None if ended is None else ended["result"]
    return Operation(
        process=called["process"],
        key=called["key"],
        verb=called["verb"],
        arguments=tuple(called["arguments"]),
        call=called["at"],
        end=None if ended is None else ended["at"],
        outcome=UNKNOWN if ended is None else ended["outcome"],
        result=tuple(result) if isinstance(result, list) else result,
    )
