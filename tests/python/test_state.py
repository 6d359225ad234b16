# ruff: noqa: E501 - tables and programs read best unbroken
"""The default snapshot: exact types, equal bytes for equal states, and a clear no to the rest."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID
from zoneinfo import ZoneInfo

import graft
import msgspec
import pytest
from graft import _state
from hypothesis import given
from hypothesis import strategies as st
from machines import Bank, Colour, Everything, Money, Order, Pair, Point, Rights


class Box(graft.StateMachine):
    def __init__(self, value: Any = None) -> None:
        self.value = value

    @graft.command
    def put(self, value: Any) -> None:
        self.value = value


def round_trip(value):
    box = Box()
    _state.load(box, _state.dump(Box(value)))
    return box.value


VALUES = [
    None, True, False, 0, -1, 2**63 - 1, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**100, -(10**100), 128, -128, -129,
    0.0, -0.0, 1e308, 5e-324, math.inf, -math.inf, "", "ä\0", "\ud800", b"", b"\xff", bytearray(b"x"), 1 + 2j,
    [], (), {}, set(), frozenset(), [[]], ((),), (1, [2, (3,)]), {1: "a", "1": "b", (1, 2): [3], None: 4, 2.5: 5, False: 6},
    {"b": 1, "a": 2}, {3, "x", (1, 2), None}, frozenset({frozenset({1}), frozenset()}), [1, True, 1.0, "1", b"1"],
    [10**30, 1], {"k": 10**30}, ["\ud800", "x"], deque([1, 2], maxlen=2), deque(), deque([[1]]), range(1, 10, 2), range(10**30),
    defaultdict(int, a=1), defaultdict(list, {"a": [1]}), defaultdict(None, {1: 2}),
    OrderedDict([("b", 1), ("a", 2)]), Counter("abca"), Counter({"a": -1, "b": 0}),
    datetime(2026, 1, 2, 3, 4, 5, 678), datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=30))), datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=1), "X")),
    date(2026, 1, 2), time(1, 2, 3, 4), time(1, 2, tzinfo=UTC), time(2, fold=1), timedelta(-1, 2, 3), timedelta.max,
    Decimal("1.10"), Decimal("-0"), Decimal("1E+400"), Decimal("Infinity"), Decimal("12345678901234567890123456789012345678901234567890"),
    UUID(int=7), Colour.RED, Rights.READ, Rights.READ | Rights.WRITE, Rights(0), {Colour.RED: 1},
    Point(1, 2.0, ["t"]), Money(Decimal("1.10")), Order(1, ["x"], datetime(2026, 1, 1)), Pair(1, "x"), [Pair(1, "x"), Pair(1, "y")],
    {Money(Decimal(1)): [Point(1)]}, UTC, ZoneInfo("UTC"),
]  # fmt: skip


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple, deque)):
        return len(a) == len(b) and all(map(same, a, b)) and getattr(a, "maxlen", 0) == getattr(b, "maxlen", 0)
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items())) and getattr(a, "default_factory", 0) is getattr(
            b, "default_factory", 0
        )
    if isinstance(a, (float, Decimal, datetime, complex)):
        return repr(a) == repr(b) and getattr(a, "fold", 0) == getattr(b, "fold", 0)
    return bool(a == b)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:60])
def test_round_trip_keeps_value_and_type(value):
    again = round_trip(value)
    assert same(again, value), again
    assert _state.dump(Box(again)) == _state.dump(Box(value))


def test_not_a_number():
    assert math.isnan(round_trip(math.nan))
    assert _state.dump(Box(math.nan)) == _state.dump(Box(float("nan")))


def test_the_pinned_form():
    # It is on the disks of running clusters.
    box = Box({"a": [1, (2.5, None)], "b": {Colour.RED}})
    module = msgspec.msgpack.decode(_state.dump(box))
    assert module == [
        "graft.state",
        1,
        {"value": [5, ["a", [0, [1, [1, [2.5, None]]]], "b", [2, [[18, ["machines", "Colour"], "RED"]]]]]},
    ]


hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.decimals(allow_nan=False)
    | st.uuids() | st.dates() | st.timedeltas() | st.datetimes(timezones=st.none() | st.just(UTC)) | st.sampled_from(Colour),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
anything = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.sets(hashable, max_size=4)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.builds(deque, st.lists(inner, max_size=3))
    ),
    max_leaves=20,
)


@given(anything)
def test_round_trip_of_anything(value):
    data = _state.dump(Box(value))
    box = Box()
    _state.load(box, data)
    assert same(box.value, value)
    assert _state.dump(box) == data


def test_equal_states_have_equal_bytes_whatever_the_hash_seed():
    code = (
        "from test_state import Box, _state; import hashlib;"
        "print(hashlib.sha256(_state.dump(Box({'s': {f'k{i}' for i in range(500)}, 'f': [frozenset('abc'), {('a', b'b'), 'c'}]}))).hexdigest())"
    )
    outputs = set()
    for seed in ("1", "2", "3"):
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        outputs.add(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout)
    assert len(outputs) == 1


def test_the_order_of_a_dict_is_state():
    assert _state.dump(Box({"a": 1, "b": 2})) != _state.dump(Box({"b": 2, "a": 1}))
    assert list(round_trip({"b": 1, "a": 2})) == ["b", "a"]


def test_the_order_of_attributes_is_not():
    one, two = Box(), Box()
    one.extra, one.value = 1, 2  # type: ignore[attr-defined]
    two.value, two.extra = 2, 1  # type: ignore[attr-defined]
    assert _state.dump(one) == _state.dump(two)


class Plain:
    pass


class MyDict(dict[str, int]):
    pass


def shared_list() -> dict[str, Any]:
    inner: list[int] = [1]
    return {"a": inner, "b": inner}


def cyclic() -> list[Any]:
    inner: list[Any] = [1]
    inner.append({"deep": inner})
    return inner


def point_with_more() -> Point:
    point = Point(1)
    point.z = 3  # type: ignore[attr-defined]
    return point


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(1000):
        value = [value]
    return value


def local_class() -> Any:
    from dataclasses import dataclass

    @dataclass
    class Local:
        x: int

    return Local(1)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Plain(), "Plain, which cannot be kept exactly"),
        ({"ann": {"x": [1, Plain()]}}, r"Box.value['ann']['x'][1] is a"),
        ([Point(1, 2.0, [Plain()])], r"Box.value[0].tags[0] is a"),  # type: ignore[list-item]
        ({(1, Plain())}, r"Box.value{...}[1] is a"),
        (lambda: 1, "is a builtins.function"),
        (open, "cannot be kept exactly"),
        (MyDict(a=1), "test_state.MyDict, which"),
        (defaultdict(lambda: 0), "is a defaultdict of <function"),
        (shared_list(), "Box.value['b'] is a list that the state also holds elsewhere"),
        (cyclic(), "Box.value[1]['deep'] contains itself"),
        (point_with_more(), "has the attribute 'z', which is not one of its fields"),
        (deep(), "nested more than 150 deep"),
        (local_class(), "a class that cannot be found by this name; define it at the top of a module"),
        (io.BytesIO(), "is a _io.BytesIO"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else None,
)
def test_what_cannot_be_kept_is_named(value, words):
    with pytest.raises(TypeError) as caught:
        _state.dump(Box(value))
    assert words in str(caught.value)
    with pytest.raises(TypeError):
        _state.prepare(Box(value))


def test_shared_immutable_values_are_fine():
    key = (1, frozenset({2}))
    money = Money(Decimal(1))
    assert round_trip([key, key, money, money, "x", "x"]) == [key, key, money, money, "x", "x"]


def test_two_attributes_cannot_share_a_list():
    box = Box([1])
    box.other = box.value  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"Box.value is a list that the state also holds elsewhere"):
        _state.dump(box)


def test_attributes_with_an_underscore_are_not_state():
    machine = Everything()
    machine.calls = 3
    other = Everything()
    gate = other._gate
    _state.load(other, _state.dump(machine))
    assert (other.calls, other._gate) == (3, gate)


class Slotted(graft.StateMachine):
    __slots__ = ("_hidden", "a", "b")

    def __init__(self) -> None:
        self.a = 1
        self._hidden = object()

    @graft.command
    def go(self) -> None: ...


def test_slots_are_state():
    machine, other = Slotted(), Slotted()
    machine.a, machine.b = 5, [6]
    _state.load(other, _state.dump(machine))
    assert (other.a, other.b) == (5, [6])


def test_restore_undoes_what_the_snapshot_does_not_have():
    box = Box(1)
    _state.prepare(box)
    data = _state.dump(box)
    box.extra = 2  # type: ignore[attr-defined]
    _state.load(box, data)
    assert not hasattr(box, "extra")
    assert _state.dump(box) == data


def test_newer_code_keeps_what_its_init_made():
    class Newer(Box):
        def __init__(self) -> None:
            super().__init__(0)
            self.added = 7

    newer = Newer()
    _state.prepare(newer)
    _state.load(newer, _state.dump(Box(3)))
    assert (newer.value, newer.added) == (3, 7)


class Bag(graft.StateMachine):
    """Has the attributes that it is told of."""

    def __init__(self, *names: str) -> None:
        for name in names:
            setattr(self, name, 1)

    @graft.command
    def go(self) -> None: ...


def prepared(*names):
    bag = Bag(*names)
    _state.prepare(bag)
    return bag


def test_the_state_of_another_machine_is_refused():
    bag = prepared("pending", "done")
    words = r"of another machine than Bag: it has accounts, and Bag.__init__ makes done, pending\. Start .* as None"
    with pytest.raises(ValueError, match=words):
        _state.load(bag, _state.dump(Bag("accounts")))
    assert _state.dump(bag) == _state.dump(Bag("pending", "done")), "nothing is changed then"
    many = Bag(*(f"a{number:02}" for number in range(11)))
    with pytest.raises(ValueError, match=r"it has a00, .*, a07 and 3 more, and Bag"):
        _state.load(bag, _state.dump(many))


@pytest.mark.parametrize(
    ("made", "kept"),
    [((), ("a",)), (("a",), ()), ((), ()), (("a", "b"), ("b", "c")), (("new", "old"), ("old",))],
    ids=["made as it goes", "nothing kept", "nothing at all", "one in common", "renamed, the old one made too"],
)
def test_a_state_that_may_be_of_an_older_release_is_taken(made, kept):
    bag = prepared(*made)
    _state.load(bag, _state.dump(Bag(*kept)))
    assert set(kept) <= bag.__dict__.keys()


def test_a_deleted_attribute_is_refused():
    box = Box(1)
    _state.prepare(box)
    del box.value
    with pytest.raises(TypeError, match=r"Box.value is gone.*set it to None instead"):
        _state.dump(box)


class Shared(graft.StateMachine):
    LIMITS = {"a": 1}
    constants: ClassVar[list[int]] = [1]
    accounts: dict[str, int] = {}

    @graft.command
    def go(self) -> None: ...


def test_state_in_the_class_is_refused():
    with pytest.raises(
        TypeError, match=r"Shared.accounts is a dict of the class.*make it in __init__ as self.accounts"
    ):
        _state.prepare(Shared())
    machine = Shared()
    machine.accounts = {}
    _state.prepare(machine)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"hello", msgspec.msgpack.encode(["graft.state", 2, {}]), msgspec.msgpack.encode(["x", 1, {}])],
)
def test_what_is_no_snapshot(data):
    with pytest.raises(ValueError, match="snapshot"):
        _state.load(Box(), data)


@pytest.mark.parametrize(
    "tree",
    [
        [18, ["os", "system"], "x"],
        [19, ["subprocess", "Popen"], ["args"], ["true"]],
        [19, ["not_loaded_module", "X"], [], []],
        [20, ["machines", "Point"], ["x"], [1]],
        [19, ["machines", "Point"], ["x", "nope"], [1, 2]],
        [19, ["machines", "Point"], ["y"], [1.0]],
        [21, ["builtins", "int"], [1]],
        [99, 1],
        [],
        [5, [1]],
        [12, [2026, 13, 1, 0, 0, 0, 0, 0], None],
        [16, "no number"],
        [25, "Nowhere/Land"],
        ["x"],
        [[1], 2],
    ],
    ids=str,
)
def test_a_snapshot_makes_nothing_but_data_and_leaves_the_state_alone_when_it_is_bad(tree):
    box = Box("before")
    with pytest.raises(ValueError, match=r"Box.value cannot be restored"):
        _state.load(box, msgspec.msgpack.encode(["graft.state", 1, {"a": 1, "value": tree}]))
    assert box.__dict__ == {"value": "before"}
    assert "not_loaded_module" not in sys.modules


def test_every_truncation_is_an_error():
    data = _state.dump(Box(VALUES[-20:]))
    for length in range(len(data)):
        with pytest.raises(ValueError):
            _state.load(Box(), data[:length])


def test_a_dataclass_is_restored_without_running_its_code():
    class Loud(Money):
        pass

    money = Money(Decimal(1))
    object.__setattr__(money, "amount", Decimal(-1))
    assert round_trip(money).amount == Decimal(-1)


def test_the_machine_itself():
    bank, other = Bank(), Bank()
    bank.deposit("ann", 5)
    other.restore(io.BytesIO(bank.snapshot()))  # type: ignore[arg-type]
    assert other.accounts == {"ann": 5}


class Derived(Bank):
    def __init__(self) -> None:
        super().__init__()
        self._richest = ""

    def restore(self, file: Any) -> None:
        super().restore(file)
        self._richest = max(self.accounts, key=self.accounts.__getitem__, default="")


def test_what_is_derived_can_be_rebuilt():
    bank, other = Derived(), Derived()
    bank.deposit("ann", 5)
    other.restore(io.BytesIO(bank.snapshot()))  # type: ignore[arg-type]
    assert other._richest == "ann"
