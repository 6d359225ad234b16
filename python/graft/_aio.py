"""The awaitable mirror of a node's calls.

Each event loop that calls a node has a queue of completions in the engine. One file descriptor wakes the loop for all
answers that have come meanwhile; the engine never takes the interpreter's lock for it. Loops that cannot watch a
descriptor are woken by a thread.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack, overload

from graft import _engine, _units
from graft._completions import SNAPSHOT, unanswered
from graft._errors import GraftError
from graft._machine import Command, Query, StateMachine
from graft._plan import COMMAND, QUERY, Plan
from graft._readiness import readiness
from graft._snapshotting import unfinished
from graft._verbs import SNAPSHOT_SECONDS, chosen, gathered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from graft._aio_members import AsyncMembers
    from graft._completions import Outcome
    from graft._engine import Reply
    from graft._events import AsyncEvents
    from graft._graft import Completions
    from graft._node import Node
    from graft._status import Status
    from graft._units import Duration
    from graft._verbs import Consistency
    from graft._what_if import Question, WhatIf

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=StateMachine)

_WAIT_SECONDS = 1.0
_POLL_SECONDS = 0.02


class AsyncCalls(Generic[S]):
    """What `Calls` has, for `await`. Cancelling a call does not take a command back."""

    def __init__(self, node: Node[S], seconds: float, consistency: Consistency) -> None:
        self._node = node
        self._seconds = seconds
        self._consistency: Consistency = consistency

    @overload
    async def execute(self, command: Command[S, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def execute(self, command: str, /, *args: Any, **kwargs: Any) -> Any: ...
    @overload
    async def execute(self, command: bytes, /) -> Any: ...
    async def execute(self, command: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See `Calls.execute`."""
        plan = self._node._plan(COMMAND, command, args, kwargs)
        reply, index, _ = await self._sent("execute", plan)
        return plan.value(reply, index)

    @overload
    async def query(self, query: Query[S, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def query(self, query: str, /, *args: Any, **kwargs: Any) -> Any: ...
    @overload
    async def query(self, query: bytes, /) -> Any: ...
    async def query(self, query: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See `Calls.query`."""
        plan = self._node._plan(QUERY, query, args, kwargs)
        reply, index, _ = await self._sent("query", plan)
        return plan.value(reply, index)

    async def execute_many(
        self, calls: Iterable[tuple[Any, ...] | bytes], /, *, return_errors: bool = False
    ) -> list[Any]:
        """See `Calls.execute_many`."""
        plans = [self._node._plan_of(call) for call in calls]
        sent = [self._sent("execute_many", plan) for plan in plans]
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, GraftError):
                raise outcome
        return gathered(plans, outcomes, return_errors=return_errors)

    def options(self, *, timeout: Duration | None = None, consistency: Consistency | None = None) -> AsyncCalls[S]:
        """See `Calls.options`."""
        return AsyncCalls(self._node, *chosen(self._seconds, self._consistency, timeout, consistency))

    async def status(self) -> Status:
        """See `Node.status`, which may be called here as well: it never blocks."""
        return self._node.status()

    @property
    def members(self) -> AsyncMembers:
        """See `Node.members`."""
        from graft._aio_members import AsyncMembers

        return AsyncMembers(self._node)

    def events(self, since: int | None = None, timeout: Duration | None = None) -> AsyncEvents:
        """See `Node.events`; this one is for `async for`."""
        from graft._events import AsyncEvents

        return AsyncEvents(self._node, since, timeout)

    async def why(self) -> str:
        """See `Node.why`, which may be called here as well: it never blocks."""
        return self._node.why()

    async def what_if(self, **change: Unpack[Question]) -> WhatIf:
        """See `Node.what_if`, which may be called here as well: it never blocks."""
        return self._node.what_if(**change)

    async def snapshot(self, timeout: Duration = SNAPSHOT_SECONDS) -> int:
        """See `Node.snapshot`."""
        seconds = _units.seconds("timeout", timeout)
        submit = partial(self._node._engine("snapshot").submit_snapshot, seconds)
        try:
            _, index, _ = await self._node._loops.of(asyncio.get_running_loop()).send(SNAPSHOT, submit)
        except GraftError as error:
            raise unfinished(error, self._node.status(), seconds) from None
        return int(index)

    async def wait_ready(self, timeout: Duration = 10.0) -> Node[S]:
        """See `Node.wait_ready`."""
        seconds = _units.seconds("timeout", timeout)
        deadline = time.monotonic() + seconds
        ready = readiness(self._node)
        while not ready(deadline, seconds):  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(_POLL_SECONDS)
        return self._node

    async def start(self) -> Node[S]:
        """See `Node.start`."""
        return await asyncio.to_thread(self._node.start)

    async def stop(self, timeout: Duration = 5.0, *, leave: bool = False) -> None:
        """See `Node.stop`."""
        await asyncio.to_thread(self._node.stop, timeout, leave=leave)

    async def __aenter__(self) -> Node[S]:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _sent(self, verb: str, plan: Plan) -> asyncio.Future[tuple[Reply, int, int]]:
        submit = partial(self._node._engine(verb).submit, plan.kind, plan.body, self._seconds, self._consistency)
        return self._node._loops.of(asyncio.get_running_loop()).send(plan.kind, submit)


class LoopCalls:
    """The calls of one event loop that are not answered yet. Except for `close`, used on the loop's thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._queue: Completions = _engine.load().Completions()
        # Weak, for the loop refers to this object by the callback it watches for.
        self._loop = weakref.ref(loop)
        self._tokens = itertools.count()
        self._waiting: dict[int, tuple[asyncio.Future[Any], int]] = {}
        self._closed = False
        try:
            loop.add_reader(self._queue.fileno(), self._drain)
            self._watched = True
        except NotImplementedError:  # Windows' default loop
            self._watched = False
            waker = threading.Thread(target=_wake, args=(weakref.ref(self), self._queue), daemon=True)
            waker.name = "graft-wake-loop"
            waker.start()

    def send(self, kind: int, submit: Callable[[Completions, int], None]) -> asyncio.Future[Any]:
        """Sends a call, by `submit(queue, token)`; the future gets its outcome."""
        loop = self._loop()
        if loop is None:
            raise RuntimeError("the event loop is gone")
        future: asyncio.Future[Any] = loop.create_future()
        token = next(self._tokens)
        self._waiting[token] = future, kind
        try:
            submit(self._queue, token)
        except BaseException:
            self._waiting.pop(token, None)
            raise
        return future

    def close(self) -> None:
        """Ends it, from any thread, after the node has stopped."""
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._end)
            except RuntimeError:  # closed just now
                self._queue.close()
        else:
            self._queue.close()

    def _drain(self) -> None:
        if not self._closed:
            self.settle(self._queue.drain())

    def settle(self, outcomes: list[tuple[int, Outcome]]) -> None:
        """Hands out what has come."""
        for token, outcome in outcomes:
            future, _ = self._waiting.pop(token, (None, 0))
            if future is None or future.done():
                continue  # cancelled meanwhile
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _end(self) -> None:
        self._drain()
        self._closed = True
        loop = self._loop()
        if self._watched and loop is not None:
            loop.remove_reader(self._queue.fileno())
        self._queue.close()
        for future, kind in self._waiting.values():
            if not future.done():
                future.set_exception(unanswered(kind))
        self._waiting.clear()

    def deliver(self, outcomes: list[tuple[int, Outcome]]) -> bool:
        """Passes outcomes to the loop, from another thread. False if there is no loop any more."""
        loop = self._loop()
        if self._closed or loop is None or loop.is_closed():
            return False
        try:
            loop.call_soon_threadsafe(self.settle, outcomes)
        except RuntimeError:  # closed just now
            return False
        return True


class Loops:
    """The event loops that call a node."""

    def __init__(self) -> None:
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopCalls] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def of(self, loop: asyncio.AbstractEventLoop) -> LoopCalls:
        """The calls of this loop."""
        with self._lock:
            calls = self._by_loop.get(loop)
            if calls is None:
                calls = self._by_loop[loop] = LoopCalls(loop)
            return calls

    def close(self) -> None:
        """Called after the node has stopped."""
        with self._lock:
            open_calls = list(self._by_loop.values())
            self._by_loop.clear()
        for calls in open_calls:
            calls.close()


def _wake(calls: weakref.ref[LoopCalls], queue: Completions) -> None:
    while True:
        queue.wait(_WAIT_SECONDS)
        alive = calls()
        if alive is None or not alive.deliver(queue.drain()):
            return
        del alive
