"""Uses of the API that type checkers must accept, with the types that they must see."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, assert_type

import graft
from graft import Node, StateMachine, command, query


class Bank(StateMachine):
    def __init__(self) -> None:
        self.accounts: dict[str, int] = {}

    @command
    def deposit(self, who: str, amount: int) -> int:
        self.accounts[who] = self.accounts.get(who, 0) + amount
        assert_type(self.context.index, int)
        return self.accounts[who]

    @command(since=2)
    def transfer(self, a: str, b: str, amount: int = 1) -> bool:
        assert_type(self.deposit(b, amount), int)
        return self.balance(a) >= amount

    @query
    def balance(self, who: str) -> int:
        return self.accounts.get(who, 0)

    @query(name="sum")
    def total(self) -> float:
        return sum(self.accounts.values())


class SavingsBank(Bank):
    @command
    def interest(self, percent: int) -> None: ...


class Lines(StateMachine):
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def apply(self, command: bytes) -> int:
        self.lines.append(command)
        return len(self.lines)

    def query(self, query: bytes) -> bytes:
        return self.lines[-1]


def blocking() -> None:
    node = Node(Bank(), id="n1", address="127.0.0.1:7001", data_dir="n1", members={"n1": "127.0.0.1:7001"})
    with node as same:
        assert_type(same, Node[Bank])
        assert_type(node.wait_ready(timeout=10), Node[Bank])
        assert_type(node.execute(Bank.deposit, "ann", 5), int)
        assert_type(node.execute(Bank.deposit, who="ann", amount=5), int)
        assert_type(node.execute(Bank.transfer, "ann", "bob"), bool)
        assert_type(node.query(Bank.balance, "ann"), int)
        assert_type(node.query(Bank.total), float)
        assert_type(node.options(timeout=1, consistency="stale").query(Bank.balance, "ann"), int)
        assert_type(node.options(timeout="500ms").proxy.deposit("ann", 1), int)
        assert_type(node.submit(Bank.deposit, "ann", 1), Future[graft.Result[int]])
        assert_type(node.submit(Bank.balance, "ann").result().value, int)
        assert_type(node.proxy.deposit("ann", 1), int)
        assert_type(node.proxy.balance("ann"), int)
        assert_type(node.execute("deposit", "ann", 5), Any)
        assert_type(node.execute_many([(Bank.deposit, "ann", 5)]), list[Any])
        assert_type(node.status().members[0].match_index, int | None)
        assert_type(node.machine, Bank)


def derived(node: Node[SavingsBank]) -> None:
    assert_type(node.execute(Bank.deposit, "ann", 5), int)
    assert_type(node.execute(SavingsBank.deposit, "ann", 5), int)
    node.execute(SavingsBank.interest, 5)


def raw() -> None:
    node = Node(Lines(), id="n1", address="127.0.0.1:0", data_dir=None, heartbeat="10ms", command_bytes_max="1MiB")
    assert_type(node.execute(b"x"), Any)
    assert_type(node.query(b"x"), Any)


async def service(node: Node[Bank]) -> None:
    assert_type(await node.aio.execute(Bank.deposit, "ann", 5), int)
    assert_type(await node.aio.options(timeout=0.5).query(Bank.balance, "ann"), int)
    assert_type(await node.aio.submit(Bank.deposit, "ann", 5), graft.Result[int])
    assert_type((await node.aio.submit(Bank.balance, "ann")).value, int)
    await node.aio.proxy.deposit("ann", 5)
    try:
        await node.aio.execute("deposit", "ann", 5)
    except graft.ApplyError as error:
        assert_type((error.type_name, error.index), tuple[str, int])
    except graft.NoQuorum as error:
        assert_type(error.needed, int | None)


def local() -> None:
    bank = Bank()
    assert_type(bank.deposit("ann", 5), int)
    assert_type(bank.balance("ann"), int)
    graft.Config(election_timeout="1s", command_bytes_max=1 << 20)


def members(node: Node[Bank]) -> None:
    joining = Node(Bank(), id="n2", address="127.0.0.1:0", data_dir="n2", join=["127.0.0.1:7001", "127.0.0.1:7002"])
    Node(Bank(), id="n3", address="127.0.0.1:7003", data_dir="n3", join="127.0.0.1:7001", snapshot_every_bytes="1MiB")
    assert_type(node.members, graft.Members)
    assert_type(node.members.add("n4", "h:1", voter=False, timeout="1min", progress=True), graft.Member)
    assert_type(node.members.remove("n4", if_unchanged=node.members.version), tuple[graft.Member, ...])
    assert_type(node.members.replace("n1", "n5", "h:1", progress=told), graft.Member)
    assert_type(node.members.apply({"n1": "h:1"}), tuple[graft.Member, ...])
    assert_type(node.members.transfer_leadership(), graft.Member)
    assert_type(node.members["n1"].target, str)
    assert_type([member.id for member in node.members], list[str])
    assert_type(node.what_if(remove="n1").voters, tuple[str, ...])
    assert_type(node.health().troubles, tuple[graft.Trouble, ...])
    assert_type(node.why(), str)
    assert_type(node.snapshot(timeout=5), int)
    for event in node.events(since=0, timeout=1):
        assert_type(event, graft.Event)
        assert_type(event.data, Mapping[str, Any])
    joining.stop(leave=True)


def watched(client: graft.Client[Bank]) -> None:
    for item in client.watch("deposits", since=0, timeout=1):
        if isinstance(item, graft.Emitted):
            assert_type((item.index, item.topic), tuple[int, str])
        else:
            assert_type(item, graft.FellBehind)
            assert_type(client.options(at_least=item.upto).query(Bank.balance, "ann"), int)


def modules() -> None:
    authority = graft.tls.CertificateAuthority.ephemeral("bank")
    assert_type(authority.node("n1"), graft.TLS)
    assert_type(graft.recipes.KEYS_MAX, int)


def told(progress: graft.Progress) -> None:
    assert_type(progress.fraction, float | None)


async def awaited_members(node: Node[Bank]) -> None:
    assert_type(await node.aio.members.add("n4", "h:1"), graft.Member)
    assert_type(await node.aio.members.cancel(), tuple[graft.Member, ...])
    assert_type(await node.aio.what_if(demote="n1"), graft.WhatIf)
    assert_type(await node.aio.health(), graft.Health)
    assert_type(await node.aio.snapshot(), int)
    async for event in node.aio.events():
        assert_type(event.sequence, int)
    await node.aio.stop(leave=True)


def client() -> None:
    with graft.Client(["127.0.0.1:7001", "127.0.0.1:7002"], Bank, timeout="5s", session_ttl="1h") as client:
        assert_type(client, graft.Client[Bank])
        assert_type(client.execute(Bank.deposit, "ann", 5), int)
        assert_type(client.options(consistency="stale", max_age="1s", at_least=7).query(Bank.balance, "ann"), int)
        assert_type(client.submit(Bank.deposit, "ann", 1), Future[graft.Result[int]])
        assert_type(client.proxy.deposit("ann", 1), int)
        assert_type(client.members["n1"].role, str)
        assert_type(client.verify().differing, tuple[str, ...])
        assert_type(client.status().leader, str | None)
        for item in client.watch("deposits", since=0, timeout=1):
            if isinstance(item, graft.Emitted):
                assert_type(item.index, int)
            else:
                assert_type(item.upto, int)
        client.watch(since=graft.FellBehind(7)).close()
    graft.Client("127.0.0.1:7001", SavingsBank).execute(Bank.deposit, "ann", 5)


async def async_client() -> None:
    async with graft.AsyncClient("127.0.0.1:7001", Bank) as client:
        assert_type(client, graft.AsyncClient[Bank])
        assert_type(await client.execute(Bank.deposit, "ann", 5), int)
        assert_type(await client.options(consistency="lease").query(Bank.balance, "ann"), int)
        assert_type([member.id async for member in client.members], list[str])
        async for item in client.watch("deposits"):
            assert_type(item, graft.Emitted | graft.FellBehind)
        try:
            await client.execute(Bank.deposit, "ann", 5)
        except graft.UnknownOutcome as error:
            assert_type(error.resolvable, bool)
            await error.aresolve(timeout=5, via=client)


def told_by(machine: Bank) -> None:
    machine.context.emit("topic", {"any": ["thing"]})
