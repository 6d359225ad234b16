"""Mistakes that type checkers must find: every line marked with `# bad`, and no other."""

from __future__ import annotations

import graft
from good import Bank, Lines, SavingsBank
from graft import Node


def mistakes(node: Node[Bank], lines: Node[Lines]) -> None:
    node.execute(Bank.deposit, "ann")  # bad: missing argument
    node.execute(Bank.deposit, "ann", "five")  # bad: wrong type
    node.execute(Bank.deposit, "ann", 5, 6)  # bad: too many
    node.execute(Bank.deposit, "ann", amont=5)  # bad: no such argument
    node.execute(Bank.balance, "ann")  # bad: a query is not a command
    node.query(Bank.deposit, "ann", 5)  # bad: a command is not a query
    node.query(Bank.balance, "ann", consistency=1)  # bad: options go through .options()
    node.options(consistency="strong")  # bad: no such consistency
    node.submit(Bank.deposit, 5, "ann")  # bad: the wrong way round
    node.proxy.deposit("ann")  # bad: missing argument
    node.execute(SavingsBank.interest, 5)  # bad: not a command of a Bank
    lines.execute(Bank.deposit, "ann", 5)  # bad: not a command of Lines
    total: str = node.execute(Bank.deposit, "ann", 5)  # bad: it returns int
    print(total)


async def awaited(node: Node[Bank]) -> None:
    await node.aio.execute(Bank.deposit, "ann")  # bad: missing argument
    await node.aio.execute(Bank.balance, "ann")  # bad: a query is not a command


def made() -> None:
    Node(Bank(), id="n1", address="h:1")  # bad: no data_dir
    Node(Bank(), id="n1", address="h:1", data_dir=None, heartbeet="1s")  # bad: no such setting
    Node(object(), id="n1", address="h:1", data_dir=None)  # bad: no state machine
    graft.Config(inflight_max="256")  # bad: an int
    Bank().deposit("ann")  # bad: missing argument
