"""What writers were told, held against what the members have: nothing that was acknowledged is lost, nothing is there
twice, nothing changes that was there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import Cluster, until

from chaos.receipts import link


class Broken(AssertionError):
    """Something was lost, is there twice, or has changed. `lost` counts acknowledged writes that are not there."""

    def __init__(self, message: str, lost: int = 0) -> None:
        super().__init__(message)
        self.lost = lost


class Ledger:
    """All that the writers of some journals noted, and all that was seen of the members."""

    def __init__(self, journals: list[Path]) -> None:
        self._offsets = dict.fromkeys(journals, 0)
        self._sent: set[str] = set()
        self._refused: set[str] = set()
        self._due: dict[str, tuple[int, int]] = {}
        self._tokens: list[tuple[str, int]] = []
        self._places: dict[str, int] = {}
        self._chains = [b""]
        self.acknowledged = 0
        self.unknown = 0

    def __len__(self) -> int:
        return len(self._tokens)

    def update(self) -> int:
        """Takes in what was noted since; gives how many are acknowledged in all."""
        for path, offset in self._offsets.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(offset)
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._offsets[path] += len(whole)
            for line in whole.decode().splitlines():
                self._note(line.split())
        return self.acknowledged

    def _note(self, words: list[str]) -> None:
        match words:
            case ["S", token, _]:
                assert token not in self._sent, f"{token} was sent twice: the test is wrong"
                self._sent.add(token)
            case ["A", token, _, index, place]:
                self._due[token] = (int(index), int(place))
                self.acknowledged += 1
            case ["N", token, _, _]:
                self._refused.add(token)
            case ["U", *_]:
                self.unknown += 1
            case _:
                raise AssertionError(f"a line that no journal has: {words}")

    def check(self, ask: Callable[[int], list[Any]]) -> None:
        """`ask` reads the receipt behind a place, linearizably. What was acknowledged before is in it. Raises
        `Broken`."""
        self.update()
        due = dict(self._due)
        count, chain, tail = ask(len(self._tokens))
        self.update()
        if count < len(self._tokens):
            lost = {token for token, _ in self._tokens[count:]} | {token for token in due if due[token][1] > count}
            raise Broken(f"there are {count} writes, and there were {len(self._tokens)}", len(lost))
        for token, index in tail:
            self._extend(token, index)
        if (count, chain) != (len(self._tokens), self._chains[-1].hex()):
            raise Broken(f"what was seen before has changed: {count} writes, whose chain is {chain}")
        missing = {token: noted for token, noted in due.items() if not self._is_there(token, *noted)}
        if missing:
            first = dict(list(missing.items())[:3])
            raise Broken(f"{len(missing)} acknowledged, with index and place, not there so: {first} ...", len(missing))
        for token in due:
            del self._due[token]

    def check_replicas(self, cluster: Cluster) -> None:
        """Waits until each member has what was seen by `check`, and fails if one has anything else."""
        for id_ in cluster.ids:

            def seal(id_: str = id_) -> list[Any]:
                found: list[Any] = cluster[id_].query("seal", consistency="stale")
                return found if found[0] >= len(self._tokens) else []

            count, chain = until(seal, f"{id_} has all {len(self._tokens)} writes again")
            if count == len(self._tokens) and chain != self._chains[-1].hex():
                raise Broken(f"{id_} has other writes than the others")

    def _extend(self, token: str, index: int) -> None:
        if token not in self._sent:
            raise Broken(f"nobody sent {token}")
        if token in self._places:
            raise Broken(f"{token} is there twice: as number {self._places[token]} and {len(self._tokens) + 1}")
        if token in self._refused:
            raise Broken(f"{token} was refused, and yet it is there")
        self._tokens.append((token, index))
        self._places[token] = len(self._tokens)
        self._chains.append(link(self._chains[-1], token, index))

    def _is_there(self, token: str, index: int, place: int) -> bool:
        return place <= len(self._tokens) and self._tokens[place - 1] == (token, index)
