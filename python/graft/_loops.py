"""The calls of event loops.

Each event loop that calls a node or a client has a queue of completions in the engine. One file descriptor wakes the
loop for all answers that have come meanwhile; the engine never takes the interpreter's lock for it. Loops that cannot
watch a descriptor are woken by a thread.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from graft import _engine
from graft._completions import WAKE, unanswered

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from graft._completions import Outcome
    from graft._graft import Completions

_WAIT_SECONDS = 1.0


class LoopCalls:
    """The calls of one event loop that are not answered yet. Except for `close`, used on the loop's thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._queue: Completions = _engine.load().Completions()
        # Weak, for the loop refers to this object by the callback it watches for.
        self._loop = weakref.ref(loop)
        self._next = 0
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
        return self.send_many(kind, 1, submit)[0]

    def send_many(self, kind: int, count: int, submit: Callable[[Completions, int], None]) -> list[asyncio.Future[Any]]:
        """Sends calls that are numbered from the token on that `submit(queue, token)` is given."""
        loop = self._loop()
        if loop is None:
            raise RuntimeError("the event loop is gone")
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
        with self._lock:
            calls = self._by_loop.get(loop)
            if calls is None:
                calls = self._by_loop[loop] = LoopCalls(loop)
            return calls

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
