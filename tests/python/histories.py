"""What happened in a cluster of processes, read from their journals, and whether it may have happened.

The claims that are checked:

- An acknowledged write is in the state of every replica, once, at the index and the place it was acknowledged for.
- A refused write is nowhere. One of unknown outcome is there at most once.
- Nothing is there that nobody sent, nothing that was there goes away, and all replicas have the same.
- After all processes were killed and the replicas agree again, a write that is not there then never comes.
- A linearizable read sees every write that was acknowledged, anywhere, before the read began.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from processes import Cluster, until


@dataclass(frozen=True)
class Acknowledged:
    """A write that was applied, as its writer was told. Times are nanoseconds of the clock that all processes share."""

    sent: int
    time: int
    index: int
    position: int


@dataclass(frozen=True)
class Read:
    """A linearizable read."""

    start: int
    end: int
    count: int


class History:
    """All that the writers and readers of a cluster noted."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._offsets: dict[Path, int] = {}
        self.sent: dict[str, int] = {}
        self.acknowledged: dict[str, Acknowledged] = {}
        self.refused: dict[str, str] = {}
        self.unknown: dict[str, str] = {}
        self.reads: list[Read] = []
        self.failed_reads: list[str] = []
        self.state: list[tuple[str, int]] = []
        self._places: dict[str, int] = {}
        self._chain = b""
        self._gone: set[str] = set()

    def update(self) -> History:
        """Takes in what was noted since."""
        for words in self._lines():
            match words:
                case ["S", token, time]:
                    assert token not in self.sent, f"{token} was sent twice: the test is wrong"
                    self.sent[token] = int(time)
                case ["A", token, time, index, position]:
                    self.acknowledged[token] = Acknowledged(self.sent[token], int(time), int(index), int(position))
                case ["N", token, _, code]:
                    self.refused[token] = code
                case ["U", token, _, code]:
                    self.unknown[token] = code
                case ["R", start, end, count]:
                    self.reads.append(Read(int(start), int(end), int(count)))
                case ["F", _, _, code]:
                    self.failed_reads.append(code)
                case _:
                    raise AssertionError(f"a line that no journal has: {words}")
        return self

    def _lines(self) -> Iterator[list[str]]:
        for id_ in self._cluster.ids:
            path = self._cluster.home(id_) / "journal"
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._offsets[path] = self._offsets.get(path, 0) + len(whole)
            yield from (line.split() for line in whole.decode().splitlines())

    def wait_for(self, more: int, what: str) -> None:
        """Waits until so many more writes are acknowledged."""
        enough = len(self.update().acknowledged) + more
        until(lambda: len(self.update().acknowledged) >= enough, what)

    def failover(self, killed: int) -> float:
        """Waits for the first write that was sent and acknowledged after this time; gives how many seconds it took."""

        def first() -> int:
            return min((noted.time for noted in self.update().acknowledged.values() if noted.sent > killed), default=0)

        until(first, "a write that was sent and acknowledged after the leader was killed")
        return (first() - killed) / 1e9

    def check(self, *, all_were_killed: bool = False) -> None:
        """Holds what the replicas have against what was noted. Every process runs, and nobody writes meanwhile."""
        self._cluster.converged()
        self.update()
        self._extend(self._cluster.running()[0])
        for id_ in self._cluster.running():
            count, chain = self._cluster[id_].query("summary", consistency="stale")
            assert (count, chain) == (len(self.state), self._chain.hex()), f"{id_} has another state than the others"
        for token, noted in self.acknowledged.items():
            found = self.state[noted.position - 1] if noted.position <= len(self.state) else None
            assert found == (token, noted.index), f"{token} was acknowledged as {noted}, but there is {found}"
        if all_were_killed:
            self._gone = self.sent.keys() - self._places.keys()
        self._check_reads()

    def _extend(self, id_: str) -> None:
        # What is known already is not asked for again: the chain of hashes vouches for it.
        for token, index in self._cluster[id_].query("since", len(self.state), consistency="stale"):
            assert token in self.sent, f"nobody sent {token}"
            assert token not in self._places, f"{token} is there twice: {self._places[token]} and {len(self.state)}"
            assert token not in self.refused, f"{token} was refused with {self.refused[token]}, and yet it is there"
            assert token not in self._gone, f"{token} was lost when all were killed, and came later"
            assert not self.state or self.state[-1][1] < index, f"{token} at {index} is behind {self.state[-1]}"
            self._places[token] = len(self.state)
            self.state.append((token, index))
            self._chain = hashlib.sha256(self._chain + f"{token} {index}".encode()).digest()

    def _check_reads(self) -> None:
        acknowledged = sorted((noted.time, noted.position) for noted in self.acknowledged.values())
        times = [time for time, _ in acknowledged]
        highest = [0]
        for _, position in acknowledged:
            highest.append(max(highest[-1], position))
        for read in self.reads:
            due = highest[bisect.bisect_left(times, read.start)]
            assert read.count >= due, f"{read} is stale: {due} writes had been acknowledged when it began"
            assert read.count <= len(self.state), f"{read} saw what never was"

    def __str__(self) -> str:
        outcomes = f"{len(self.acknowledged)} acknowledged, {len(self.refused)} refused, {len(self.unknown)} unknown"
        open_ = len(self.sent) - len(self.acknowledged) - len(self.refused) - len(self.unknown)
        reads = f"{len(self.reads)} reads, {len(self.failed_reads)} failed"
        return f"{len(self.sent)} writes: {outcomes}, {open_} without an answer; {len(self.state)} applied; {reads}"
