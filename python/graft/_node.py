"""A node: one replica of the state, and the way to all of them."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from graft import _address, _engine, _lifecycle, _units
from graft._config import Config, Settings, refuse_unknown
from graft._context import here
from graft._errors import ConfigError, Halted, Stopped, Timeout
from graft._host import Host
from graft._machine import RUNNING, StateMachine
from graft._plan import COMMAND, Catalog, Plan
from graft._status import Status, from_native, idle, why_not_ready
from graft._verbs import Calls

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from types import FrameType, TracebackType
    from typing import Self

    from graft._aio import Loops
    from graft._completions import Notifier
    from graft._graft import NativeNode
    from graft._units import Duration

S = TypeVar("S", bound=StateMachine)

_POLL_SECONDS_MAX = 0.05
_WATCH_SECONDS = 0.5
_COLLECTED_STOP_SECONDS = 2.0
_OWNER = "_graft_owner"


class Node(Calls[S]):
    """One member of a cluster, with its own copy of the state machine.

    ```python
    with graft.Node(Bank(), id="n1", address="127.0.0.1:7001", data_dir="n1") as node:
        node.wait_ready()
        node.execute(Bank.deposit, "ann", 5)
    ```

    This one, having no `members`, founds a cluster of its own; what is to survive a machine is given the same
    `members` on each of them.
    """

    # What __del__ looks at, should __init__ not come to its end.
    _running: NativeNode | None = None
    _generation = -1

    def __init__(
        self,
        machine: S,
        *,
        id: str,  # noqa: A002 - the word of the product
        address: str,
        data_dir: str | os.PathLike[str] | None,
        members: Mapping[str, str] | None = None,
        bind: str | None = None,
        config: Config | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        """Checks everything that can be checked before `start()`.

        - `machine`: a fresh instance of your `StateMachine`. The commands of the log are applied to it, so it must
          begin the same on every member, every time.
        - `id`: this member's name for ever, 1 to 63 letters, digits and `-_.:`.
        - `address`: "host:port" at which the other members reach this one. Alone in its cluster, a node may say
          port 0 and gets an unused one: `node.address` tells.
        - `data_dir`: where the log lives; it belongs to this id for ever. None: a temporary directory, removed at stop.
        - `members`: all the founding members `{id: address}`, this one included, the same on each of them. Without
          it, the node founds a cluster of one. It founds, and no more: a directory that has members keeps them,
          and `start()` warns if they are others.
        - `bind`: the address to listen on, if it is not the announced one: "0.0.0.0:7001".
        - `config`, `settings`: see `Config`; a setting given here wins.

        Raises `TypeError` if the machine cannot be replicated, `ConfigError` for anything else.
        """
        self._host = Host(machine)
        self._catalog = Catalog(self._host)
        self._machine = machine
        self.id = _address.checked_id("id", id)
        self._announced = _address.checked_address("address", address, any_port=members is None or len(members) == 1)
        self._bind = None if bind is None else _address.checked_address("bind", bind, any_port=True)
        self._members = _address.checked_members(members, self.id, self._announced)
        self._data_dir = _checked_directory(data_dir)
        self.config = _checked_config(config, settings)
        self._seconds = self.config.timeout
        self._consistency = "linearizable"
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._last: Status = idle(self.id, self._announced)
        self._temporary: str | None = None
        self._made_notifier: Notifier | None = None
        self._made_loops: Loops | None = None
        self._generation = _lifecycle.process.generation
        _engine.warn_of_debug_build()

    @property
    def _node(self) -> Node[S]:
        return self

    @property
    def machine(self) -> S:
        """This node's copy of the machine. Reading it shows what this replica has applied so far; call commands and
        queries on the node, not on it."""
        return self._machine

    @property
    def address(self) -> str:
        """The address announced to the others, "host:port"."""
        native = self._running
        return self._last.address if native is None else native.address

    # From start to stop.

    def start(self) -> Self:
        """Opens the directory, listens, and takes part. Returns the node; a node that runs already is left alone.

        Raises `ConfigError` (`AddressInUse`), `StorageError` (`Corruption`), `IdentityMismatch`, `ClusterMismatch`, or
        `TypeError` if the state of the machine cannot be kept. Warns (`RuntimeWarning`) if the directory has other
        members than were given.
        """
        _lifecycle.refuse_after_fork(self._generation, self.id)
        _lifecycle.refuse_on_machine_thread("start")
        with self._lock:
            if self._running is not None:
                return self
            if self._ended.is_set():
                raise Stopped(
                    f"node {self.id} has been stopped and cannot start again, for its machine already has a state",
                    fix="make a new Node, with a fresh machine, on the same data_dir",
                )
            self._claim_machine()
            try:
                self._start()
            except BaseException:
                self._machine.__dict__.pop(_OWNER, None)
                self._machine.__dict__.pop(RUNNING, None)
                self._remove_temporary()
                raise
        try:
            self._warn_of_other_members()
        except BaseException:  # where warnings are errors, this start has failed
            self.stop()
            raise
        return self

    def _start(self) -> None:
        from graft._logging import forwarder

        self._host.prepare()
        native = _engine.load().NativeNode(self._host, self._native_config())
        forwarder.start()
        native.start()
        self._running = native
        _lifecycle.track(self)

    def _warn_of_other_members(self) -> None:
        known = {member.id for member in self.status().members}
        given = {self.id} if self._members is None else set(self._members)
        if not known or known == given:
            return
        warnings.warn(
            f"node {self.id} was given the members {_listed(given)}, but {self._data_dir} has "
            f"{_listed(known)}, and the directory decides: give these, or found a new cluster with another data_dir",
            RuntimeWarning,
            stacklevel=3,
        )

    def stop(self, timeout: Duration = 5.0) -> None:
        """Hands leadership over if it can, ends the calls in flight, closes everything. Stopping twice is fine.
        After `timeout` what does not end, a command that hangs for one, is left behind."""
        seconds = _units.seconds("timeout", timeout)
        _lifecycle.refuse_on_machine_thread("stop")
        _lifecycle.refuse_after_fork(self._generation, self.id)
        with self._lock:
            native = self._running
            if native is None:
                return
            finished = native.stop(seconds)
            self._ended.set()
            self._last = _stopped(from_native(native.status()))
            self._running = None
            _lifecycle.untrack(self)
            if self._made_notifier is not None:
                self._made_notifier.close(seconds)
            if self._made_loops is not None:
                self._made_loops.close()
            if finished:
                self._machine.__dict__.pop(RUNNING, None)
                self._remove_temporary()
        if not finished:
            warnings.warn(
                f"node {self.id} did not end within {seconds:g} s: is a command of its machine still running?",
                RuntimeWarning,
                stacklevel=2,
            )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def serve_forever(self) -> None:
        """Starts the node if need be and blocks until SIGTERM or Ctrl-C, then stops it and returns.
        Raises `Halted` if the replica halts. The handlers of both signals are put back in the end."""
        _lifecycle.refuse_in_event_loop("serve_forever")
        self.start()
        try:
            with _ending_signals():
                while not self._ended.wait(_WATCH_SECONDS):
                    self._refuse_halted(self.status())
        except _Ending:
            pass
        finally:
            self.stop()

    def wait_ready(self, timeout: Duration = 10.0) -> Self:
        """Blocks until the cluster has a leader and this replica has applied what was committed then.
        Returns the node. Raises `Timeout`, with what is missing in words, or `Halted`, or `Stopped`."""
        seconds = _units.seconds("timeout", timeout)
        deadline = time.monotonic() + seconds
        ready = self._readiness()
        _lifecycle.refuse_in_event_loop("wait_ready")
        pause = 0.001
        while not ready(deadline, seconds):
            self._ended.wait(pause)
            pause = min(2 * pause, _POLL_SECONDS_MAX)
        return self

    def status(self) -> Status:
        """What this node knows now. Never blocks, and works on a node that does not run."""
        _lifecycle.refuse_after_fork(self._generation, self.id)
        native = self._running
        return self._last if native is None else from_native(native.status())

    def __repr__(self) -> str:
        if self._generation != _lifecycle.process.generation:
            return f"<graft.Node {self.id}, of another process>"
        status = self.status()
        return f"<graft.Node {self.id} at {status.address}: {status.role}, term {status.term}>"

    def __del__(self) -> None:
        native = self._running
        if native is None or self._generation != _lifecycle.process.generation:
            return
        try:
            warnings.warn(
                f"node {self.id} was running when it was collected: call stop(), or use `with node:`",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        finally:
            self._stop_collected(native)

    def _stop_collected(self, native: NativeNode) -> None:
        if here.in_machine:
            # The collector ran on a machine's thread, which cannot wait for itself.
            threading.Thread(target=native.stop, args=(_COLLECTED_STOP_SECONDS,), daemon=True).start()
            return
        with suppress(Exception):
            self.stop(timeout=_COLLECTED_STOP_SECONDS)

    # What the calls use.

    def _engine(self, verb: str) -> NativeNode:
        """The running engine, or an error that says why there is none."""
        if self._generation != _lifecycle.process.generation:
            _lifecycle.refuse_after_fork(self._generation, self.id)
        if here.in_machine:
            _lifecycle.refuse_on_machine_thread(verb)
        native = self._running
        if native is None:
            raise self._not_running()
        return native

    def _not_running(self) -> Stopped:
        if self._ended.is_set():
            return Stopped(f"node {self.id} is stopped")
        return Stopped(f"node {self.id} is not started", fix="call start() first, or use `with node:`")

    def _plan(self, kind: int, what: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
        return self._catalog.plan(kind, what, args, kwargs)

    def _plan_of(self, call: object) -> Plan:
        if isinstance(call, tuple) and call:
            return self._catalog.plan(COMMAND, call[0], call[1:], {})
        if isinstance(call, tuple):
            raise TypeError("a call is a tuple of a command and its arguments; this one is empty")
        return self._catalog.plan(COMMAND, call, (), {})

    def _notifier(self) -> Notifier:
        with self._lock:
            if self._running is None:
                raise self._not_running()
            if self._made_notifier is None:
                from graft._completions import Notifier

                self._made_notifier = Notifier(self.id)
            return self._made_notifier

    @property
    def _loops(self) -> Loops:
        if self._made_loops is None:
            with self._lock:
                if self._running is None:
                    raise self._not_running()
                if self._made_loops is None:
                    from graft._aio import Loops

                    self._made_loops = Loops()
        return self._made_loops

    def _readiness(self) -> Callable[[float, float], bool]:
        """A question to be asked until it says yes, or raises."""
        self._engine("wait_ready")
        target: int | None = None

        def ready(deadline: float, seconds: float) -> bool:
            nonlocal target
            self._engine("wait_ready")
            status = self.status()
            self._refuse_halted(status)
            if status.leader is not None and status.has_quorum is not False:
                target = status.commit_index if target is None else target
                if status.applied_index >= target:
                    return True
            if time.monotonic() >= deadline:
                raise Timeout(
                    f"node {self.id} is not ready after {seconds:g} s: {why_not_ready(status)}",
                    fix="start the members that are missing, or wait longer",
                )
            return False

        return ready

    def _refuse_halted(self, status: Status) -> None:
        if status.error is not None:
            raise Halted(f"node {self.id} has halted: {status.error}")

    # Beginnings and ends.

    def _claim_machine(self) -> None:
        owner = self._machine.__dict__.get(_OWNER)
        if owner is not None:
            raise ConfigError(
                f"this {type(self._machine).__name__} already has the state of node {owner}",
                fix="give each node a fresh machine",
            )
        self._machine.__dict__[_OWNER] = self.id
        self._machine.__dict__[RUNNING] = self.id

    def _native_config(self) -> dict[str, object]:
        if self._data_dir is None:
            self._temporary = tempfile.mkdtemp(prefix=f"graft-{self.id.replace(':', '_')}-")
        return {
            "id": self.id,
            "address": self._announced,
            "bind": self._announced if self._bind is None else self._bind,
            "data_dir": self._temporary if self._data_dir is None else self._data_dir,
            "members": self._members,
            "election_timeout": self.config.election_timeout,
            "heartbeat": self.config.heartbeat,
            "command_bytes_max": self.config.command_bytes_max,
            "batch_bytes_max": self.config.batch_bytes_max,
            "inflight_max": self.config.inflight_max,
            "log_bytes_max": self.config.log_bytes_max,
        }

    def _remove_temporary(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None


class _Ending(BaseException):
    # Raised by a signal handler, out of the wait that it interrupts.
    pass


@contextmanager
def _ending_signals() -> Generator[None]:
    # Only the main thread gets signals; served on another one, a node ends when somebody stops it.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        if not seen:
            seen.append(number)
            raise _Ending

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped(status: Status) -> Status:
    from dataclasses import replace

    return replace(status, role="stopped", leader=None, leader_address=None, has_quorum=None)


def _listed(ids: Iterable[str]) -> str:
    return ", ".join(sorted(ids))


def _checked_directory(data_dir: object) -> str | None:
    if data_dir is None:
        return None
    if not isinstance(data_dir, (str, os.PathLike)) or not os.fspath(data_dir):
        raise ConfigError(f"data_dir={data_dir!r:.100} must be a path, or None for a temporary directory")
    path = os.fspath(data_dir)
    if not isinstance(path, str) or "\0" in path:
        raise ConfigError(f"data_dir={data_dir!r:.100} must be a path of text")
    return os.path.abspath(path)  # noqa: PTH100 - pathlib would be loaded for this alone


def _checked_config(config: object, settings: Settings) -> Config:
    refuse_unknown(settings, [*Config.__dataclass_fields__, *_PARAMETERS], "argument")
    if config is None:
        return Config(**settings)
    if not isinstance(config, Config):
        raise ConfigError(f"config={config!r:.100} must be a graft.Config")
    return config.replace(**settings) if settings else config


_PARAMETERS = ("id", "address", "data_dir", "members", "bind", "config")
