"""The way to a cluster: what a `Node`, which is a member, and a `Client`, which is none, have in common."""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Unpack

from graft import _lifecycle, _units, _what_if
from graft._context import here
from graft._errors import GraftError, Timeout
from graft._machine import StateMachine
from graft._members import Members
from graft._plan import Catalog
from graft._reading import Reading
from graft._snapshotting import unfinished
from graft._verbs import BACKUP_SECONDS, SNAPSHOT_SECONDS, VERIFY_SECONDS, Calls

if TYPE_CHECKING:
    from graft._completions import Notifier
    from graft._errors import Stopped
    from graft._events import Events
    from graft._graft import NativeCalls
    from graft._health import Health
    from graft._loops import Loops
    from graft._status import Status
    from graft._timeline import Timeline
    from graft._units import Duration
    from graft._verification import Verification
    from graft._watch import Since, Watch
    from graft._what_if import Question, WhatIf

S = TypeVar("S", bound=StateMachine)

RECORD_SECONDS = 0.2


class Access(Calls[S]):
    """What a `Node` and a `Client` have in common: every call, and the state of things."""

    # What __del__ looks at, should __init__ not come to its end.
    _running: Any = None
    """The engine while there is one: of the kind that the subclass makes."""
    _generation = -1
    _noun: ClassVar[str]
    """For messages: "node" or "client"."""

    def __init__(self, machine: type[S], seconds: float) -> None:
        self._catalog = Catalog(machine)
        self._seconds = seconds
        self._reading = Reading()
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._made_notifier: Notifier | None = None
        self._made_loops: Loops | None = None
        self._generation = _lifecycle.process.generation

    @property
    def _access(self) -> Access[S]:
        return self

    @property
    @abstractmethod
    def _title(self) -> str:
        """For messages: "node n1"."""

    @abstractmethod
    def status(self) -> Status:
        """What is known now."""

    @abstractmethod
    def why(self) -> str:
        """In words, why nothing goes on, or that all is well."""

    @abstractmethod
    def health(self) -> Health:
        """Whether all is well, and what to do about what is not."""

    @abstractmethod
    async def _status_later(self) -> Status: ...

    @abstractmethod
    async def _why_later(self) -> str: ...

    @abstractmethod
    async def _health_later(self) -> Health: ...

    def _last_status(self) -> Status | None:
        """What is known after an error, without waiting long; None if nothing is."""
        return self.status()

    async def _last_status_later(self) -> Status | None:
        return await self._status_later()

    @abstractmethod
    def _not_running(self) -> Stopped: ...

    @abstractmethod
    def _end(self, seconds: float) -> None:
        """Called before the interpreter goes down."""

    @property
    def members(self) -> Members:
        """The members of the cluster, and all that changes them."""
        return Members(self)

    def what_if(self, **change: Unpack[Question]) -> WhatIf:
        """What would come of one change of the membership, without making it: `node.what_if(remove="n2")`, and so
        `add`, `promote` and `demote` with an id, `apply` with `{id: address}`. Who is within reach is judged by the
        member that is asked."""
        asked = _what_if.change_of(change).what
        native = self._engine("what_if")
        self._refuse_to_block("what_if")
        return _what_if.from_native(native.what_if(asked, self._seconds))

    def events(self, since: int | None = None, timeout: Duration | None = None) -> Events:
        """An iterator of what happens from now on: leaders, roles, changes of the membership, snapshots, connections.

        `since` is the `sequence` of the last event that was seen: it goes on after that one; 0 begins with the oldest
        that is kept. If some after it are forgotten already, the first event is a "gap" that says how many. The
        iterator ends when the node stops, or once nothing has happened for `timeout`; `list(node.events(since=0,
        timeout=0))` is all there is. Those of a client are the events of the member that it asks; with `timeout=0` it
        waits, as long as for a call, to be told all of them, and raises `Timeout` if it is not. See `Event`.
        """
        from graft._events import Events

        return Events(self, since, timeout)

    def watch(self, *topics: str, since: Since | None = None, timeout: Duration | None = None) -> Watch:
        """An iterator of what commands tell with `self.context.emit(topic, value)`, on these topics or on all.

        ```python
        for item in node.watch("deposits"):
            if isinstance(item, graft.Emitted):
                print(item.index, item.value)
            else:  # graft.FellBehind
                print(node.options(at_least=item.upto).query(Bank.balance, "ann"))
        ```

        Everything comes in the order of the log, and once. `since` says where to begin: an index, behind all that the
        command there emitted (0: the oldest that is kept), or the last item that was seen, behind exactly that; by
        default what is emitted from now on. Of what is emitted each member keeps the newest, in memory: one that
        restarts from a snapshot has only what came after it. If some is not kept any more that this watcher has not
        seen, it gets a `FellBehind` in its place, and goes on. An index that the log has not reached is waited for,
        since the member that tells may be behind the one that told before: nothing comes until then, so that a wrong
        index, or one of another cluster, is best found by a `timeout`; `status().last_index` is where the log ends.

        It ends once nothing has come for `timeout`, and raises `Stopped` when the node stops or the client is closed.
        With `timeout=0` it gives what is there: a client waits, as long as for a call, to be told all of that, and
        raises `Timeout` if it is not.
        `watch.position` is what to give as `since` to another one that is to go on from there.
        """
        from graft._watch import Watch

        return Watch(self, topics, since, timeout)

    def verify(self, timeout: Duration = VERIFY_SECONDS) -> Verification:
        """Has every member compute a digest of its state at one index of the log, and compares them.

        Members that do not answer within `timeout` (default 10 s) are named as missing. The member that was asked (of a
        client, mostly the leader) keeps in mind who differed, and says so in its `health()` and `why()`, until a later
        comparison that it makes finds the same state, or it is started again. Raises as a command does if the
        question does not come into the log.
        """
        from graft._verification import verification

        seconds = _units.seconds("timeout", timeout)
        native = self._engine("verify")
        self._refuse_to_block("verify")
        digests, index, _ = native.verify(seconds)
        return verification(digests, index, self.status())

    def snapshot(self, timeout: Duration = SNAPSHOT_SECONDS) -> int:
        """Takes a snapshot now, of this node, or of the member that the client asks, and returns the index of the last
        entry that it covers; the log up to there may be forgotten. Nodes take them by themselves, see
        `Config.snapshot_every_bytes`.

        Raises `Timeout` (it goes on, and may still be written), or `StorageError` with what the machine's `snapshot()`
        raised or what is wrong with the disk.
        """
        seconds = _units.seconds("timeout", timeout)
        native = self._engine("snapshot")
        self._refuse_to_block("snapshot")
        try:
            return native.snapshot(seconds)
        except GraftError as error:
            raise unfinished(error, self._last_status(), seconds) from None

    def backup(self, path: str | os.PathLike[str], timeout: Duration = BACKUP_SECONDS) -> int:
        """Writes one file with the state of the cluster, every command that had returned to anybody before included, to
        `path` on this machine, where nothing may be yet, and returns the index of the last entry that it covers. It is
        durable, and was read back, when this returns; `graft.restore()` founds a cluster with it.

        At most `timeout` (default 300 s). Raises `StorageError` if it cannot be written there, `NoQuorum` or `Timeout`
        if nobody confirms that it is current; nothing is left then. Given up by Ctrl-C, it may go on in the background.
        """
        seconds = _units.seconds("timeout", timeout)
        native = self._engine("backup")
        self._refuse_to_block("backup")
        return native.backup(os.fspath(path), seconds)

    def record(self, every: Duration = RECORD_SECONDS) -> Timeline:
        """Records what happens and how things are, so often (default 0.2 s), until its `stop()` or the end of a `with`:

        ```python
        with cluster.record() as timeline:
            cluster.kill(cluster.leader)
        timeline.plot()
        ```

        Of a `LocalCluster` it has what every node sees, of a node or a client what that one sees.
        """
        from graft._timeline import record

        self._engine("record")
        return record(self, every)

    # What the calls use.

    def _engine(self, verb: str) -> NativeCalls:
        """The running engine, or an error that says why there is none."""
        if self._generation != _lifecycle.process.generation:
            _lifecycle.refuse_after_fork(self._generation, self._title)
        if here.in_machine:
            _lifecycle.refuse_on_machine_thread(verb)
        native: NativeCalls | None = self._running
        return self._absent(verb) if native is None else native

    def _absent(self, _verb: str) -> NativeCalls:
        raise self._not_running()

    def _refuse_to_block(self, verb: str) -> None:
        _lifecycle.refuse_in_event_loop(verb, self._noun)

    def _late(self, seconds: float) -> Timeout:
        return Timeout(
            f"the {self._title} was not answered within {seconds:g} s",
            fix=f"ask `{self._noun}.why()`, or give more time",
        )

    def _notifier(self) -> Notifier:
        with self._lock:
            if self._running is None:
                raise self._not_running()
            if self._made_notifier is None:
                from graft._completions import Notifier

                self._made_notifier = Notifier(self)
            return self._made_notifier

    @property
    def _loops(self) -> Loops:
        if self._made_loops is None:
            with self._lock:
                if self._running is None:
                    raise self._not_running()
                if self._made_loops is None:
                    from graft._loops import Loops

                    self._made_loops = Loops()
        return self._made_loops

    def _end_calls(self, seconds: float) -> None:
        """After the engine has ended: nobody is left waiting."""
        if self._made_notifier is not None:
            self._made_notifier.close(seconds)
        if self._made_loops is not None:
            self._made_loops.close()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:  # noqa: ARG002
        from graft._display import of_access

        return of_access(self)

    def __repr__(self) -> str:
        if self._generation != _lifecycle.process.generation:
            return f"<graft.{type(self).__name__} {self._title.partition(' ')[2]}, of another process>"
        return self._words()

    @abstractmethod
    def _words(self) -> str: ...


__all__ = ["Access"]
