"""The awaitable mirror of the calls of nodes and clients."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack, overload

from graft import _units, _what_if
from graft._completions import BACKUP, LOOK, SNAPSHOT, VERIFY
from graft._errors import GraftError
from graft._machine import Command, Query, StateMachine
from graft._plan import COMMAND, QUERY
from graft._readiness import readiness
from graft._resolving import remember
from graft._result import Result
from graft._snapshotting import unfinished
from graft._verbs import BACKUP_SECONDS, SNAPSHOT_SECONDS, VERIFY_SECONDS, Proxy, chosen, gathered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from graft._access import Access
    from graft._aio_members import AsyncMembers
    from graft._engine import Reply
    from graft._events import AsyncEvents
    from graft._graft import Completions
    from graft._health import Health
    from graft._loops import LoopCalls
    from graft._node import Node
    from graft._plan import Plan
    from graft._reading import Consistency, Reading
    from graft._status import Status
    from graft._units import Duration
    from graft._verification import Verification
    from graft._watch import AsyncWatch, Since
    from graft._what_if import Question, WhatIf

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=StateMachine)

_POLL_SECONDS = 0.02


class AsyncCalls(Generic[S]):
    """What `Calls` has, for `await`. Cancelling a call does not take a command back."""

    def __init__(self, access: Access[S], seconds: float, reading: Reading) -> None:
        self._access = access
        self._seconds = seconds
        self._reading = reading

    @overload
    async def execute(self, command: Command[S, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def execute(self, command: str, /, *args: Any, **kwargs: Any) -> Any: ...
    @overload
    async def execute(self, command: bytes, /) -> Any: ...
    async def execute(self, command: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See `Calls.execute`."""
        plan = self._access._catalog.plan(COMMAND, command, args, kwargs)
        reply, index, _ = await self._outcome(plan, self._send("execute", plan))
        return plan.value(reply, index)

    @overload
    async def query(self, query: Query[S, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def query(self, query: str, /, *args: Any, **kwargs: Any) -> Any: ...
    @overload
    async def query(self, query: bytes, /) -> Any: ...
    async def query(self, query: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See `Calls.query`."""
        plan = self._access._catalog.plan(QUERY, query, args, kwargs)
        reply, index, _ = await self._outcome(plan, self._send("query", plan))
        return plan.value(reply, index)

    @overload
    def submit(self, call: Command[S, P, R], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Task[Result[R]]: ...
    @overload
    def submit(self, call: Query[S, P, R], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Task[Result[R]]: ...
    @overload
    def submit(self, call: str, /, *args: Any, **kwargs: Any) -> asyncio.Task[Result[Any]]: ...
    @overload
    def submit(self, call: bytes, /) -> asyncio.Task[Result[Any]]: ...
    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> asyncio.Task[Result[Any]]:
        """See `Calls.submit`. The call is sent when this turn of the loop is over, awaited or not; what it gives can be
        awaited. Raises `RuntimeError` where no event loop runs."""
        catalog, loop = self._access._catalog, asyncio.get_running_loop()
        plan = catalog.plan(catalog.kind_of(call), call, args, kwargs)
        sent = self._send("submit", plan)
        task = loop.create_task(self._result(plan, sent))
        # One that is cancelled before it begins does not take its answer, and an error would be told of as lost.
        task.add_done_callback(lambda _: sent.cancel())
        return task

    async def execute_many(
        self, calls: Iterable[tuple[Any, ...] | bytes], /, *, return_errors: bool = False
    ) -> list[Any]:
        """See `Calls.execute_many`."""
        plans = [self._access._catalog.plan_of(call) for call in calls]
        if not plans:
            return []
        native = self._access._engine("execute_many")
        submit = partial(native.submit_execute_many, [plan.body for plan in plans], self._seconds)
        sent = self._loop().send_many(COMMAND, len(plans), submit)
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        for plan, outcome in zip(plans, outcomes, strict=True):
            if isinstance(outcome, GraftError):
                remember(outcome, self._access, plan, self._seconds)
            elif isinstance(outcome, BaseException):
                raise outcome
        return gathered(plans, outcomes, return_errors=return_errors)

    def options(
        self,
        *,
        timeout: Duration | None = None,
        consistency: Consistency | None = None,
        max_age: Duration | None = None,
        at_least: int | None = None,
    ) -> AsyncCalls[S]:
        """See `Calls.options`."""
        return AsyncCalls(self._access, *chosen(self, timeout, consistency, max_age, at_least))

    @property
    def proxy(self) -> Any:
        """See `Calls.proxy`; what is called on this one can be awaited: `await node.aio.proxy.deposit("ann", 1)`."""
        return Proxy(self)

    async def status(self) -> Status:
        """See `Node.status` and `Client.status`."""
        return await self._access._status_later()

    @property
    def members(self) -> AsyncMembers:
        """See `Node.members`."""
        from graft._aio_members import AsyncMembers

        return AsyncMembers(self._access)

    def events(self, since: int | None = None, timeout: Duration | None = None) -> AsyncEvents:
        """See `Node.events`; this one is for `async for`."""
        from graft._events import AsyncEvents

        return AsyncEvents(self._access, since, timeout)

    def watch(self, *topics: str, since: Since | None = None, timeout: Duration | None = None) -> AsyncWatch:
        """See `Node.watch`; this one is for `async for`."""
        from graft._watch import AsyncWatch

        return AsyncWatch(self._access, topics, since, timeout)

    async def why(self) -> str:
        """See `Node.why`."""
        return await self._access._why_later()

    async def health(self) -> Health:
        """See `Node.health`."""
        return await self._access._health_later()

    async def what_if(self, **change: Unpack[Question]) -> WhatIf:
        """See `Node.what_if`."""
        asked = _what_if.change_of(change).what
        submit = partial(self._access._engine("what_if").submit_what_if, asked)
        return _what_if.from_native(await self._look(submit))

    async def verify(self, timeout: Duration = VERIFY_SECONDS) -> Verification:
        """See `Node.verify`."""
        from graft._verification import verification

        submit = partial(self._access._engine("verify").submit_verify, _units.seconds("timeout", timeout))
        digests, index, _ = await self._loop().send(VERIFY, submit)
        return verification(digests, index, await self.status())

    async def snapshot(self, timeout: Duration = SNAPSHOT_SECONDS) -> int:
        """See `Node.snapshot`."""
        seconds = _units.seconds("timeout", timeout)
        submit = partial(self._access._engine("snapshot").submit_snapshot, seconds)
        try:
            _, index, _ = await self._loop().send(SNAPSHOT, submit)
        except GraftError as error:
            raise unfinished(error, await self._access._last_status_later(), seconds) from None
        return int(index)

    async def backup(self, path: str | os.PathLike[str], timeout: Duration = BACKUP_SECONDS) -> int:
        """See `Node.backup`."""
        seconds = _units.seconds("timeout", timeout)
        submit = partial(self._access._engine("backup").submit_backup, os.fspath(path), seconds)
        _, index, _ = await self._loop().send(BACKUP, submit)
        return int(index)

    def __repr__(self) -> str:
        return f"<awaitable calls of {self._access!r}, timeout={self._seconds:g}, {self._reading}>"

    def _send(self, verb: str, plan: Plan) -> asyncio.Future[Any]:
        native = self._access._engine(verb)
        reading = None if plan.kind == COMMAND else self._reading
        return self._loop().call(native, self._seconds, reading, plan.body)

    async def _outcome(self, plan: Plan, sent: asyncio.Future[Any]) -> tuple[Reply, int, int]:
        try:
            outcome: tuple[Reply, int, int] = await sent
        except GraftError as error:
            remember(error, self._access, plan, self._seconds)
            raise
        return outcome

    async def _result(self, plan: Plan, sent: asyncio.Future[Any]) -> Result[Any]:
        reply, index, term = await self._outcome(plan, sent)
        return Result(plan.value(reply, index), index, term)

    async def _look(self, submit: Callable[[Completions, int], None]) -> Any:
        return await looked(self._access, self._seconds, submit)

    def _loop(self) -> LoopCalls:
        return self._access._loops.of(asyncio.get_running_loop())

    def _flush(self) -> None:
        """What was called before is in flight when the end begins on another thread."""
        loops = self._access._made_loops
        if loops is not None:
            loops.flush(asyncio.get_running_loop())


class AsyncNode(AsyncCalls[S]):
    """The awaitable mirror of a `Node`: its calls, its beginning and its end."""

    _access: Node[S]

    async def wait_ready(self, timeout: Duration = 10.0) -> Node[S]:
        """See `Node.wait_ready`."""
        seconds = _units.seconds("timeout", timeout)
        deadline = time.monotonic() + seconds
        ready = readiness(self._access)
        while not ready(deadline, seconds):  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(_POLL_SECONDS)
        return self._access

    async def start(self) -> Node[S]:
        """See `Node.start`."""
        return await asyncio.to_thread(self._access.start)

    async def stop(self, timeout: Duration = 5.0, *, leave: bool = False) -> None:
        """See `Node.stop`."""
        self._flush()
        await asyncio.to_thread(self._access.stop, timeout, leave=leave)

    async def __aenter__(self) -> Node[S]:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def looked(access: Access[Any], seconds: float, submit: Callable[[Completions, int], None]) -> Any:
    """The answer to a question about the state of things. Raises `Timeout`."""
    future = access._loops.of(asyncio.get_running_loop()).send(LOOK, submit)
    done, _ = await asyncio.wait({future}, timeout=seconds)
    if not done:
        future.cancel()
        raise access._late(seconds)
    return future.result()
