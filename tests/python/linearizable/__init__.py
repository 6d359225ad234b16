"""Decides whether a history of calls on a replicated state can be explained by one order of them (linearizability).

    verdict = check(History.load(paths))
    assert verdict.is_linearizable, verdict

`python -m linearizable FILE...` checks recorded histories again.
"""

from __future__ import annotations

from linearizable.checker import Failure, Verdict, check
from linearizable.history import FAILED, OK, UNKNOWN, History, Journal, Operation, Outcome, Scalar, Value

__all__ = [
    "FAILED",
    "OK",
    "UNKNOWN",
    "Failure",
    "History",
    "Journal",
    "Operation",
    "Outcome",
    "Scalar",
    "Value",
    "Verdict",
    "check",
]
