"""What was done in a story so far, and how fast."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from linearizable import FAILED, OK, UNKNOWN

from chaos.checking import Checked


@dataclass
class Tally:
    """Rates are those of the whole time: faults, healing, and whatever of the checks is waited for."""

    seconds: float = 0.0
    """Of faults."""
    operations: int = 0
    verdicts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    faults: Counter[str] = field(default_factory=Counter[str])
    stopped: int = 0
    reads: Counter[str] = field(default_factory=Counter[str])
    check_seconds: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def add(self, checked: Checked) -> None:
        """One verdict more."""
        self.verdicts += 1
        self.operations += checked.verdict.operations
        self.outcomes.update(checked.outcomes)
        self.reads.update(checked.reads)
        self.check_seconds += checked.verdict.seconds

    def __str__(self) -> str:
        whole = time.monotonic() - self.began
        outcomes = ", ".join(f"{self.outcomes[name]} {name}" for name in (OK, FAILED, UNKNOWN))
        faults = ", ".join(f"{number} {name}" for name, number in sorted(self.faults.items()))
        reads = ", ".join(f"{number} {name}" for name, number in sorted(self.reads.items()))
        rates = f"{self.operations / whole:.0f} checked operations a second"
        rates += f" and {60 * self.faults.total() / whole:.1f} faults a minute, over {whole:.0f} s"
        return (
            f"{self.operations} operations ({outcomes}; reads: {reads})\n"
            f"{self.faults.total()} faults ({faults or 'none'}); {self.stopped} nodes stopped themselves\n"
            f"{rates}; {self.verdicts} verdicts in {self.check_seconds:.1f} s"
        )
