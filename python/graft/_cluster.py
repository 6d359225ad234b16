"""A whole cluster in this process: real nodes, real disks, real sockets, and faults on demand."""

from __future__ import annotations

import inspect
import random
import shutil
import tempfile
import threading
import time
import weakref
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

from graft import _address, _lifecycle, _neighbours, _units
from graft._client import Client
from graft._errors import ConfigError, MembershipRefused, NoLeader, Stopped, Timeout
from graft._machine import StateMachine
from graft._mischief import Mischief
from graft._node import checked_config
from graft._progress import checked
from graft._seat import Seat, reserved
from graft.tls import CertificateAuthority, checked_insecure

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from typing import Self

    from graft._config import Config, Settings
    from graft._load import Load
    from graft._node import Node
    from graft._progress import Report
    from graft._status import Status
    from graft._units import Duration

S = TypeVar("S", bound=StateMachine)

NODES_MAX = 15
_CLOSE_SECONDS = 5.0
_READY_SECONDS = 20.0
_ADD_SECONDS = 60.0
_CONVERGE_SECONDS = 20.0
_POLL_SECONDS = 0.005
_TIMES_MAX = 10_000
_PARAMETERS = ("nodes", "name", "data_dir", "insecure", "config")

_named: weakref.WeakValueDictionary[str, LocalCluster[Any]] = weakref.WeakValueDictionary()


