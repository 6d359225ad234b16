"""Answers of calls that nobody waits for in a thread of their own: one wake-up delivers many."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any

from graft import _engine
from graft._errors import GraftError, Stopped, UnknownOutcome
from graft._plan import COMMAND, QUERY, Plan
from graft._result import Result

if TYPE_CHECKING:
    from graft._engine import Reply
    from graft._graft import Completions, NativeNode

    Outcome = tuple[Reply, int, int] | GraftError

# The thread is woken for every answer; this only bounds how long it stays when nobody closes it.
_WAIT_SECONDS = 1.0


CHANGE = 2
"""The kind, beside `COMMAND` and `QUERY`, of a change of the membership."""
SNAPSHOT = 3
"""The kind of a request for a snapshot."""
_UNANSWERED = {
    QUERY: "the node stopped before the query was answered",
    SNAPSHOT: "the node stopped before the snapshot was done",
}


def unanswered(kind: int) -> GraftError:
    """What a call gets whose node stopped before it answered."""
    if kind == COMMAND:
        return UnknownOutcome("the node stopped before the command was answered; it may have been applied")
    if kind == CHANGE:
        return UnknownOutcome(
            "the node stopped before the change of the membership was answered; it may have been made",
            fix="look at `members` of another node",
        )
    return Stopped(_UNANSWERED[kind])


class Notifier:
    """Sets the results of `concurrent.futures.Future`s, in one daemon thread."""

    def __init__(self, id_: str) -> None:
        self._queue: Completions = _engine.load().Completions()
        self._tokens = itertools.count()
        self._waiting: dict[int, tuple[Future[Result[Any]], Plan]] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"graft-notify-{id_}", daemon=True)
        self._thread.start()

    def submit(self, native: NativeNode, plan: Plan, seconds: float, consistency: str) -> Future[Result[Any]]:
        """Sends the call. The future cannot take it back: cancelling only means that nobody wants to know."""
        token = next(self._tokens)
        future: Future[Result[Any]] = Future()
        self._waiting[token] = future, plan
        try:
            native.submit(plan.kind, plan.body, seconds, consistency, self._queue, token)
        except BaseException:
            self._waiting.pop(token, None)
            raise
        return future

    def close(self, seconds: float) -> None:
        """Delivers what has come, and ends the thread. Called after the node has stopped."""
        self._closed = True
        self._deliver()
        self._queue.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._closed:
            self._queue.wait(_WAIT_SECONDS)
            self._deliver()
        self._deliver()
        while self._waiting:
            _, (future, plan) = self._waiting.popitem()
            _settle(future, unanswered(plan.kind))

    def _deliver(self) -> None:
        for token, outcome in self._queue.drain():
            waiting = self._waiting.pop(token, None)
            if waiting is not None:
                future, plan = waiting
                _settle(future, _result(plan, outcome))


def _result(plan: Plan, outcome: Outcome) -> Result[Any] | BaseException:
    if isinstance(outcome, BaseException):
        return outcome
    reply, index, term = outcome
    try:
        return Result(plan.value(reply, index), index, term)
    except Exception as error:  # noqa: BLE001 - it is the caller's
        return error


def _settle(future: Future[Result[Any]], result: Result[Any] | BaseException) -> None:
    try:
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
    except InvalidStateError:
        pass  # cancelled: nobody wants to know
