"""The machine of the soak: counters, whose number does not grow; or one that leaks, to see that this is found out."""

from __future__ import annotations

import graft


class Counters(graft.StateMachine):
    """A counter for each lane of the load, and the last words of each."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.words: dict[str, str] = {}

    @graft.command
    def add(self, lane: str, words: str) -> int:
        """Counts; gives the count."""
        self.counts[lane] = self.counts.get(lane, 0) + 1
        self._keep(lane, words)
        return self.counts[lane]

    @graft.query
    def count(self, lane: str) -> int:
        """What a lane has come to."""
        return self.counts.get(lane, 0)

    def _keep(self, lane: str, words: str) -> None:
        self.words[lane] = words


class Hoarder(Counters):
    """Keeps every command for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.hoard: list[str] = []

    def _keep(self, lane: str, words: str) -> None:
        self.hoard.append(f"{lane} {words}")


MACHINES: dict[str, type[Counters]] = {"none": Counters, "machine": Hoarder}
