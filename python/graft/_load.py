"""A stream of commands, to see a cluster at work."""

from __future__ import annotations

import inspect
import threading
from typing import TYPE_CHECKING, Any, get_type_hints

from graft._errors import ConfigError, GraftError, Stopped
from graft._machine import Command

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from graft._cluster import LocalCluster

_PAUSE_SECONDS = 0.05
_JOIN_SECONDS = 5.0
# What a command is given that says no more than its types.
_VALUES: dict[Any, Any] = {int: 1, float: 1.0, str: "load", bytes: b"load", bool: True}


class Load:
    """Threads that make one call after the other until `stop()` or the end of a `with`: see `LocalCluster.load`."""

    def __init__(self, cluster: LocalCluster[Any], call: Callable[[], object] | None, threads: int) -> None:
        self._call = guess(cluster) if call is None else call
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.done = 0
        """Calls that returned."""
        self.failed = 0
        """Calls that raised."""
        self.last_error: Exception | None = None
        """What the last of those raised."""
        names = [f"graft-load-{number}" for number in range(threads)]
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return not self._ended.is_set()

    def stop(self) -> Self:
        """Ends it, after the calls that are under way. Stopping twice is fine."""
        self._ended.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_JOIN_SECONDS)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.is_running else "ended"
        return f"<load, {state}: {self.done} calls done, {self.failed} failed>"

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._call()
            except Stopped:
                self._ended.set()
            except Exception as error:  # noqa: BLE001 - it is counted, and shown
                with self._lock:
                    self.failed += 1
                    self.last_error = error
                self._ended.wait(_PAUSE_SECONDS)
            else:
                with self._lock:
                    self.done += 1


def guess(cluster: LocalCluster[Any]) -> Callable[[], object]:
    """A call that this machine takes: its first command whose arguments are numbers and texts. Raises `ConfigError`."""
    kind = cluster._catalog._type
    if cluster._catalog._raw:
        return lambda: cluster.execute(b"load")
    for name, operation in inspect.getmembers(kind, lambda one: isinstance(one, Command)):
        arguments = _arguments(operation)
        if arguments is not None:
            return lambda: cluster.execute(name, *arguments)
    raise ConfigError(
        f"no command of {kind.__name__} can be called without knowing more of it",
        fix="say what to call: `cluster.load(lambda: cluster.execute(...))`",
    )


def _arguments(operation: Any) -> list[Any] | None:
    function = getattr(operation, "function", operation)
    try:
        hints = get_type_hints(function)
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except (GraftError, NameError, TypeError, ValueError):
        return None
    needed = [one for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    values = [_VALUES.get(hints.get(one.name)) for one in needed]
    simple = all(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in needed)
    return values if simple and all(value is not None for value in values) else None
