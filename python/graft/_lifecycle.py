"""Nodes, clients, and the process they live in: its exit, its forks, its event loops."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from graft._context import here
from graft._errors import Stopped

if TYPE_CHECKING:
    from graft._access import Access

_EXIT_SECONDS_MAX = 5.0
_EXIT_SECONDS_EACH = 2.0
# What to say where the awaitable mirror has nothing of the same name.
_IN_EVENT_LOOP = {
    "events": "write `async for event in {noun}.aio.events()`",
    "watch": "write `async for event in {noun}.aio.watch()`",
    "members": "write `async for member in {noun}.aio.members`",
    "serve_forever": "let the node live in `async with node.aio:`, or call it where no loop runs",
    "LocalCluster": "make it before the loop runs, or write `await asyncio.to_thread(graft.LocalCluster, ...)`",
    "resolve": "write `await error.aresolve()`",
}


class _Process:
    """What this module knows of the process."""

    def __init__(self) -> None:
        self.generation = 0
        self.running: weakref.WeakSet[Access[Any]] = weakref.WeakSet()
        self.exit_hook = False


process = _Process()


def track(access: Access[Any]) -> None:
    """Has it stopped before the interpreter goes down: its threads must not outlive it."""
    if not process.exit_hook:
        process.exit_hook = True
        atexit.register(_stop_all)
    process.running.add(access)


def untrack(access: Access[Any]) -> None:
    """It has stopped."""
    process.running.discard(access)


def refuse_after_fork(generation: int, title: str) -> None:
    """Raises `Stopped` if the node or client was made before this process was forked."""
    if generation != process.generation:
        noun = title.partition(" ")[0]
        raise Stopped(
            f"{title} lives in the process that this one was forked from; its threads and sockets do not exist here",
            fix=f"start child processes by multiprocessing's 'spawn' or 'forkserver', and make a {noun} in them",
        )


def refuse_on_machine_thread(what: str) -> None:
    """Raises `RuntimeError` if a state machine is running on this thread: it would wait for itself."""
    if here.in_machine:
        raise RuntimeError(
            f"{what}() was called from within a state machine: a command that waits for the cluster would wait for "
            "itself for ever; return first, and call from outside"
        )


def refuse_in_event_loop(what: str, noun: str) -> None:
    """Raises `RuntimeError` if an event loop runs on this thread: blocking would stop all its tasks.
    In a notebook there is always one, and cells may block it."""
    # While another thread is at importing asyncio, the module is there and has nothing yet: no loop runs then.
    running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    if running is None or running() is None or is_in_notebook():
        return
    instead = _IN_EVENT_LOOP.get(what, f"write `await {noun}.aio.{what}(...)`").format(noun=noun)
    raise RuntimeError(f"{what}() would block the running event loop: {instead}")


def is_in_notebook() -> bool:
    """Whether this is a notebook's cell: the main thread of a kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    if shell is None or threading.current_thread() is not threading.main_thread():
        return False
    return getattr(shell(), "kernel", None) is not None


def _stop_all() -> None:
    deadline = time.monotonic() + _EXIT_SECONDS_MAX
    for access in list(process.running):
        left = max(0.1, deadline - time.monotonic())
        with suppress(Exception):
            access._end(min(left, _EXIT_SECONDS_EACH))
    if "graft._logging" in sys.modules:
        from graft._logging import forwarder

        forwarder.stop()


def _after_fork_in_child() -> None:
    process.generation += 1
    process.running = weakref.WeakSet()
    if "graft._logging" in sys.modules:
        from graft._logging import forwarder

        forwarder.forget()
    engine = sys.modules.get("graft._graft")
    if engine is not None:
        engine.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
