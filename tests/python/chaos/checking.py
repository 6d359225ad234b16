"""Checks histories in a process of its own, while the next is made."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from linearizable import OK, History, Operation, Verdict, check
from linearizable.models import READS

Checking: TypeAlias = "Future[Checked]"


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of it."""

    paths: list[Path]
    verdict: Verdict
    outcomes: Counter[str]
    reads: Counter[str]
    """Those that were answered, by how they were read."""


class Checker:
    """That process."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def begin(self, paths: list[Path]) -> Checking:
        """Begins to check what is in these files."""
        return self._pool.submit(checked, paths)

    def close(self) -> None:
        """Ends it."""
        self._pool.shutdown(cancel_futures=True)


def checked(paths: list[Path]) -> Checked:
    """Checks what is in these files."""
    history = History.load(paths)
    reads = Counter(_kind(one) for one in history if one.verb in READS and one.outcome == OK)
    return Checked(paths, check(history), Counter[str](history.outcomes()), reads)


def _kind(read: Operation) -> str:
    return " ".join(map(str, read.arguments)) or "linearizable"