class LocalCluster(Mischief, Client[S]):
    """A cluster of several nodes in this process, for notebooks, tests and first steps.

    ```python
    with graft.LocalCluster(Bank, 3) as cluster:
        cluster.execute(Bank.deposit, "ann", 5)
        cluster.kill(cluster.leader)
        cluster.execute(Bank.deposit, "ann", 5)  # goes on: two of three are a majority
    ```

    The nodes are real, with storage in a temporary directory and gRPC over loopback, secured by an authority that lives
    in memory: nodes and clients of this process get in by themselves. It runs as soon as it is made.
    All the calls of a `Client` go to it: through any live member, once each, whatever happens meanwhile.
    """

    _noun = "cluster"
    _load: Load | None = None

    def __init__(
        self,
        machine: type[S] | Callable[[], S],
        nodes: int = 3,
        *,
        name: str | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        config: Config | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        """Starts the nodes "n1", "n2", … and waits until they are ready: well below a second for three.

        - `machine`: the class of your `StateMachine`, or a function that makes a fresh one.
        - `nodes`: how many; 1 to 15.
        - `name`: a cluster of this process that has the same name is closed first, so that a cell of a notebook can be
          run again.
        - `data_dir`: keeps the nodes' directories, for another cluster to go on with; by default a temporary directory
          that is removed at the end.
        - `insecure`: True leaves connections in plain text.
        - `config`, `settings`: as those of `Node`, for every node.

        Raises `ConfigError` for what cannot be, `TypeError` for a machine that cannot be replicated.
        """
        _lifecycle.refuse_in_event_loop("LocalCluster", "cluster")
        number = _units.count("nodes", nodes)
        if number > NODES_MAX:
            raise ConfigError(f"nodes={nodes} is more than {NODES_MAX}, of which one process can make sense")
        make, kind = _checked_machine(machine)
        checked = checked_config(config, settings, _PARAMETERS)
        self.name = _address.checked_id("name", name) if name is not None else None
        if self.name is not None:
            before = _named.get(self.name)
            if before is not None:
                before.close()
        self.config = checked
        self._temporary = None if data_dir is not None else tempfile.mkdtemp(prefix="graft-cluster-")
        self._directory = Path(data_dir if self._temporary is None else self._temporary)  # type: ignore[arg-type]
        self._make = make
        self._lock_seats = threading.RLock()
        # How long the last calls took, for whoever records.
        self._times: deque[float] = deque(maxlen=_TIMES_MAX)
        self._luck = random.Random()  # noqa: S311 - which messages are lost is no secret
        self._authority = None if checked_insecure(insecure) else CertificateAuthority.ephemeral("local")
        self._seats: dict[str, Seat] = {}
        for number_ in range(1, number + 1):
            self._seat(f"n{number_}")
        super().__init__([seat.address for seat in self._seats.values()], kind, timeout=checked.timeout)
        self._begin_mischief()
        _lifecycle.track(self)
        try:
            self._found()
        except BaseException:
            self.close()
            raise
        if self.name is not None:
            _named[self.name] = self

    def _seat(self, id_: str) -> Seat:
        authority = self._authority
        tls = None if authority is None else authority.node(id_)
        seat = Seat(id_, self._make, self._directory, self.config, tls)
        if authority is not None:
            _neighbours.announce(seat.address, authority)
        self._seats[id_] = seat
        return seat

    def _found(self) -> None:
        members = {seat.id: seat.address for seat in self._seats.values()}
        for seat in self._seats.values():
            seat.members = members
            seat.make()
            seat.start()
        deadline = time.monotonic() + _READY_SECONDS
        for seat in self._seats.values():
            seat.node.wait_ready(max(0.001, deadline - time.monotonic()))

    if not TYPE_CHECKING:  # the same signatures as those of every client

        def execute(self, command: Any, /, *args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return super().execute(command, *args, **kwargs)
            finally:
                self._times.append(time.perf_counter() - begin)

        execute.__doc__ = Client.execute.__doc__

    # Its nodes.

    def __getitem__(self, id: str) -> Node[S]:  # noqa: A002 - the word of the product
        """The node of this id: the one that runs there, or ran there last. Raises `KeyError`."""
        return self._at(id).node

    def __contains__(self, id: object) -> bool:  # noqa: A002
        """Whether there is a node of this id, dead or alive."""
        return id in self._seats

    def __len__(self) -> int:
        """How many nodes there are, dead or alive."""
        return len(self._seats)

    def __iter__(self) -> Iterator[Node[S]]:
        """Its nodes, dead or alive."""
        return iter([seat.node for seat in self._all()])

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of its nodes, dead or alive."""
        return tuple(seat.id for seat in self._all())

    @property
    def leader(self) -> Node[S]:
        """The node that leads now. Waits for an election to end; raises `NoLeader` if that takes longer than the
        timeout of a call."""
        deadline = time.monotonic() + self._seconds
        while True:
            found = self._leader_now()
            if found is not None:
                return found.node
            if self._ended.is_set():
                raise self._not_running()
            if time.monotonic() >= deadline:
                raise NoLeader(f"no node of this cluster leads, {self._seconds:g} s on: {self._states()}")
            self._refuse_to_block("leader")
            time.sleep(_POLL_SECONDS)

    @property
    def followers(self) -> list[Node[S]]:
        """The nodes that run and do not lead; those that are dead, paused or removed are left out."""
        leader = self.leader
        live = [seat.node for seat in self._all() if seat.is_live and seat.node is not leader]
        return [node for node in live if node.status().role in ("follower", "pre-candidate", "candidate", "learner")]

    def kill(self, id: str | Node[S]) -> None:  # noqa: A002
        """Ends a node as `kill -9` would: nothing is flushed, nobody is told. `restart` brings it back."""
        with self._lock_seats:
            seat = self._at(id)
            seat.kill()
        self._note("kill", seat.id, f"{seat.id} was killed")

    def restart(self, id: str | Node[S]) -> Node[S]:  # noqa: A002
        """Starts a node again from its directory, after ending it in good order if it runs. Returns the new node, which
        gets what it has missed while calls go on. A disk that was failing is whole again."""
        with self._lock_seats:
            self._refuse_closed()
            seat = self._at(id)
            if seat.is_running:
                seat.stop(_CLOSE_SECONDS)
            seat.make()
            seat.start()
            self._inject()
        self._note("restart", seat.id, f"{seat.id} was started again")
        return seat.node

    def add(
        self,
        id: str | None = None,  # noqa: A002
        *,
        voter: bool = True,
        timeout: Duration = _ADD_SECONDS,
        progress: Report = None,
    ) -> Node[S]:
        """Starts one more node and adds it to the cluster: it gets the log first, then it votes, or stays a learner
        with `voter=False`. Returns it once it is ready. Its id is the next that was never used, unless one is given.

        Raises as `members.add` does; a node that is refused is gone again.
        """
        seconds = _units.seconds("timeout", timeout)
        deadline = time.monotonic() + seconds
        with self._lock_seats:
            self._refuse_closed()
            if len(self._seats) >= NODES_MAX:
                raise ConfigError(f"this cluster has {NODES_MAX} nodes, of which one process can make sense")
            seat = self._newcomer(id)
        try:
            self.members.add(seat.id, seat.address, voter=voter, timeout=seconds, progress=progress)
        except (MembershipRefused, ConfigError):
            with self._lock_seats:
                del self._seats[seat.id]
                seat.give_up()
            raise
        # From now on it finds the others by itself.
        seat.join = [other.address for other in self._all() if other is not seat]
        node = seat.node.wait_ready(max(0.001, deadline - time.monotonic()))
        self._note("add", seat.id, f"{seat.id} was added")
        return node

    def _newcomer(self, id_: str | None) -> Seat:
        used = {*self._seats, *self.status().former, *(member.id for member in self.members)}
        if id_ is None:
            id_ = next(f"n{number}" for number in range(1, 1 << 16) if f"n{number}" not in used)
        elif id_ in self._seats:
            raise ConfigError(f"there is a node {id_!r} already; there are: {', '.join(self._seats)}")
        seat = self._seat(_address.checked_id("id", id_))
        # It waits to be added: nobody answers at this address, so it enters as what it is added as.
        nobody = reserved()
        try:
            seat.join = [f"127.0.0.1:{nobody.getsockname()[1]}"]
            seat.make()
            seat.start()
            self._inject()
        except BaseException:
            del self._seats[seat.id]
            raise
        finally:
            nobody.close()
        return seat

    def remove(self, id: str | Node[S], *, timeout: Duration = _ADD_SECONDS) -> None:  # noqa: A002
        """Removes a node from the cluster and ends it. Its id never comes back."""
        seat = self._at(id)
        self.members.remove(seat.id, timeout=timeout)
        with self._lock_seats:
            self._seats.pop(seat.id, None)
            seat.give_up()
            self._inject()
        self._note("remove", seat.id, f"{seat.id} was removed")

    def wait_converged(self, timeout: Duration = _CONVERGE_SECONDS) -> Self:
        """Blocks until all nodes that run have the same leader and have applied everything that is in its log. Returns
        the cluster. Raises `Timeout`, with how far each one is."""
        seconds = _units.seconds("timeout", timeout)
        deadline = time.monotonic() + seconds
        self._refuse_to_block("wait_converged")
        while not self._has_converged():
            self._refuse_closed()
            if time.monotonic() >= deadline:
                raise Timeout(
                    f"the nodes do not agree after {seconds:g} s: {self._states()}",
                    fix="call `heal()`, `resume(id)` or `restart(id)`, or wait longer",
                )
            time.sleep(_POLL_SECONDS)
        return self

    def _has_converged(self) -> bool:
        leader = self._leader_now()
        if leader is None:
            return False
        want = leader.node.status()
        for seat in self._all():
            if not seat.is_live:
                continue
            status = seat.node.status()
            if status.removed:
                continue
            same = status.leader == want.id and status.term == want.term and status.error is None
            if not same or status.applied_index < want.last_index or status.change is not None:
                return False
        return True

    def load(
        self,
        call: Callable[[], object] | None = None,
        *,
        threads: int = 2,
        number: int | None = None,
        progress: Report = None,
    ) -> Load:
        """Has threads make one call after the other, to see the cluster at work: until `stop()` of what it returns, the
        end of a `with`, or `number` calls. By default they call the first command whose arguments are numbers and
        texts. `progress` is as in `members`: True for a bar, or a function that is given a `Progress` now and then.

        Raises `ConfigError` if there is none and no `call` is given."""
        from graft._load import Load

        self._refuse_closed()
        limit = None if number is None else _units.count("number", number)
        tell = checked(progress)
        self._end_load()
        self._load = Load(self, call, _units.count("threads", threads), limit, tell)
        self._note("load", None, "a stream of commands begins")
        return self._load

    @property
    def is_loaded(self) -> bool:
        """Whether threads of `load` make calls now."""
        return self._load is not None and self._load.is_running

    def toggle_load(self) -> str:
        """Begins a `load`, or ends the one that goes on. Returns, in words, which."""
        if self.is_loaded:
            ended = self._end_load()
            return f"the stream of commands has ended: {ended}"
        self.load()
        return "a stream of commands goes to the cluster"

    def _end_load(self) -> Load | None:
        load, self._load = self._load, None
        if load is not None:
            load.stop()
            self._note("load", None, f"the stream of commands has ended: {load.done} done, {load.failed} failed")
        return load

    def close(self, timeout: Duration = _CLOSE_SECONDS) -> None:
        """Ends all nodes and removes the temporary directory. Closing twice is fine."""
        _lifecycle.refuse_on_machine_thread("close")
        if getattr(self, "_ended", None) is not None:
            self._end_load()
            super().close(timeout)
            _lifecycle.untrack(self)
        with self._lock_seats:
            for seat in self._seats.values():
                seat.give_up()
            if self._authority is not None:
                _neighbours.leave(self._authority)
        self._end_mischief()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def stop(self, id: str | Node[S] | None = None, *, timeout: Duration = _CLOSE_SECONDS) -> None:  # noqa: A002
        """Ends one node in good order: it hands leadership over first. Without an id, closes the cluster."""
        if id is None:
            self.close(timeout)
            return
        with self._lock_seats:
            seat = self._at(id)
            seat.stop(_units.seconds("timeout", timeout))
        self._note("stop", seat.id, f"{seat.id} was stopped")

    # What the rest uses.

    def _all(self) -> list[Seat]:
        return list(self._seats.values())

    def _at(self, id_: object) -> Seat:
        key = cast("str", getattr(id_, "id", id_))
        try:
            return self._seats[key]
        except (KeyError, TypeError):
            raise KeyError(f"there is no node {key!r}; there are: {', '.join(self._seats)}") from None

    def _leader_now(self) -> Seat | None:
        leading: list[tuple[int, Seat]] = []
        for seat in self._all():
            status = seat.node.status() if seat.is_live else None
            if status is not None and status.role == "leader" and status.has_quorum is not False:
                leading.append((status.term, seat))
        return max(leading, key=lambda found: found[0])[1] if leading else None

    def _begin_index(self) -> int:
        return max((seat.node.status().membership_index for seat in self._all() if seat.is_live), default=0)

    def _refuse_closed(self) -> None:
        if self._ended.is_set():
            raise self._not_running()

    def _not_running(self) -> Stopped:
        return Stopped("the cluster is closed", fix="make a new LocalCluster")

    @property
    def _title(self) -> str:
        return "cluster" if self.name is None else f"cluster {self.name}"

    def _states(self) -> str:
        return ", ".join(_state(seat) for seat in self._all())

    def _words(self) -> str:
        name = "" if self.name is None else f" {self.name}"
        if self._ended.is_set():
            return f"<graft.LocalCluster{name}, closed>"
        return f"<graft.LocalCluster{name}: {self._states()}>"


def _state(seat: Seat) -> str:
    if seat.is_killed or seat.is_paused:
        return f"{seat.id} {seat.condition}"
    status: Status = seat.node.status()
    words = f"{seat.id} {status.role}"
    if seat.is_running:
        words += f" (term {status.term}, applied {status.applied_index} of {status.last_index})"
    return words


def _checked_machine(machine: Any) -> tuple[Callable[[], Any], Any]:
    """How to make one, and what it is."""
    if inspect.isclass(machine) and issubclass(machine, StateMachine):
        return machine, machine
    if isinstance(machine, StateMachine):
        name = type(machine).__name__
        raise TypeError(f"pass the class {name}, not an instance: each node needs a machine of its own")
    if callable(machine):
        made: object = machine()
        if isinstance(made, StateMachine):
            return machine, type(made)
    raise TypeError(f"the machine must be a subclass of graft.StateMachine, or make one, not {machine!r:.80}")
