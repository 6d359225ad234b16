"""Answers of calls that nobody waits for in a thread of their own: one wake-up delivers many."""

from __future__ import annotations

import itertools
import threading
import weakref
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any

from graft import _engine
from graft._errors import GraftError, Stopped, UnknownOutcome
from graft._plan import COMMAND, QUERY, Plan
from graft._resolving import remember
from graft._result import Result

if TYPE_CHECKING:
    from graft._access import Access
    from graft._engine import Reply
    from graft._graft import Completions, NativeCalls
    from graft._reading import Reading

    Outcome = tuple[Reply, int, int] | GraftError

# The thread is woken for every answer; this only bounds how long it stays when nobody closes it.
_WAIT_SECONDS = 1.0


CHANGE = 2
"""The kind, beside `COMMAND` and `QUERY`, of a change of the membership."""
SNAPSHOT = 3
"""The kind of a request for a snapshot."""
LOOK = 4
"""The kind of a question about the state of things."""
VERIFY = 5
"""The kind of a request to compare the members' states."""
WAKE = 6
"""The kind of a wait for something to read."""
BACKUP = 7
"""The kind of a request for a backup."""
_UNANSWERED = {
    BACKUP: "the node stopped, or the client was closed, before the backup was made",
    QUERY: "the node stopped, or the client was closed, before the query was answered",
    SNAPSHOT: "the node stopped, or the client was closed, before the snapshot was done",
    LOOK: "the node stopped, or the client was closed, before it answered",
    VERIFY: "the node stopped, or the client was closed, before the states were compared",
}


def unanswered(kind: int) -> GraftError:
    """What a call gets whose node stopped before it answered."""
    if kind == COMMAND:
        return UnknownOutcome(
            "the node stopped, or the client was closed, before the command was answered; it may have been applied",
            fix="look at the state before you send the command again",
        )
    if kind == CHANGE:
        return UnknownOutcome(
            "the node stopped, or the client was closed, before the change of the membership was answered; it may have "
            "been made",
            fix="look at `members` of another node",
        )
    return Stopped(_UNANSWERED[kind])


class Notifier:
    """Sets the results of `concurrent.futures.Future`s, in one daemon thread."""

    def __init__(self, access: Access[Any]) -> None:
        # Weak: the thread must not keep alive what stops when nobody has it any more.
        self._access = weakref.ref(access)
        self._queue: Completions = _engine.load().Completions()
        self._tokens = itertools.count()
        self._waiting: dict[int, tuple[Future[Result[Any]], Plan, float]] = {}
        self._closed = False
        self._thread = threading.Thread(
            target=self._run, name=f"graft-notify-{access._title.rpartition(' ')[2]}", daemon=True
        )
        self._thread.start()

    def submit(self, native: NativeCalls, plan: Plan, seconds: float, reading: Reading) -> Future[Result[Any]]:
        """Sends the call. Nothing takes it back from then on, so the future is that of a call that runs."""
        token = next(self._tokens)
        future: Future[Result[Any]] = Future()
        future.set_running_or_notify_cancel()
        self._waiting[token] = future, plan, seconds
        try:
            if plan.kind == COMMAND:
                native.submit_execute(plan.body, seconds, None, self._queue, token)
            else:
                native.submit_query_many([plan.body], seconds, reading, self._queue, token)
        except BaseException:
            self._waiting.pop(token, None)
            raise
        if self._closed:
            # The thread may have ended before it could see this call, and nobody else would answer it.
            self._give_up()
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
        self._give_up()

    def _give_up(self) -> None:
        # By the thread at its end, and by whoever calls meanwhile: each call is popped by one of them.
        self._deliver()
        for token in list(self._waiting):
            waiting = self._waiting.pop(token, None)
            if waiting is not None:
                future, plan, _ = waiting
                _settle(future, unanswered(plan.kind))

    def _deliver(self) -> None:
        for token, outcome in self._queue.drain():
            waiting = self._waiting.pop(token, None)
            if waiting is not None:
                future, plan, seconds = waiting
                if isinstance(outcome, GraftError):
                    remember(outcome, self._access(), plan, seconds)
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
        pass  # the caller has set it himself
