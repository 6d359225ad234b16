"""What must work on every CPython that the wheel is for: the whole way through the native module and back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import graft
import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.smoke


class Bank(graft.StateMachine):
    def __init__(self) -> None:
        self.accounts: dict[str, int] = {}

    @graft.command
    def deposit(self, who: str, amount: int) -> int:
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.accounts[who] = self.accounts.get(who, 0) + amount
        return self.accounts[who]

    @graft.query
    def balance(self, who: str) -> int:
        return self.accounts.get(who, 0)


def bank(directory: Path) -> graft.Node[Bank]:
    return graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=directory)


def test_a_node_answers_and_remembers(tmp_path: Path) -> None:
    with bank(tmp_path / "n1") as node:
        node.wait_ready(timeout=10)
        assert node.execute(Bank.deposit, "ann", 5) == 5
        with pytest.raises(graft.ApplyError, match="amount must be positive"):
            node.execute(Bank.deposit, "ann", -1)
        assert node.submit(Bank.deposit, "ann", 1).result(timeout=10).value == 6
    with bank(tmp_path / "n1") as node:
        node.wait_ready(timeout=10)
        assert node.query(Bank.balance, "ann") == 6


def test_a_node_answers_an_event_loop(tmp_path: Path) -> None:
    async def deposits(node: graft.Node[Bank]) -> list[int]:
        return await asyncio.gather(*(node.aio.execute(Bank.deposit, "ann", 1) for _ in range(100)))

    with bank(tmp_path / "n1") as node:
        node.wait_ready(timeout=10)
        assert sorted(asyncio.run(deposits(node))) == list(range(1, 101))
