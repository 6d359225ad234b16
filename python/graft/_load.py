"""A stream of commands, to see a cluster at work."""

from __future__ import annotations

import inspect
import threading
import time
from typing import TYPE_CHECKING, Any, get_type_hints

from graft import _units
from graft._errors import ConfigError, GraftError, Stopped, Timeout
from graft._machine import Command
from graft._progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from graft._cluster import LocalCluster
    from graft._units import Duration

_PAUSE_SECONDS = 0.05
_JOIN_SECONDS = 5.0
_TELL_SECONDS = 0.2
# What a command is given that says no more than its types.
_VALUES: dict[Any, Any] = {int: 1, float: 1.0, str: "load", bytes: b"load", bool: True}


class Load:
    """Threads that make one call after the other until `stop()`, the end of a `with`, or so many calls: see
    `LocalCluster.load`."""

    def __init__(
        self,
        cluster: LocalCluster[Any],
        call: Callable[[], object] | None,
        threads: int,
        number: int | None = None,
        tell: Callable[[Progress], object] | None = None,
    ) -> None:
        self._call = guess(cluster) if call is None else call
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.done = 0
        """Calls that returned."""
        self.failed = 0
        """Calls that raised."""
        self.last_error: Exception | None = None
        """What the last of those raised."""
        self._left = number
        self._number = number
        self._tell = tell
        self._begun = time.monotonic()
        self._running = threads
        self._say("begins")
        names = [f"graft-load-{number}" for number in range(threads)]
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()
        if tell is not None:
            self._teller = threading.Thread(target=self._tell_on, name="graft-load-progress", daemon=True)
            self._teller.start()

    _teller: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return not self._ended.is_set()

    def wait(self, timeout: Duration = 60.0) -> Self:
        """Waits until it has ended: after its `number` of calls, or because somebody stops it. Raises `Timeout`."""
        if not self._ended.wait(_units.seconds("timeout", timeout)):
            raise Timeout(f"{self!r} goes on", fix="wait longer, or stop() it")
        return self.stop()

    def stop(self) -> Self:
        """Ends it, after the calls that are under way. Stopping twice is fine."""
        self._ended.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_JOIN_SECONDS)
        if self._teller is not None and self._teller is not threading.current_thread():
            self._teller.join(_JOIN_SECONDS)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.is_running else "ended"
        return f"<load, {state}: {_units.counted(self.done, 'call')} done, {self.failed} failed>"

    def _say(self, words: str) -> None:
        if self._tell is not None:
            self._tell(Progress(what="load", member=None, done=self.done, total=self._number, words=words))

    def _tell_on(self) -> None:
        while not self._ended.wait(_TELL_SECONDS):
            rate = self.done / max(time.monotonic() - self._begun, 0.001)
            self._say(f"{_units.counted(self.done, 'call')} done, {self.failed} failed, {rate:.0f} a second")
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
        self._say(f"{_units.counted(self.done, 'call')} done, {self.failed} failed")
        self._say("done")

    def _takes_one(self) -> bool:
        """Whether there is another call to make."""
        with self._lock:
            if self._left == 0 or self._ended.is_set():
                return False
            if self._left is not None:
                self._left -= 1
            return True

    def _run(self) -> None:
        while self._takes_one():
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
        with self._lock:
            self._running -= 1
            if self._running == 0:
                self._ended.set()


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
