"""Does harm to a cluster, in an order that a seed decides, and undoes all of it in the end."""

from __future__ import annotations

import random
import time
from collections import Counter

from chaos import faults, machine_faults
from chaos.clocks import Clocks
from chaos.cluster import Members
from chaos.disks import Disk
from chaos.harm import HARM_SECONDS, Fault, Harm
from chaos.tracing import Trace

FAULTS: dict[str, tuple[Fault, int]] = faults.FAULTS | machine_faults.FAULTS
ACTIVE_MAX = 2
PEACE_SECONDS = (0.0, 0.1, 0.5)


class Nemesis:
    """Chooses a fault, waits, heals it or chooses another one besides."""

    def __init__(self, members: Members, clients: list[str], seed: int) -> None:
        self.luck = random.Random(seed)
        self.members = members
        self.clients = clients
        self.faults: tuple[str, ...] = tuple(FAULTS)
        self.done: Counter[str] = Counter()
        self.stopped = 0
        """How many nodes stopped themselves, because their disks had failed."""
        self._active: list[Harm] = []
        self.lacks = lacks(members)

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
        names = [name for name in self.faults if name not in self.lacks]
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
        if harm.undo is not None:
            harm.undo()
        if harm.down:
            self.members.start(*sorted(harm.down))

    def _shape(self) -> None:
        cuts = {pair for harm in self._active for pair in harm.cuts}
        delays = {pair: seconds for harm in self._active for pair, seconds in harm.delays.items()}
        noises = {pair: noise for harm in self._active for pair, noise in harm.noises.items()}
        self.members.network.shape(cuts, delays, noises)


def lacks(members: Members) -> dict[str, str]:
    """The faults that cannot be done to these, and why."""
    found = dict.fromkeys(members.network.lacks, f"not with {members.network.name}")
    if not members.disks:
        found |= dict.fromkeys(machine_faults.DISKS, Disk.trouble() or "the members have no disks of their own")
    if members.clocks is None:
        found |= dict.fromkeys(machine_faults.CLOCKS, Clocks.trouble() or "the members have no clocks of their own")
    if (why := Trace.trouble()) is not None:
        found |= dict.fromkeys(machine_faults.TRACES, why)
    return found
