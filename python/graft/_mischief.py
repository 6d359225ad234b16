"""What can be done to a `LocalCluster` to see how it bears it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from graft import _units
from graft._errors import ConfigError

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from graft._node import Node
    from graft._seat import Seat
    from graft._units import Duration

_NOTES_MAX = 1000
_DELAY_SECONDS_MAX = 60.0


class Undo:
    """What a fault gives back: in a `with` it lasts as long as the block, and otherwise until `heal()`."""

    def __init__(self, words: str, undo: Callable[[], object]) -> None:
        self._words = words
        self._undo = undo

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo()

    def __repr__(self) -> str:
        return f"<fault: {self._words}>"


class Mischief:
    """Faults of the network, the disk and the processes of a `LocalCluster`. Each takes ids or nodes, and most can be
    used in a `with`, which ends them."""

    _seats: dict[str, Seat]
    _lock_seats: threading.RLock
    _luck: random.Random

    def _begin_mischief(self) -> None:
        self._cuts: dict[tuple[str, str], int] = {}
        self._delays: dict[tuple[str, ...], float] = {}
        self._drops: dict[tuple[str, ...], float] = {}
        self._notes: deque[tuple[float, str, str | None, str]] = deque(maxlen=_NOTES_MAX)
        self._listeners: list[Callable[[float, str, str | None, str], object]] = []

    def _end_mischief(self) -> None:
        if hasattr(self, "_listeners"):
            self._listeners.clear()

    def pause(self, id: str | Node[Any]) -> Undo:  # noqa: A002 - the word of the product
        """Has a node stand still, as a process that is stopped: what is sent to it waits until `resume`."""
        with self._lock_seats:
            seat = self._at(id)
            seat.pause()
        self._note("pause", seat.id, f"{seat.id} was paused")
        return Undo(f"{seat.id} is paused", lambda: self.resume(seat.id))

    def resume(self, id: str | Node[Any]) -> None:  # noqa: A002
        """Has a paused node go on."""
        with self._lock_seats:
            seat = self._at(id)
            seat.resume()
        self._note("resume", seat.id, f"{seat.id} goes on")

    def fail_disk(self, id: str | Node[Any]) -> None:  # noqa: A002
        """Has every write of a node fail from now on, until it is restarted."""
        with self._lock_seats:
            seat = self._at(id)
            seat.fail_disk()
        self._note("fail_disk", seat.id, f"the disk of {seat.id} fails")

    def partition(self, *groups: Iterable[str | Node[Any]] | str) -> Undo:
        """Cuts the network into groups that cannot reach one another: `partition(["n1"], ["n2", "n3"])`. Nodes that are
        in none of them are a group of their own."""
        sets = [self._ids([group] if isinstance(group, str) else group) for group in groups]
        if not any(sets):
            raise ConfigError('name at least one group: partition(["n1"], ["n2", "n3"])')
        named = [id_ for group in sets for id_ in group]
        twice = {id_ for id_ in named if named.count(id_) > 1}
        if twice:
            raise ConfigError(f"{', '.join(sorted(twice))} cannot be in two groups of a partition")
        rest = [id_ for id_ in self._seats if id_ not in named]
        sides = [group for group in [*sets, rest] if group]
        pairs = [(a, b) for side in sides for a in side for other in sides if other is not side for b in other]
        words = " | ".join(" ".join(side) for side in sides)
        return self._cut(pairs, "partition", None, f"the network is cut: {words}")

    def isolate(self, id: str | Node[Any]) -> Undo:  # noqa: A002
        """Cuts one node off from all others, both ways."""
        return self.partition([id])

    def cut(self, origin: str | Node[Any], to: str | Node[Any]) -> Undo:
        """Cuts the way from one node to another. The way back goes on."""
        a, b = self._at(origin).id, self._at(to).id
        if a == b:
            raise ConfigError(f"{a} needs no network to reach itself")
        return self._cut([(a, b)], "cut", a, f"the way from {a} to {b} is cut")

    def delay(self, seconds: Duration, *ids: str | Node[Any]) -> Undo:
        """Has everything that nodes say to one another arrive so much later: what these nodes send, or all of them."""
        found = 0.0 if seconds == 0 and not isinstance(seconds, bool) else _units.seconds("seconds", seconds)
        if found > _DELAY_SECONDS_MAX:
            raise ConfigError(f"seconds={seconds!r} is more than {_DELAY_SECONDS_MAX:g} s; cut the network instead")
        return self._slow(self._delays, found, ids, "delay", f"messages arrive {found * 1000:g} ms later")

    def drop(self, p: float, *ids: str | Node[Any]) -> Undo:
        """Loses each message between nodes with this probability, 0 to 1: of those that these nodes send, or of all."""
        if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
            raise ConfigError(f"p={p!r} must be a probability, from 0 to 1")
        return self._slow(self._drops, float(p), ids, "drop", f"{p:.0%} of the messages are lost")

    def heal(self) -> None:
        """Ends all faults of the network. Killed nodes stay dead, paused ones paused."""
        with self._lock_seats:
            self._cuts.clear()
            self._delays.clear()
            self._drops.clear()
            self._inject()
        self._note("heal", None, "the network is whole")

    # How that is done.

    def _cut(self, pairs: list[tuple[str, str]], kind: str, member: str | None, words: str) -> Undo:
        with self._lock_seats:
            for pair in pairs:
                self._cuts[pair] = self._cuts.get(pair, 0) + 1
            self._inject()
        self._note(kind, member, words)
        return Undo(words, lambda: self._uncut(pairs))

    def _uncut(self, pairs: list[tuple[str, str]]) -> None:
        with self._lock_seats:
            for pair in pairs:
                left = self._cuts.pop(pair, 1) - 1  # all of them are gone after a heal
                if left > 0:
                    self._cuts[pair] = left
            self._inject()
        self._note("heal", None, "the network is whole" if not self._cuts else "a cut has ended")

    def _slow(
        self,
        faults: dict[tuple[str, ...], float],
        value: float,
        ids: tuple[str | Node[Any], ...],
        kind: str,
        words: str,
    ) -> Undo:
        key = tuple(self._ids(ids))

        def undo() -> None:
            with self._lock_seats:
                faults.pop(key, None)
                self._inject()
            self._note("heal", None, f"{kind} has ended")

        with self._lock_seats:
            faults[key] = value
            self._inject()
        self._note(kind, None, f"{words}{', of ' + ', '.join(key) if key else ''}")
        return Undo(words, undo)

    def _inject(self) -> None:
        """Tells every node what is wrong with its ways to the others."""
        seats = list(self._seats.values())
        for seat in seats:
            delay, drop = _worst(self._delays, seat.id), _worst(self._drops, seat.id)
            faults = {
                other.address: ((seat.id, other.id) in self._cuts, delay, drop) for other in seats if other is not seat
            }
            seat.fault_links(faults, self._luck.getrandbits(63) | 1)

    def _ids(self, nodes: Iterable[str | Node[Any]]) -> list[str]:
        return [self._at(node).id for node in nodes]

    def _at(self, id_: object) -> Seat:
        raise NotImplementedError

    def _note(self, kind: str, member: str | None, words: str) -> None:
        """Tells whoever records what was done."""
        import time

        when = time.time()
        self._notes.append((when, kind, member, words))
        for listener in list(self._listeners):
            listener(when, kind, member, words)


def _worst(faults: dict[tuple[str, ...], float], id_: str) -> float:
    return max((value for ids, value in faults.items() if not ids or id_ in ids), default=0.0)
