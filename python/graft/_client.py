"""A client: calls on a cluster from a program that is no member of it."""

from __future__ import annotations

import inspect
import re
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from graft import _address, _engine, _lifecycle, _neighbours, _units
from graft._access import Access
from graft._context import here
from graft._errors import (
    ClusterMismatch,
    ConfigError,
    GraftError,
    NoLeader,
    NoQuorum,
    NotLeader,
    Stopped,
    Timeout,
    TlsError,
)
from graft._health import Health, of_error
from graft._health import from_native as health_from_native
from graft._machine import StateMachine
from graft._readiness import all_is_well
from graft._status import Status, from_native
from graft.tls import checked_insecure, checked_tls, material

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from graft._graft import NativeClient
    from graft._units import Duration
    from graft.tls import TLS

S = TypeVar("S", bound=StateMachine)

TIMEOUT_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_COLLECTED_CLOSE_SECONDS = 1.0
_LOOK_SECONDS = 1.0
# The engine knows by then who was tried, and what came of it.
_WHY_SECONDS = 6.0
_SESSION_TTL_MIN = 1.0
# What the words of `why()` are when nobody answers.
_UNREACHED = (ClusterMismatch, NoLeader, NoQuorum, NotLeader, Timeout, TlsError)


class Client(Access[S]):
    """Calls on a cluster from a program that is no member of it.

    ```python
    with graft.Client(["10.0.0.1:7001", "10.0.0.2:7001"], Bank, tls=graft.TLS(...)) as client:
        client.execute(Bank.deposit, "ann", 5)
        client.query(Bank.balance, "ann")
    ```

    It has what a `Node` has, but for a machine of its own. It finds the leader and follows it, learns who the members
    are, and sends a command again, which is applied once all the same, until it is answered or its time is over. What
    it wrote or saw before, it sees in every later answer. Any number of threads may use one client at a time; it opens
    its connection at the first call.
    """

    _running: NativeClient | None = None
    _noun = "client"

    def __init__(
        self,
        endpoints: str | Iterable[str],
        machine: type[S],
        *,
        timeout: Duration = TIMEOUT_SECONDS,
        tls: TLS | None = None,
        insecure: bool = False,
        session_ttl: Duration | None = None,
        cluster: str | None = None,
    ) -> None:
        """Checks everything that can be checked without asking the cluster.

        - `endpoints`: the address "host:port" of a member, or better of several, any of which may be down.
        - `machine`: your `StateMachine`, the class itself: its commands and queries are what can be called. It is never
          made.
        - `timeout`: how long a call waits unless `options(timeout=...)` says otherwise; default 10 s.
        - `tls`: a `graft.TLS` with a certificate of the cluster; None for members that talk plainly, on this machine.
        - `insecure`: True lets members elsewhere be spoken to without `tls`.
        - `session_ttl`: how long the cluster remembers the answers of this client's commands after the last one, at
          least 1 s; by default that of the cluster, see `Config.session_ttl`.
        - `cluster`: the id of the cluster to speak with, as `status().cluster` shows it. By default that of the first
          member that answers, for as long as the client lives: after a restore or a recovery that may be the wrong one,
          if the old cluster is up still. Members of another cluster hear no call and are named in the errors; where
          nobody else is left that error is a `ClusterMismatch`.

        Raises `TypeError` if nothing can be called on `machine`, `ConfigError` for anything else.
        """
        kind = _checked_machine(machine)
        self.endpoints = _address.checked_endpoints(endpoints)
        """The addresses that it was given."""
        self._tls = checked_tls(tls) or _neighbours.of_client(self.endpoints)
        self._insecure = checked_insecure(insecure)
        self._cluster = checked_cluster(cluster)
        self._session_ttl = None if session_ttl is None else _units.seconds("session_ttl", session_ttl)
        if self._session_ttl is not None and self._session_ttl < _SESSION_TTL_MIN:
            raise ConfigError(f"session_ttl={session_ttl!r} is below 1 s: a session would end between two calls")
        super().__init__(kind, _units.seconds("timeout", timeout))

    @property
    def _title(self) -> str:
        return f"client of {', '.join(self.endpoints)}"

    def status(self) -> Status:
        """What the member that this client asks knows of itself and of the cluster, now."""
        found, _ = self._look("status", self._seconds)
        return _status(found)

    def why(self) -> str:
        """In words, why there is no leader, why nothing is decided, or why nobody can be asked; or that all is well."""
        try:
            found, why = self._look("why", max(self._seconds, _WHY_SECONDS))
        except _UNREACHED as error:
            return error.message
        return " ".join(why) or all_is_well(_status(found))

    def health(self) -> Health:
        """Whether all is well as far as the member that is asked can tell, and what to do about what is not. True if
        all is; a cluster that does not answer is not well."""
        try:
            found, _ = self._look("health", max(self._seconds, _WHY_SECONDS))
        except _UNREACHED as error:
            return of_error(error)
        return health_from_native(found)

    def close(self, timeout: Duration = _CLOSE_SECONDS) -> None:
        """Ends the calls in flight, whose outcome may stay unknown, and closes the connection. Closing twice is
        fine."""
        seconds = _units.seconds("timeout", timeout)
        _lifecycle.refuse_on_machine_thread("close")
        if self._running is not None:
            _lifecycle.refuse_after_fork(self._generation, self._title)
        with self._lock:
            self._ended.set()
            native, self._running = self._running, None
            if native is None:
                return
            finished = native.close(seconds)
            _lifecycle.untrack(self)
            self._end_calls(seconds)
        if not finished:
            warnings.warn(f"the {self._title} did not end within {seconds:g} s", RuntimeWarning, stacklevel=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        ended = getattr(self, "_ended", None)
        if ended is None or ended.is_set() or self._generation != _lifecycle.process.generation:
            return
        try:
            warnings.warn(
                f"the {self._title} was open when it was collected: call close(), or use it in a `with`",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        finally:
            self._close_collected()

    def _close_collected(self) -> None:
        native = self._running
        if native is not None and here.in_machine:
            # The collector ran on a machine's thread, which must not wait.
            threading.Thread(target=native.close, args=(_COLLECTED_CLOSE_SECONDS,), daemon=True).start()
            return
        with suppress(Exception):
            self.close(_COLLECTED_CLOSE_SECONDS)

    # What the calls use.

    def _absent(self, _verb: str) -> NativeClient:
        """Opens it at the first call."""
        from graft._logging import forwarder

        with self._lock:
            if self._ended.is_set():
                raise self._not_running()
            if self._running is None:
                _engine.warn_of_debug_build()
                native: NativeClient = _engine.load().NativeClient(self._native_config())
                forwarder.start()
                self._running = native
                _lifecycle.track(self)
            return self._running

    def _engine(self, verb: str) -> NativeClient:
        if self._running is None:
            # What has not begun yet may begin on either side of a fork.
            self._generation = _lifecycle.process.generation
        return super()._engine(verb)  # type: ignore[return-value]  # it is of the kind that runs

    def _look(self, verb: str, seconds: float) -> tuple[dict[str, Any], list[str]]:
        native = self._engine(verb)
        self._refuse_to_block(verb)
        try:
            return native.view(seconds)
        except Timeout:
            raise self._late(seconds) from None

    def _native_config(self) -> dict[str, object]:
        return {
            "endpoints": list(self.endpoints),
            "cluster": self._cluster,
            "session_ttl": self._session_ttl,
            "tls": material(self._tls),
            "insecure": self._insecure,
        }

    def _not_running(self) -> Stopped:
        return Stopped(f"the {self._title} is closed", fix="make a new client")

    def _end(self, seconds: float) -> None:
        self.close(seconds)

    def _words(self) -> str:
        closed = ", closed" if self._ended.is_set() else ""
        return f"<graft.{type(self).__name__} of {', '.join(self.endpoints)}{closed}>"

    def _last_status(self) -> Status | None:
        try:
            return _status(self._engine("status").view(_LOOK_SECONDS)[0])
        except GraftError:
            return None

    async def _status_later(self) -> Status:
        from graft._aio import looked

        found, _ = await looked(self, self._seconds, self._engine("status").submit_view)
        return _status(found)

    async def _last_status_later(self) -> Status | None:
        from graft._aio import looked

        try:
            found, _ = await looked(self, _LOOK_SECONDS, self._engine("status").submit_view)
        except GraftError:
            return None
        return _status(found)

    async def _why_later(self) -> str:
        from graft._aio import looked

        try:
            found, why = await looked(self, max(self._seconds, _WHY_SECONDS), self._engine("why").submit_view)
        except _UNREACHED as error:
            return error.message
        return " ".join(why) or all_is_well(_status(found))

    async def _health_later(self) -> Health:
        from graft._aio import looked

        try:
            found, _ = await looked(self, max(self._seconds, _WHY_SECONDS), self._engine("health").submit_view)
        except _UNREACHED as error:
            return of_error(error)
        return health_from_native(found)


def _status(found: dict[str, Any]) -> Status:
    return from_native(found, found["address"] or "")


def checked_cluster(cluster: object) -> str | None:
    """The id of a cluster, as its status shows it."""
    if cluster is None:
        return None
    if not isinstance(cluster, str):
        raise ConfigError(f"cluster must be the id of a cluster, a str, not {cluster!r:.80}")
    digits = cluster.replace("-", "")
    if re.fullmatch("[0-9a-fA-F]{32}", digits) is None or not int(digits, 16):
        raise ConfigError(
            f"cluster={cluster!r:.80} is not the id of a cluster: it has 32 hexadecimal digits, and `status().cluster` "
            "shows it"
        )
    return digits.lower()


def _checked_machine(machine: object) -> Any:
    if inspect.isclass(machine) and issubclass(machine, StateMachine) and machine is not StateMachine:
        return machine
    if isinstance(machine, StateMachine):
        name = type(machine).__name__
        raise TypeError(f"pass the class {name}, not an instance: the state is with the members, a client has none")
    raise TypeError(f"the machine must be a subclass of graft.StateMachine, not {machine!r:.80}")
