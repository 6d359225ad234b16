"""A log that is longer than what becomes Python's at once."""

from __future__ import annotations

from pathlib import Path

import graft
import pytest
from nodes import DEADLINE_SECONDS

COUNT = 3000
HALTS = 2500


class Numbers(graft.StateMachine):
    """Keeps what came, with its index, and tells of it; halts at one of them if it is told to."""

    def __init__(self, halts: int | None = None) -> None:
        self.seen: list[tuple[int, int]] = []
        self._halts = halts

    @graft.command
    def add(self, number: int) -> None:
        if number == self._halts:
            raise graft.Halt("enough")
        self.seen.append((number, self.context.index))
        self.context.emit("number", number)

    @graft.query
    def all(self) -> list[tuple[int, int]]:
        return self.seen


def member(directory: Path, halts: int | None = None) -> graft.Node[Numbers]:
    return graft.Node(Numbers(halts), id="n1", address="127.0.0.1:0", data_dir=directory)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    with member(tmp_path / "n1") as node:
        node.wait_ready(DEADLINE_SECONDS).execute_many([(Numbers.add, number) for number in range(COUNT)])
    return tmp_path / "n1"


def test_a_long_log_is_replayed_in_order(directory):
    with member(directory) as node:
        seen = node.wait_ready(DEADLINE_SECONDS).query(Numbers.all)
        with node.watch("number", since=0, timeout=DEADLINE_SECONDS) as watch:
            told = [(event.value, event.index) for _, event in zip(range(COUNT), watch, strict=False)]
    assert [number for number, _ in seen] == list(range(COUNT))
    indices = [index for _, index in seen]
    assert indices == sorted(set(indices))
    assert told == [tuple(one) for one in seen]


def test_it_halts_at_the_very_command(directory):
    with member(directory, HALTS) as node:
        with pytest.raises(graft.GraftError, match="enough"):
            node.wait_ready(DEADLINE_SECONDS).query(Numbers.all)
        assert [number for number, _ in node._host.machine.seen] == list(range(HALTS))
