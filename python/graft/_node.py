"""A node: one replica of the state, and the way to all of them."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, Unpack

from graft import _address, _engine, _lifecycle, _neighbours, _units
from graft._access import Access
from graft._config import Config, Settings, refuse_unknown
from graft._context import here
from graft._errors import ConfigError, Removed, Stopped
from graft._health import Health, of_error
from graft._health import from_native as health_from_native
from graft._host import Host
from graft._machine import RUNNING, StateMachine
from graft._readiness import all_is_well, readiness, refuse_ended
from graft._serving import Ending, ending_signals
from graft._status import Status, from_native, idle
from graft.tls import checked_insecure, checked_tls, material

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from graft._aio import AsyncNode
    from graft._graft import NativeNode
    from graft._units import Duration
    from graft.tls import TLS

S = TypeVar("S", bound=StateMachine)

_POLL_SECONDS_MAX = 0.05
_WATCH_SECONDS = 0.5
# How long a look at the engine waits before what it said last is shown.
_LOOK_SECONDS = 0.25
_COLLECTED_STOP_SECONDS = 2.0
_OWNER = "_graft_owner"


class Node(Access[S]):
    """One member of a cluster, with its own copy of the state machine.

    ```python
    with graft.Node(Bank(), id="n1", address="127.0.0.1:7001", data_dir="n1") as node:
        node.wait_ready()
        node.execute(Bank.deposit, "ann", 5)
    ```

    This one founds a cluster of its own, which others enter with `join="127.0.0.1:7001"`; several that are given the
    same `members` found one together. Each is started with the same line every time.
    """

    _running: NativeNode | None = None
    _noun = "node"

    def __init__(
        self,
        machine: S,
        *,
        id: str,  # noqa: A002 - the word of the product
        address: str,
        data_dir: str | os.PathLike[str] | None,
        members: Mapping[str, str] | None = None,
        join: str | Iterable[str] | None = None,
        bind: str | None = None,
        metrics: str | None = None,
        tls: TLS | None = None,
        insecure: bool = False,
        config: Config | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        """Checks everything that can be checked before `start()`.

        - `machine`: a fresh instance of your `StateMachine`. The commands of the log are applied to it, so it must
          begin the same on every member, every time.
        - `id`: this member's name for ever, 1 to 63 letters, digits and `-_.:`.
        - `address`: "host:port" at which the other members reach this one; it may change from one start to the next.
          Alone in its cluster, or with `join`, a node may say port 0 and gets an unused one: `node.address` tells.
        - `data_dir`: where the log lives; it belongs to this id for ever. None: a temporary directory, removed at stop.
        - `members`: all the founding members `{id: address}`, this one included, the same on each of them. Without
          it, and without `join`, the node founds a cluster of one. It founds, and no more: a directory that has members
          keeps them, and `start()` warns if it has never had one that is listed here.
        - `join`: the address of a member of a running cluster, or several of them, any of which may be down. The node
          asks to be let in, gets the log, and votes once it has it; `wait_ready()` waits for that. Say the same at
          every start: a node that is a member already only announces its address.
        - `bind`: the address to listen on, if it is not the announced one: "0.0.0.0:7001".
        - `metrics`: "host:port" where metrics are read over HTTP, at `/metrics`, as OpenMetrics. On loopback in plain
          text, beyond it with `tls`, by whoever has a certificate; port 0 takes any free one, see `metrics_address`.
        - `tls`: a `graft.TLS` with this member's own certificate: every connection is then encrypted, and both sides
          prove who they are. Without it whoever reaches the port may do anything, and it is on loopback only.
        - `insecure`: True lets it listen elsewhere without `tls`.
        - `config`, `settings`: see `Config`; a setting given here wins.

        Raises `TypeError` if the machine cannot be replicated, `ConfigError` for anything else.
        """
        self._host = Host(machine)
        self.config = checked_config(config, settings, _PARAMETERS)
        super().__init__(type(machine), self.config.timeout)
        self._machine = machine
        self.id = _address.checked_id("id", id)
        self._announced = _address.checked_peer("address", address, any_port=members is None or len(members) == 1)
        self._bind = None if bind is None else _address.checked_address("bind", bind, any_port=True)
        self._metrics = None if metrics is None else _address.checked_address("metrics", metrics, any_port=True)
        if members is not None and join is not None:
            raise ConfigError(
                "give members, to found a cluster together, or join, to enter one that runs, but not both"
            )
        self._insecure = checked_insecure(insecure)
        self._founding = _address.checked_members(members, self.id, self._announced)
        self._join = _address.checked_join(join, self._announced)
        self._tls = checked_tls(tls) or _neighbours.of_node(self.id, self._join)
        self._data_dir = _checked_directory(data_dir)
        self._last: Status = idle(self.id, self._announced)
        self._temporary: str | None = None
        _engine.warn_of_debug_build()

    @property
    def _title(self) -> str:
        return f"node {self.id}"

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

    @property
    def metrics_address(self) -> str | None:
        """Where metrics are read, "host:port" with the port that was really taken; None if nowhere, or not started."""
        native = self._running
        return None if native is None else native.metrics_address

    @property
    def aio(self) -> AsyncNode[S]:
        """The same for `await`, from any asyncio event loop."""
        from graft._aio import AsyncNode

        return AsyncNode(self, self._seconds, self._reading)

    # From start to stop.

    def start(self) -> Self:
        """Opens the directory, listens, and takes part. Returns the node; a node that runs already is left alone.

        Raises `ConfigError` (`AddressInUse`), `TlsError`, `StorageError` (`Corruption`), `IdentityMismatch`,
        `ClusterMismatch`, or `TypeError` if the state of the machine cannot be kept. Warns (`RuntimeWarning`) if the
        directory has never had a member that was given.
        """
        _lifecycle.refuse_after_fork(self._generation, self._title)
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
        status = self.status()
        known = {member.id for member in status.members}
        given = {self.id} if self._founding is None else set(self._founding)
        # Who founded the cluster may have been removed since; others it never had.
        if self._join or not known or given <= known | set(status.former):
            return
        warnings.warn(
            f"node {self.id} was given the members {_listed(given)}, but {self._data_dir} has "
            f"{_listed(known)}, and the directory decides: give these, or found a new cluster with another data_dir",
            RuntimeWarning,
            stacklevel=3,
        )

    def stop(self, timeout: Duration = 5.0, *, leave: bool = False) -> None:
        """Hands leadership over if it can, ends the calls in flight, closes everything. Stopping twice is fine.
        After `timeout` what does not end, a command that hangs for one, is left behind.

        With `leave=True` the node first leaves the cluster, for good: its id never comes back. If it cannot leave
        within `timeout`, or is the last voter, it raises `Timeout` or `MembershipRefused` and goes on running.
        """
        seconds = _units.seconds("timeout", timeout)
        _lifecycle.refuse_on_machine_thread("stop")
        _lifecycle.refuse_after_fork(self._generation, self._title)
        if leave and self._running is not None:
            self._refuse_to_block("stop")
            with suppress(Removed):  # it has left already
                self.members.remove(self.id, timeout=seconds)
        with self._lock:
            native = self._running
            if native is None:
                return
            finished = native.stop(seconds)
            self._settle(native, finished, seconds)
        if not finished:
            warnings.warn(
                f"node {self.id} did not end within {seconds:g} s: is a command of its machine still running?",
                RuntimeWarning,
                stacklevel=2,
            )

    def _kill(self, seconds: float) -> bool:
        """Ends it as `kill -9` would end its process, for a `LocalCluster`. False if a command still runs."""
        _lifecycle.refuse_on_machine_thread("kill")
        _lifecycle.refuse_after_fork(self._generation, self._title)
        with self._lock:
            native = self._running
            if native is None:
                return True
            finished = native.kill(seconds)
            self._settle(native, finished, seconds)
        return finished

    def _settle(self, native: NativeNode, finished: bool, seconds: float) -> None:
        self._ended.set()
        self._last = _stopped(from_native(native.view(_LOOK_SECONDS)[0], native.address))
        self._running = None
        _lifecycle.untrack(self)
        self._end_calls(seconds)
        if finished:
            self._machine.__dict__.pop(RUNNING, None)
            self._remove_temporary()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def serve_forever(self) -> None:
        """Starts the node if need be and blocks until SIGTERM or Ctrl-C, or until somebody stops it, from another
        thread or over the network; then stops it and returns. It stays a member: the same line starts it again.

        Raises `Halted` if the replica halts, `Removed` if it is removed from the cluster, and what its joining is
        refused with. The handlers of both signals are put back in the end."""
        self._refuse_to_block("serve_forever")
        self.start()
        try:
            with ending_signals():
                while not self._ended.wait(_WATCH_SECONDS):
                    status = self.status()
                    if status.role == "stopped":
                        break
                    refuse_ended(status)
        except Ending:
            pass
        finally:
            self.stop()

    def wait_ready(self, timeout: Duration = 10.0) -> Self:
        """Blocks until the node is in its cluster (and votes, if it is to), the cluster has a leader, and this
        replica has applied what was committed then. Returns the node.

        Raises `Timeout`, with what is missing in words; `Halted`, `Stopped` or `Removed`; and for a node that is not
        let in `MembershipRefused`, `ClusterMismatch` or `IdentityMismatch`, which say why.
        """
        seconds = _units.seconds("timeout", timeout)
        deadline = time.monotonic() + seconds
        ready = readiness(self)
        self._refuse_to_block("wait_ready")
        pause = 0.001
        while not ready(deadline, seconds):
            self._ended.wait(pause)
            pause = min(2 * pause, _POLL_SECONDS_MAX)
        return self

    def status(self) -> Status:
        """What this node knows now. Never blocks, and works on a node that does not run."""
        _lifecycle.refuse_after_fork(self._generation, self._title)
        native = self._running
        return self._last if native is None else from_native(native.view(_LOOK_SECONDS)[0], native.address)

    def why(self) -> str:
        """In words, why there is no leader, why nothing is decided, what is being waited for; or that all is well."""
        _lifecycle.refuse_after_fork(self._generation, self._title)
        native = self._running
        if native is None:
            return self._not_running().message
        found, why = native.view(_LOOK_SECONDS)
        return " ".join(why) or all_is_well(from_native(found, native.address))

    def health(self) -> Health:
        """Whether all is well as far as this node can tell, and what to do about what is not: a node that is stopped or
        does not work, a cluster without a leader or a majority, members that are not within reach, snapshots that fail.
        True if all is. Never blocks, never raises."""
        _lifecycle.refuse_after_fork(self._generation, self._title)
        native = self._running
        if native is None:
            return of_error(self._not_running())
        return health_from_native(native.view(_LOOK_SECONDS)[0])

    def metrics(self) -> str:
        """What this node counts of its work, as OpenMetrics text; `docs/metrics.md` says what each metric means.

        Raises `Stopped` if the node does not run."""
        _lifecycle.refuse_after_fork(self._generation, self._title)
        native = self._running
        text = None if native is None else native.metrics()
        if text is None:
            raise self._not_running()
        return text

    async def _status_later(self) -> Status:
        return self.status()

    async def _why_later(self) -> str:
        return self.why()

    async def _health_later(self) -> Health:
        return self.health()

    def _words(self) -> str:
        status = self.status()
        return f"<graft.Node {_address.named(self.id, status.address)}: {status.role}, term {status.term}>"

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

    def _not_running(self) -> Stopped:
        if self._ended.is_set():
            return Stopped(f"node {self.id} is stopped")
        return Stopped(f"node {self.id} is not started", fix="call start() first, or use `with node:`")

    # Beginnings and ends.

    def _end(self, seconds: float) -> None:
        self.stop(timeout=seconds)

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
            "metrics": self._metrics,
            "data_dir": self._temporary if self._data_dir is None else self._data_dir,
            "members": self._founding,
            "join": list(self._join),
            "tls": material(self._tls),
            "insecure": self._insecure,
            "election_timeout": self.config.election_timeout,
            "heartbeat": self.config.heartbeat,
            "command_bytes_max": self.config.command_bytes_max,
            "batch_bytes_max": self.config.batch_bytes_max,
            "inflight_max": self.config.inflight_max,
            "clients_max": self.config.clients_max,
            "log_bytes_max": self.config.log_bytes_max,
            "snapshot_every_bytes": self.config.snapshot_every_bytes,
            "snapshot_every_entries": self.config.snapshot_every_entries,
            "snapshot_bytes_per_second": self.config.snapshot_bytes_per_second,
            "session_ttl": self.config.session_ttl,
        }

    def _remove_temporary(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None


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


def checked_config(config: object, settings: Settings, parameters: Iterable[str]) -> Config:
    """The settings that count. Raises `ConfigError` for one that is neither a setting nor one of the parameters."""
    refuse_unknown(settings, [*Config.__dataclass_fields__, *parameters], "argument")
    if config is None:
        return Config(**settings)
    if not isinstance(config, Config):
        raise ConfigError(f"config={config!r:.100} must be a graft.Config")
    return config.replace(**settings) if settings else config


_PARAMETERS = ("id", "address", "data_dir", "members", "join", "bind", "metrics", "tls", "insecure", "config")
