"""State machines that several tests use."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, NamedTuple

import graft
import msgspec


def columns(entries: list[tuple[int, int, int, bytes]]) -> list[list[Any]]:
    """What `Host.apply` takes, of commands: each its index, term, time in nanoseconds, and body."""
    return [list(column) for column in zip(*entries, strict=True)]


class Bank(graft.StateMachine):
    def __init__(self) -> None:
        self.accounts: dict[str, int] = {}

    @graft.command
    def deposit(self, who: str, amount: int) -> int:
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.accounts[who] = self.accounts.get(who, 0) + amount
        return self.accounts[who]

    @graft.command(since=2)
    def transfer(self, a: str, b: str, amount: int = 1) -> bool:
        if self.accounts.get(a, 0) < amount:
            raise ValueError("insufficient funds")
        self.accounts[a] -= amount
        self.deposit(b, amount)
        return True

    @graft.query
    def balance(self, who: str) -> int:
        return self.accounts.get(who, 0)

    @graft.query
    def total(self) -> int:
        return sum(self.accounts.values())


class SavingsBank(Bank):
    @graft.command
    def interest(self, percent: int) -> int:
        for who, amount in self.accounts.items():
            self.accounts[who] = amount + amount * percent // 100
        return sum(self.accounts.values())


class Lines(graft.StateMachine):
    """A raw machine."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def apply(self, command: bytes) -> int:
        if command == b"boom":
            raise ValueError("boom it is")
        self.lines.append(command)
        return len(self.lines)

    def query(self, query: bytes) -> bytes:
        return self.lines[int(query or b"-1")]

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self.lines)

    def restore(self, file: Any) -> None:
        self.lines = msgspec.msgpack.decode(file.read(), type=list[bytes])


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Rights(Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: float = 0.5
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Money:
    amount: Decimal
    currency: str = "EUR"

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise ValueError("no debts")


class Order(msgspec.Struct):
    id: int
    items: list[str] = []
    when: datetime | None = None


class Pair(NamedTuple):
    left: int
    right: str


class Everything(graft.StateMachine):
    """Commands that fail, or return, in every way."""

    def __init__(self) -> None:
        self.calls = 0
        self._gate = threading.Event()
        self._entered = threading.Event()

    @graft.command
    def rich(self, point: Point, money: Money, order: Order, colour: Colour, ids: set[int]) -> Point:
        return Point(point.x + len(ids), float(money.amount), [colour.name, order.items[0]])

    @graft.command
    def many(self, first: int, /, *rest: int, scale: int = 1, **named: int) -> list[int]:
        return [first, *rest, scale, *named.values()]

    @graft.command
    def unencodable(self) -> Any:
        self.calls += 1
        return object()

    @graft.command
    def lies(self) -> int:
        return "no int"  # type: ignore[return-value]

    @graft.command
    def raise_this(self, what: str) -> None:
        self.calls += 1
        kinds = (ValueError, KeyError, OSError, MemoryError, SystemExit, graft.Halt, RecursionError)
        raise {kind.__name__: kind for kind in kinds}[what]("told so")

    @graft.command
    def lucky(self) -> list[Any]:
        context = self.context
        return [context.index, context.term, context.time, context.random.random(), str(context.uuid())]

    @graft.command
    def echo(self, value: Any) -> Any:
        return value

    @graft.command
    def wait(self) -> int:
        self._entered.set()
        self._gate.wait(30)
        return self.calls

    @graft.query
    def peek(self) -> int:
        return self.context.index

    @graft.query
    def gone(self) -> int:
        raise SystemExit("no")

    @graft.query
    def count(self) -> int:
        return self.calls
