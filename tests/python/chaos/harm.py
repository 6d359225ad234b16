"""What one fault did, and what undoes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from chaos.cables import Pair

if TYPE_CHECKING:
    from chaos.nemesis import Nemesis
    from chaos.network import Noise

HARM_SECONDS = (0.2, 0.5, 1.0, 2.0)
# Longer than the longest time after which a follower campaigns, twice the election timeout.
SLEEP_SECONDS = (1.2, 1.8, 2.5)


@dataclass
class Harm:
    """One fault that was done."""

    name: str
    until: float
    down: set[str] = field(default_factory=set[str])
    """Members that do not run, and are started again in the end."""
    asleep: set[str] = field(default_factory=set[str])
    cuts: set[Pair] = field(default_factory=set[Pair])
    delays: dict[Pair, float] = field(default_factory=dict[Pair, float])
    noises: dict[Pair, Noise] = field(default_factory=dict[Pair, "Noise"])
    undo: Callable[[], None] | None = None
    """What else there is to do, before anybody is started."""


Fault: TypeAlias = Callable[["Nemesis"], "Harm | None"]
