"""Does harm to a cluster, in an order that a seed decides, and undoes all of it in the end."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import permutations
from typing import TypeAlias

from processes import Died, ProcessError

from chaos.cables import Pair
from chaos.cluster import Members

ACTIVE_MAX = 2
HARM_SECONDS = (0.2, 0.5, 1.0, 2.0, 3.0)
# Longer than the longest time after which a follower campaigns, twice the election timeout.
SLEEP_SECONDS = (1.2, 2.0, 3.5)
PEACE_SECONDS = (0.0, 0.3, 1.0, 2.0)
DELAYS_SECONDS = (0.02, 0.1, 0.3)
_TRANSFER_SECONDS = 2.0


@dataclass
class Harm:
    """One fault that was done, and what undoes it."""

    name: str
    until: float
    down: set[str] = field(default_factory=set[str])
    asleep: set[str] = field(default_factory=set[str])
    cuts: set[Pair] = field(default_factory=set[Pair])
    delays: dict[Pair, float] = field(default_factory=dict[Pair, float])


Fault: TypeAlias = Callable[["Nemesis"], "Harm | None"]


class Nemesis:
    """Chooses a fault, waits, heals it or chooses another one besides."""

    def __init__(self, members: Members, clients: list[str], seed: int) -> None:
        self.luck = random.Random(seed)
        self.members = members
        self.clients = clients
        self.faults: tuple[str, ...] = tuple(FAULTS)
        self.done: Counter[str] = Counter()
        self._active: list[Harm] = []

    def run(self, seconds: float) -> None:
        """Does harm for so long, then heals everything."""
        end = time.monotonic() + seconds
        try:
            while (now := time.monotonic()) < end:
                if self._active and (len(self._active) >= ACTIVE_MAX or self.luck.random() < 0.5):
                    harm = min(self._active, key=lambda one: one.until)
                    time.sleep(max(0.0, min(harm.until, end) - now))
                    self._heal(harm)
                    time.sleep(self.luck.choice(PEACE_SECONDS))
                else:
                    self._strike()
        finally:
            self.heal()

    def heal(self) -> None:
        """Undoes everything."""
        while self._active:
            self._heal(self._active[0])

    def some(self, ids: set[str]) -> str | None:
        """One of them."""
        return self.luck.choice(sorted(ids)) if ids else None

    def harm(self, seconds: tuple[float, ...] = HARM_SECONDS) -> Harm:
        """One that has not been done yet."""
        return Harm("", time.monotonic() + self.luck.choice(seconds))

    def awake(self) -> set[str]:
        """The members that run."""
        return set(self.members.running())

    def leader(self) -> str | None:
        """The leader, as far as it is known."""
        return self.members.who_leads()

    def _strike(self) -> None:
        names = [name for name in self.faults if name not in self.members.network.lacks]
        weights = [FAULTS[name][1] for name in names]
        name = self.luck.choices(names, weights)[0]
        harm = FAULTS[name][0](self)
        if harm is None:
            time.sleep(PEACE_SECONDS[1])
            return
        self.done[name] += 1
        harm.name = name
        self._active.append(harm)
        self._shape()

    def _heal(self, harm: Harm) -> None:
        self._active.remove(harm)
        for id_ in sorted(harm.asleep):
            if self.members[id_].running:
                self.members[id_].resume()
        self._shape()
        if harm.down:
            self.members.start(*sorted(harm.down))

    def _shape(self) -> None:
        cuts = {pair for harm in self._active for pair in harm.cuts}
        delays = {pair: seconds for harm in self._active for pair, seconds in harm.delays.items()}
        self.members.network.shape(cuts, delays)


def _kill(nemesis: Nemesis, *ids: str | None) -> Harm | None:
    chosen = {id_ for id_ in ids if id_ is not None}
    if not chosen:
        return None
    harm = nemesis.harm()
    nemesis.members.kill(*sorted(chosen))
    harm.down = chosen
    return harm


def kill_leader(nemesis: Nemesis) -> Harm | None:
    """SIGKILL."""
    return _kill(nemesis, nemesis.leader())


def kill_one(nemesis: Nemesis) -> Harm | None:
    """SIGKILL, to anybody."""
    return _kill(nemesis, nemesis.some(nemesis.awake()))


def kill_all(nemesis: Nemesis) -> Harm | None:
    """SIGKILL, to all at once."""
    return _kill(nemesis, *nemesis.awake())


def _sleep(nemesis: Nemesis, id_: str | None) -> Harm | None:
    if id_ is None:
        return None
    nemesis.members[id_].pause()
    harm = nemesis.harm(SLEEP_SECONDS)
    harm.asleep = {id_}
    return harm


def pause_leader(nemesis: Nemesis) -> Harm | None:
    """SIGSTOP, for longer than an election takes."""
    return _sleep(nemesis, nemesis.leader())


def pause_one(nemesis: Nemesis) -> Harm | None:
    """SIGSTOP, to anybody."""
    return _sleep(nemesis, nemesis.some(nemesis.awake()))


def isolate_leader(nemesis: Nemesis) -> Harm | None:
    """The leader and a third of the clients on one side, all others on the other one."""
    leader = nemesis.leader()
    return None if leader is None else _split(nemesis, {leader})


def split(nemesis: Nemesis) -> Harm | None:
    """A minority and a third of the clients on one side, all others on the other one."""
    ids = nemesis.members.ids
    return _split(nemesis, set(nemesis.luck.sample(ids, max(1, (len(ids) - 1) // 2))))


def _split(nemesis: Nemesis, minority: set[str]) -> Harm:
    harm = nemesis.harm(SLEEP_SECONDS)
    side = minority | set(nemesis.luck.sample(nemesis.clients, len(nemesis.clients) // 3))
    others = {*nemesis.members.ids, *nemesis.clients} - side
    harm.cuts = {pair for one in side for other in others for pair in ((one, other), (other, one))}
    return harm


def mute_leader(nemesis: Nemesis) -> Harm | None:
    """Nothing of what the leader says reaches the other members."""
    leader = nemesis.leader()
    return None if leader is None else _one_way(nemesis, [(leader, other) for other in nemesis.members.ids])


def deafen_leader(nemesis: Nemesis) -> Harm | None:
    """Nothing of what the other members say reaches the leader."""
    leader = nemesis.leader()
    return None if leader is None else _one_way(nemesis, [(other, leader) for other in nemesis.members.ids])


def cut_one_way(nemesis: Nemesis) -> Harm | None:
    """One member does not hear another one."""
    return _one_way(nemesis, [nemesis.luck.choice(list(permutations(nemesis.members.ids, 2)))])


def _one_way(nemesis: Nemesis, pairs: list[Pair]) -> Harm:
    harm = nemesis.harm(SLEEP_SECONDS)
    harm.cuts = {(one, other) for one, other in pairs if one != other}
    return harm


def cut_clients(nemesis: Nemesis) -> Harm | None:
    """Half of the clients reach one member only, and not always the leader."""
    harm = nemesis.harm(SLEEP_SECONDS)
    reached = nemesis.luck.choice(nemesis.members.ids)
    some = nemesis.luck.sample(nemesis.clients, (len(nemesis.clients) + 1) // 2)
    far = [id_ for id_ in nemesis.members.ids if id_ != reached]
    harm.cuts = {pair for client in some for id_ in far for pair in ((client, id_), (id_, client))}
    return harm


def delay(nemesis: Nemesis) -> Harm | None:
    """What one member says is late."""
    harm = nemesis.harm()
    slow = nemesis.luck.choice(nemesis.members.ids)
    seconds = nemesis.luck.choice(DELAYS_SECONDS)
    harm.delays = {(slow, other): seconds for other in nemesis.members.ids if other != slow}
    return harm


def reset(nemesis: Nemesis) -> Harm | None:
    """All connections with one member end."""
    one = nemesis.luck.choice(nemesis.members.ids)
    nemesis.members.network.reset((one, other) for other in {*nemesis.members.ids, *nemesis.clients} - {one})
    return nemesis.harm((0.0,))


def transfer(nemesis: Nemesis) -> Harm | None:
    """The leader hands over. Whether it can is all one."""
    leader = nemesis.leader()
    if leader is None:
        return None
    try:
        nemesis.members[leader].call("change", change="transfer_leadership", args=[], seconds=_TRANSFER_SECONDS)
    except (Died, ProcessError):
        return None
    return nemesis.harm((0.0,))


FAULTS: dict[str, tuple[Fault, int]] = {
    "kill_leader": (kill_leader, 4),
    "kill_one": (kill_one, 2),
    "kill_all": (kill_all, 1),
    "pause_leader": (pause_leader, 4),
    "pause_one": (pause_one, 1),
    "isolate_leader": (isolate_leader, 4),
    "split": (split, 2),
    "mute_leader": (mute_leader, 2),
    "deafen_leader": (deafen_leader, 2),
    "cut_one_way": (cut_one_way, 2),
    "cut_clients": (cut_clients, 2),
    "delay": (delay, 2),
    "reset": (reset, 1),
    "transfer": (transfer, 2),
}
