"""One call after the other, each noted before and after."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import graft
from linearizable import FAILED, OK, UNKNOWN, Journal, Outcome, Scalar, Value
from linearizable.models import READS

from chaos.machine import Store

_RESOLVE_SECONDS = 30.0
_PAUSE_SECONDS = 0.02


class Lane:
    """A caller that waits for its answers: with calls that block, or with awaitables."""

    def __init__(
        self, name: str, client: graft.Client[Store], journal: Journal, counts: Counter[str], *, is_async: bool
    ) -> None:
        self._name = name
        self._client = client
        self._journal = journal
        self._counts = counts
        self._runner = asyncio.Runner() if is_async else None

    def close(self) -> None:
        """Nothing more is called."""
        if self._runner is not None:
            self._runner.close()

    def call(
        self,
        key: str,
        verb: str,
        *arguments: Scalar,
        seconds: float | None = None,
        is_left: bool = False,
    ) -> tuple[Outcome, Value]:
        """Makes a call that takes `seconds` at most, and notes it. An outcome that is unknown is found out, unless it
        `is_left`. The arguments of a read say how it is read, as in `linearizable.models`."""
        called = self._journal.called(self._name, key, verb, arguments)
        model, _, name = key.partition("/")
        method = getattr(Store, f"{model}_{verb}")
        if verb in READS:
            outcome, value = self._read(self._reading(seconds, *arguments), method, name)
        else:
            calls = self._client.options(timeout=seconds)
            outcome, value = self._execute(calls, method, name, *arguments, is_left=is_left)
        self._journal.ended(called, outcome, value)
        self._counts[outcome] += 1
        return outcome, value

    def _reading(self, seconds: float | None, kind: Any = "linearizable", age_ms: Any = None) -> graft.Calls[Store]:
        age = None if age_ms is None else age_ms / 1000
        return self._client.options(timeout=seconds, consistency=kind, max_age=age)

    def _read(self, calls: graft.Calls[Store], method: Any, name: str) -> tuple[Outcome, Value]:
        try:
            if self._runner is None:
                return OK, calls.query(method, name)
            return OK, self._runner.run(_awaited(calls.aio.query, method, name))
        except graft.ApplyError:
            raise
        except graft.GraftError as error:
            self._counts[f"{error.code} of a read"] += 1
            return FAILED, None

    def _execute(
        self, calls: graft.Calls[Store], method: Any, *arguments: Scalar, is_left: bool
    ) -> tuple[Outcome, Value]:
        try:
            if self._runner is None:
                return OK, _value(calls.execute(method, *arguments))
            return OK, _value(self._runner.run(_awaited(calls.aio.execute, method, *arguments)))
        except graft.ApplyError:
            raise
        except graft.UnknownOutcome as error:
            self._counts[error.code] += 1
            return (UNKNOWN, None) if is_left else self._resolved(error)
        except graft.SessionExpired as error:
            # It says so of the last attempt alone.
            self._counts[error.code] += 1
            return UNKNOWN, None
        except graft.GraftError as error:
            self._counts[error.code] += 1
            return FAILED, None

    def _resolved(self, error: graft.UnknownOutcome) -> tuple[Outcome, Value]:
        """What a call of unknown outcome gave. Only an answer ends the doubt: that it is refused now says nothing of
        the first time."""
        deadline = time.monotonic() + _RESOLVE_SECONDS
        while error.resolvable and (left := deadline - time.monotonic()) > 0:
            try:
                value = _value(self._asked_again(error, left))
            except graft.ApplyError:
                raise
            except graft.UnknownOutcome as again:
                error = again
            except graft.GraftError as refused:
                self._counts[f"{refused.code} when found out"] += 1
                if not refused.retryable:
                    break
            else:
                self._counts["resolved"] += 1
                return OK, value
            time.sleep(_PAUSE_SECONDS)
        return UNKNOWN, None

    def _asked_again(self, error: graft.UnknownOutcome, seconds: float) -> Any:
        return error.resolve(seconds) if self._runner is None else self._runner.run(error.aresolve(seconds))


async def _awaited(call: Any, *arguments: Any) -> Any:
    return await call(*arguments)


def _value(result: Any) -> Value:
    return tuple(result) if isinstance(result, list) else result
