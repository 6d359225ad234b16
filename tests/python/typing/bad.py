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
    await node.aio.submit(Bank.deposit, 5, "ann")  # bad: the wrong way round


def members(node: Node[Bank]) -> None:
    node.members.add("n4")  # bad: no address
    node.members.add("n4", "h:1", False)  # bad: voter is a keyword
    node.members.add("n4", "h:1", progress=1)  # bad: no function
    node.members.add("n4", "h:1", if_unchanged="7")  # bad: an int
    node.members.remove(["n4"])  # bad: one id
    node.members.replace("n1", "n4")  # bad: no address
    node.members.apply(["n1", "n2"])  # bad: no addresses
    node.members.cancel("n4")  # bad: there is only one change
    node.members["n1"].voter = True  # bad: a value, not the thing
    node.what_if(delete="n1")  # bad: no such question
    node.events(since="0")  # bad: an int
    node.stop(5, True)  # bad: leave is a keyword
    where: str = node.members.add("n4", "h:1")  # bad: it returns a Member
    print(where)


def made() -> None:
    Node(Bank(), id="n1", address="h:1")  # bad: no data_dir
    Node(Bank(), id="n1", address="h:1", data_dir=None, heartbeet="1s")  # bad: no such setting
    Node(object(), id="n1", address="h:1", data_dir=None)  # bad: no state machine
    Node(Bank(), id="n1", address="h:1", data_dir=None, join=7001)  # bad: no address
    graft.Config(inflight_max="256")  # bad: an int
    graft.Config(snapshot_every_entries="1000")  # bad: an int
    Bank().deposit("ann")  # bad: missing argument


def client() -> None:
    graft.Client(Bank, "127.0.0.1:7001")  # bad: the other way round
    good = graft.Client("127.0.0.1:7001", Bank)
    graft.Client("127.0.0.1:7001", Bank())  # bad: the class, not an instance
    graft.Client("127.0.0.1:7001", Bank, tls=True)  # bad: not yet
    good.execute(Bank.deposit, "ann", "5")  # bad: no int
    good.options(consistency="eventual")  # bad: no such consistency
    good.watch(7)  # bad: an index goes to since=
    good.machine  # bad: a client has none
