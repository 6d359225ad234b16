"""Calls on the wire: what is refused at the caller, and what arrives at a replica."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from numbers import Number
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import graft
import msgspec
import pytest
from graft._codec import split_call
from graft._plan import COMMAND, QUERY, Catalog
from hypothesis import given
from hypothesis import strategies as st
from machines import Bank, Colour, Everything, Lines, Money, Order, Point, SavingsBank

BANK = Catalog(Bank)
ALL = Catalog(Everything)
RAW = Catalog(Lines)


def sent(catalog, what, *args, **kwargs):
    return catalog.plan(COMMAND, what, args, kwargs).body


def test_arguments_go_by_name():
    assert msgspec.msgpack.decode(sent(BANK, Bank.deposit, "ann", 5)) == ["deposit", {"who": "ann", "amount": 5}]
    assert sent(BANK, Bank.deposit, amount=5, who="ann") == sent(BANK, Bank.deposit, "ann", 5)


def test_the_caller_fills_in_the_defaults():
    assert msgspec.msgpack.decode(sent(BANK, Bank.transfer, "a", "b"))[1] == {"a": "a", "b": "b", "amount": 1}


def test_a_replica_fills_in_what_the_callers_release_did_not_have():
    old = msgspec.Raw(msgspec.msgpack.encode({"a": "x", "b": "y"}))
    assert Bank.transfer.shape.decode(old) == (("x", "y", 1), {})


def test_by_name_is_the_same_as_by_method():
    assert sent(BANK, "deposit", "ann", 5) == sent(BANK, Bank.deposit, "ann", 5)


def test_a_command_of_the_base_class_works_on_a_subclass():
    savings = Catalog(SavingsBank)
    assert sent(savings, Bank.deposit, "ann", 5) == sent(savings, SavingsBank.deposit, "ann", 5)
    with pytest.raises(TypeError, match="is not of this node's machine, Bank"):
        sent(BANK, SavingsBank.interest, 5)


def test_an_override_is_checked_by_its_own_annotations():
    class Wide(Bank):
        @graft.command
        def deposit(self, who: str, amount: int, note: str = "") -> int:
            return 0

    assert b"note" in sent(Catalog(Wide), Bank.deposit, "ann", 5)


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        (("ann",), {}, "missing a required argument: 'amount'"),
        (("ann", 5, 6), {}, "too many positional arguments"),
        (("ann",), {"amont": 5}, r"'amount'(; there is no argument 'amont')?; did you mean 'amount'\?"),
        (("ann",), {"amont": 5}, r"'amont'"),
        (("ann", 5), {"amont": 5}, r"'amont'; did you mean 'amount'\?$"),
        (("ann",), {"zzz": 5}, r"'zzz'; there are: amount, who$"),
        (("ann", "five"), {}, r"Bank.deposit\(\): argument 'amount': expected int, got str"),
        (("ann", 5.5), {}, "argument 'amount': expected int, got float"),
        (("ann", True), {}, "argument 'amount': expected int, got bool"),
        ((None, 5), {}, "argument 'who': expected str, got None"),
        (("ann", object()), {}, "argument 'amount' cannot be encoded: .*object"),
    ],
)
def test_what_does_not_fit_is_refused_at_the_caller(args, kwargs, words):
    with pytest.raises(TypeError, match=words):
        sent(BANK, Bank.deposit, *args, **kwargs)


@pytest.mark.parametrize(("args", "name"), [(("ann", 1 << 70), "amount"), (("\ud800", 1), "who")])
def test_values_out_of_range_are_value_errors(args, name):
    with pytest.raises(ValueError, match=f"argument '{name}' cannot be encoded"):
        sent(BANK, Bank.deposit, *args)


def test_the_path_within_an_argument_is_named():
    good = [Point(1), Money(Decimal(1)), Order(1, ["x"]), Colour.RED]
    with pytest.raises(TypeError, match=r"argument 'ids\[0\]': expected int, got str"):
        sent(ALL, Everything.rich, *good, {"x"})
    with pytest.raises(TypeError, match=r"argument 'point.x'"):
        sent(ALL, Everything.rich, Point("no"), *good[1:], {1})


def test_rich_arguments_arrive_with_their_types():
    given_ = (Point(1, 2.0, ["t"]), Money(Decimal("1.10")), Order(7, ["x"]), Colour.BLUE, {1, 2})
    args, kwargs = Everything.rich.shape.decode(split_call(sent(ALL, Everything.rich, *given_))[1])
    assert (args, kwargs) == (given_, {})


@pytest.mark.parametrize(
    ("args", "kwargs"), [((1,), {}), ((1, 2, 3), {}), ((1,), {"scale": 2}), ((1, 2), {"scale": 3, "a": 4, "b": 5})]
)
def test_every_kind_of_parameter(args, kwargs):
    positional, keywords = Everything.many.shape.decode(split_call(sent(ALL, Everything.many, *args, **kwargs))[1])
    machine = Everything()
    assert machine.many(*positional, **keywords) == machine.many(*args, **kwargs)
    assert keywords["scale"] == kwargs.get("scale", 1)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_plain_values_arrive_as_they_were(value):
    assert Everything.echo.shape.decode(split_call(sent(ALL, Everything.echo, value))[1]) == ((value,), {})


@given(st.text(min_size=1), st.integers(-(2**63), 2**63 - 1))
def test_typed_values_arrive_as_they_were(who, amount):
    body = sent(BANK, Bank.deposit, who, amount)
    assert Bank.deposit.shape.decode(split_call(body)[1]) == ((who, amount), {})


@pytest.mark.parametrize(
    ("kind", "what", "words"),
    [
        (COMMAND, Bank.balance, r"Bank.balance is a query: call node.query\(Bank.balance"),
        (QUERY, Bank.deposit, r"Bank.deposit is a command: call node.execute\(Bank.deposit"),
        (COMMAND, "balance", "is a query"),
        (COMMAND, "depositt", "no command or query 'depositt'; it has balance, deposit, total, transfer"),
        (COMMAND, b"x", "is a typed machine and takes no bytes"),
        (COMMAND, Bank().deposit, "pass it as the class has it, such as Bank."),
        (COMMAND, Everything.echo, "is not of this node's machine, Bank"),
        (COMMAND, 7, "expected a command such as Bank."),
        (COMMAND, None, "expected a command"),
    ],
)
def test_what_is_no_command(kind, what, words):
    with pytest.raises(TypeError, match=words):
        BANK.plan(kind, what, (), {})


@pytest.mark.parametrize("data", [b"x", bytearray(b"x"), memoryview(b"x")])
def test_a_raw_machine_takes_bytes(data):
    assert RAW.plan(COMMAND, data, (), {}).body == b"x"
    assert RAW.plan(QUERY, data, (), {}).body == b"x"


@pytest.mark.parametrize(("what", "args"), [("x", ()), (b"x", (1,)), (Bank.deposit, ("a", 1))])
def test_a_raw_machine_takes_nothing_else(what, args):
    with pytest.raises(TypeError, match="Lines is a raw machine"):
        RAW.plan(COMMAND, what, args, {})


class Matrix:
    """Nothing that msgpack knows."""


@runtime_checkable
class Sized(Protocol):
    def __len__(self) -> int: ...


@dataclass
class Holding:
    matrix: Matrix
    next: Holding | None = None


@pytest.mark.parametrize("annotation", [Matrix, list[Matrix], dict[str, tuple[Matrix, ...]], Holding, complex, Path])
def test_an_annotation_that_nothing_fits_is_refused_where_the_machine_is_taken(annotation):
    def go(self, x): ...

    for place, words in (("x", "argument 'x' cannot be replicated"), ("return", "its result cannot be returned")):
        go.__annotations__ = {place: annotation}
        kind = type("Bad", (graft.StateMachine,), {"go": graft.command(go)})
        for taken in (Catalog, lambda kind: graft.Client("127.0.0.1:1", kind)):
            with pytest.raises(TypeError, match=rf"{words}: nothing that was sent can be read back as a .*Struct"):
                taken(kind)


@pytest.mark.parametrize("annotation", [object, Any, Matrix | None, Sized, Iterable[int], Number, Hashable])
def test_an_annotation_that_something_fits_is_taken(annotation):
    def go(self, x): ...

    go.__annotations__ = {"x": annotation}
    kind = type("Good", (graft.StateMachine,), {"go": graft.command(go)})
    assert Catalog(kind)


def test_results_come_back_by_their_annotation():
    reply = msgspec.msgpack.encode(Point(3, 0.5, ["t"]))
    plan = ALL.plan(COMMAND, "rich", (Point(1), Money(Decimal(1)), Order(1), Colour.RED, {1}), {})
    assert plan.value(reply, 1) == Point(3, 0.5, ["t"])


def test_a_raised_reply_is_an_apply_error():
    with pytest.raises(graft.ApplyError) as caught:
        BANK.plan(COMMAND, "deposit", ("a", 1), {}).value(("ValueError", "no", "Traceback"), 7)
    assert (caught.value.type_name, caught.value.message, caught.value.index) == ("ValueError", "no", 7)


def test_a_result_that_is_not_what_its_annotation_says():
    with pytest.raises(
        graft.ApplyError, match=r"DecodeError: lies\(\) ran, but .* Expected `int`, got `str`"
    ) as caught:
        ALL.plan(COMMAND, "lies", (), {}).value(msgspec.msgpack.encode("no int"), 9)
    assert caught.value.index == 9
