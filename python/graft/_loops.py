"""The calls of event loops.

Each event loop that calls a node or a client has a queue of completions in the engine. One file descriptor wakes the
loop for all answers that have come meanwhile; the engine never takes the interpreter's lock for it. Loops that cannot
watch a descriptor are woken by a thread.

What the tasks of a loop call in one of its turns goes to the engine together, when that turn is over: one crossing, one
batch in the log, and one wake-up for the answers.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from graft import _engine
from graft._completions import WAKE, unanswered
from graft._plan import COMMAND, QUERY

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from graft._completions import Outcome
    from graft._graft import Completions, NativeCalls
    from graft._reading import Reading

_WAIT_SECONDS = 1.0
# As many as a machine is given in one call: the engine begins with them while the loop makes more.
_BATCH_MAX = 1024


class _Batch(NamedTuple):
    """Calls that are alike, and numbered from `first` on."""

    native: NativeCalls
    seconds: float
    reading: Reading | None
    """None for commands."""
    first: int
    bodies: list[bytes]

    def send(self, queue: Completions) -> None:
        if self.reading is None:
            self.native.submit_execute_many(self.bodies, self.seconds, queue, self.first)
        else:
            self.native.submit_query_many(self.bodies, self.seconds, self.reading, queue, self.first)


class LoopCalls:
    """The calls of one event loop that are not answered yet. Except for `close`, used on the loop's thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._queue: Completions = _engine.load().Completions()
        # Weak, for the loop refers to this object by the callback it watches for.
        self._loop = weakref.ref(loop)
        self._next = 0
        self._waiting: dict[int, tuple[asyncio.Future[Any], int]] = {}
        self._batch: _Batch | None = None
        self._closed = False
        try:
            loop.add_reader(self._queue.fileno(), self._drain)
            self._watched = True
        except NotImplementedError:  # Windows' default loop
            self._watched = False
            waker = threading.Thread(target=_wake, args=(weakref.ref(self), self._queue), daemon=True)
            waker.name = "graft-wake-loop"
            waker.start()

    def call(self, native: NativeCalls, seconds: float, reading: Reading | None, body: bytes) -> asyncio.Future[Any]:
        """Sends a query, or a command if there is no `reading`, when this turn of the loop is over."""
        loop = self._loop()
        if loop is None:
            raise RuntimeError("the event loop is gone")
        batch = self._batch
        if batch is None or batch[:3] != (native, seconds, reading):
            self.flush()
            # In this order: after an interrupt between the two no batch waits that nobody is to send.
            loop.call_soon(self.flush)
            batch = self._batch = _Batch(native, seconds, reading, self._next, [])
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting[self._next] = future, COMMAND if reading is None else QUERY
        self._next += 1
        batch.bodies.append(body)
        if len(batch.bodies) == _BATCH_MAX:
            self.flush()
        return future

    def flush(self) -> None:
        """Sends what was called in this turn."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        try:
            batch.send(self._queue)
        except Exception as error:  # noqa: BLE001 - it is for those who called
            for token in range(batch.first, batch.first + len(batch.bodies)):
                future, _ = self._waiting.pop(token)
                if not future.done():
                    future.set_exception(error)

    def send(self, kind: int, submit: Callable[[Completions, int], None]) -> asyncio.Future[Any]:
        """Sends a call, by `submit(queue, token)`; the future gets its outcome."""
        return self.send_many(kind, 1, submit)[0]

    def send_many(self, kind: int, count: int, submit: Callable[[Completions, int], None]) -> list[asyncio.Future[Any]]:
        """Sends calls that are numbered from the token on that `submit(queue, token)` is given."""
        loop = self._loop()
        if loop is None:
            raise RuntimeError("the event loop is gone")
        # What was called before goes first, and has numbers without a gap.
        self.flush()
        first = self._next
        self._next += count
        futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in range(count)]
        for token, future in enumerate(futures, first):
            self._waiting[token] = future, kind
        try:
            submit(self._queue, first)
        except BaseException:
            for token in range(first, self._next):
                self._waiting.pop(token, None)
            raise
        return futures

    def close(self) -> None:
        """Ends it, from any thread, after the engine has stopped."""
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
        self.flush()
        self._drain()
        self._closed = True
        loop = self._loop()
        if self._watched and loop is not None:
            loop.remove_reader(self._queue.fileno())
        self._queue.close()
        for future, kind in self._waiting.values():
            if future.done():
                continue
            if kind == WAKE:
                future.set_result(None)  # to see for itself that nothing follows
            else:
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
    """The event loops that call a node or a client."""

    def __init__(self) -> None:
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopCalls] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def of(self, loop: asyncio.AbstractEventLoop) -> LoopCalls:
        """The calls of this loop."""
        calls = self._by_loop.get(loop)
        if calls is None:
            # Nobody else makes those of this loop: it runs on this thread.
            calls = LoopCalls(loop)
            with self._lock:
                self._by_loop[loop] = calls
        return calls

    def flush(self, loop: asyncio.AbstractEventLoop) -> None:
        """Sends what was called in this turn of the loop, ahead of what another thread is to do next."""
        calls = self._by_loop.get(loop)
        if calls is not None:
            calls.flush()

    def close(self) -> None:
        """Called after the engine has stopped."""
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
