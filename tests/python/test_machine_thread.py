"""The thread that runs the user's code."""

from __future__ import annotations

from pathlib import Path

import graft
import pytest


def endless(value: int) -> list[int]:
    # Recursion through C: the interpreter counts on the stack of a main thread.
    return sorted([value], key=endless)


class Deep(graft.StateMachine):
    def __init__(self) -> None:
        self.count = 0

    @graft.command
    def fall(self) -> None:
        endless(1)

    @graft.command
    def step(self) -> int:
        self.count += 1
        return self.count

    @graft.query
    def look_down(self) -> None:
        endless(1)


def test_endless_recursion_is_an_answer_and_not_the_end(tmp_path: Path) -> None:
    with graft.Node(Deep(), id="n1", address="127.0.0.1:0", data_dir=tmp_path) as node:
        with pytest.raises(graft.ApplyError, match="RecursionError"):
            node.execute(Deep.fall)
        with pytest.raises(graft.ApplyError, match="RecursionError"):
            node.query(Deep.look_down)
        assert node.execute(Deep.step) == 1
