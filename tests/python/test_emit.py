"""What a command may emit, and what becomes of it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import graft
import msgspec
import pytest
from graft import _context
from graft._host import Host
from graft._plan import COMMAND, Catalog
from machines import columns

TIME = 1_700_000_000_000_000_000


class Teller(graft.StateMachine):
    def __init__(self) -> None:
        self.contexts = 0
        self._context: Any = None

    @graft.command
    def tell(self, topic: Any, values: list[Any]) -> int:
        for value in values:
            self.context.emit(topic, value)
        return len(values)

    @graft.command
    def tell_many(self, count: int, size: int) -> None:
        for _ in range(count):
            self.context.emit("many", "x" * size)

    @graft.command
    def tell_and_raise(self) -> None:
        self.context.emit("before", 1)
        raise ValueError("after")

    @graft.command
    def tell_and_halt(self) -> None:
        self.context.emit("before", 1)
        raise OSError("disk")

    @graft.command
    def tell_what_cannot_be_told(self) -> None:
        self.context.emit("topic", object())

    @graft.command
    def keep(self) -> None:
        self._context = self.context

    @graft.command
    def tell_late(self) -> None:
        self._context.emit("late", 1)

    @graft.query
    def ask(self) -> None:
        self.context.emit("query", 1)


def apply(*calls):
    plan = Catalog(Teller).plan
    batch = [(index, 1, TIME, plan(COMMAND, what, args, {}).body) for index, (what, *args) in enumerate(calls, 1)]
    return Host(Teller()).apply(*columns(batch))


def told(*calls):
    *_, emitted = apply(*calls)
    return [(place, topic, msgspec.msgpack.decode(value)) for place, topic, value in emitted]


def test_it_is_told_in_order_and_by_the_place_of_its_command():
    assert told((Teller.tell, "a", [1, 2]), (Teller.tell, "none", []), (Teller.tell, "b", [{"who": "ann"}])) == [
        (0, "a", 1),
        (0, "a", 2),
        (2, "b", {"who": "ann"}),
    ]


def test_what_a_command_told_before_it_raised_stands_as_its_changes_do():
    replies, halt, emitted = apply((Teller.tell_and_raise,))
    assert (halt, replies[0][0]) == (None, "ValueError")
    assert [topic for _, topic, _ in emitted] == ["before"]


def test_what_halts_tells_nothing_of_its_own():
    replies, halt, emitted = apply((Teller.tell, "a", [1]), (Teller.tell_and_halt,))
    assert "disk" in halt
    assert len(replies) == len(emitted) == 1


@pytest.mark.parametrize(
    ("topic", "kind", "words"),
    [
        (7, "TypeError", "topic=7 must be a str"),
        ("", "ValueError", "a topic has 1 to 256 characters, not 0"),
        ("x" * 257, "ValueError", "not 257"),
    ],
)
def test_a_topic_that_will_not_do_is_the_commands_answer(topic, kind, words):
    (reply,), halt, emitted = apply((Teller.tell, topic, [1]))
    assert (halt, emitted, reply[0]) == (None, [], kind)
    assert words in reply[1]


def test_the_longest_topic_will_do():
    assert told((Teller.tell, "é" * 256, [1])) == [(0, "é" * 256, 1)]


def test_a_value_that_cannot_be_encoded_is_the_commands_answer():
    (reply,), halt, emitted = apply((Teller.tell_what_cannot_be_told,))
    assert (halt, emitted, reply[0]) == (None, [], "TypeError")
    assert "emit('topic', ...): the value cannot be told to others" in reply[1]


def test_the_number_of_things_has_a_limit():
    most = _context.EMITTED_MAX
    assert len(told((Teller.tell_many, most, 1))) == most
    (reply,), _, emitted = apply((Teller.tell_many, most + 1, 1))
    assert (reply[0], len(emitted)) == ("ValueError", most)
    assert f"at most {most} things" in reply[1]


def test_the_bytes_have_a_limit():
    (fits,), _, emitted = apply((Teller.tell_many, 1, _context.EMITTED_BYTES_MAX - 64))
    assert fits == b"\xc0"
    assert len(emitted) == 1
    (reply,), _, emitted = apply((Teller.tell_many, 3, _context.EMITTED_BYTES_MAX // 2))
    assert (reply[0], len(emitted)) == ("ValueError", 1)
    assert f"at most {_context.EMITTED_BYTES_MAX} bytes" in reply[1]


def test_values_are_told_as_they_were_when_they_were_emitted():
    class Changing(graft.StateMachine):
        def __init__(self) -> None:
            self.items: list[int] = []

        @graft.command
        def push(self) -> None:
            self.context.emit("items", self.items)
            self.items.append(1)

    body = Catalog(Changing).plan(COMMAND, Changing.push, (), {}).body
    *_, emitted = Host(Changing()).apply(*columns([(1, 1, TIME, body), (2, 1, TIME, body)]))
    assert [msgspec.msgpack.decode(value) for *_, value in emitted] == [[], [1]]


def test_only_a_command_emits_and_only_while_it_runs():
    host = Host(Teller())
    answer = host.query([b"\x92\xa3ask\x80"])[0]
    assert answer[0] == "RuntimeError"
    replies, *_, emitted = apply((Teller.keep,), (Teller.tell_late,))
    assert (replies[1][0], emitted) == ("RuntimeError", [])
    assert "only while it runs" in replies[1][1]
    with pytest.raises(RuntimeError, match="only while a command is applied"):
        Teller().context.emit("topic", 1)


def test_rich_values_travel_as_results_do():
    when = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert told((Teller.tell, "when", [when])) == [(0, "when", when)]
