"""Python values as bytes and back, with exactly the types they had. For snapshots and digests.

The bytes are canonical: equal values give equal bytes in every process, whatever its hash seed. Nothing read here can
make Python import or call anything: a class is found only if the machine's own code has already imported it, and only
dataclasses, Structs, Enums and named tuples are made.

In the msgpack written here None, bool, int, float, str and bytes stand for themselves; everything else is an array
that begins with a tag of `Tag`.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_encode = msgspec.msgpack.Encoder().encode
_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_FACTORIES = {f.__name__: f for f in (bool, int, float, str, bytes, list, dict, set, tuple, frozenset, deque, Counter)}
_DEPTH_MAX = 150
_SECOND = timedelta(seconds=1)


class Tag(enum.IntEnum):
    """What a tagged array holds. The numbers are on disk: they never change."""

    LIST = 0
    TUPLE = 1
    SET = 2
    FROZENSET = 3
    DEQUE = 4
    DICT = 5
    DEFAULTDICT = 6
    ORDERED_DICT = 7
    COUNTER = 8
    BIG_INT = 9
    SURROGATES = 10
    BYTEARRAY = 11
    DATETIME = 12
    DATE = 13
    TIME = 14
    TIMEDELTA = 15
    DECIMAL = 16
    UUID = 17
    ENUM = 18
    DATACLASS = 19
    STRUCT = 20
    NAMED_TUPLE = 21
    COMPLEX = 22
    RANGE = 23
    OFFSET_ZONE = 24
    NAMED_ZONE = 25


class Inexact(TypeError):
    """A value that cannot be encoded with its exact type. `path` leads to it, innermost step first."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.path: list[str] = []

    def __str__(self) -> str:
        return f"{''.join(reversed(self.path))} {self.args[0]}".strip()


class Writer:
    """Encodes the values of one document: no mutable object may come twice in it."""

    def __init__(self, home: str) -> None:
        """`home` is the module of the machine: classes of it are named without it, since the same file is `__main__`
        in one process and a module in another."""
        self._home = home
        self._seen: set[int] = set()
        self._within: set[int] = set()
        self._depth = 0

    def tree(self, value: Any) -> Any:
        """The value in terms that msgpack has."""
        kind = type(value)
        if kind in (bool, float, bytes) or value is None:
            return value
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise Inexact(f"is nested more than {_DEPTH_MAX} deep")
        try:
            write = _WRITERS.get(kind)
            return write(self, value) if write else self._of_class(value, kind)
        finally:
            self._depth -= 1

    def _once(self, value: Any) -> None:
        if id(value) in self._within:
            raise Inexact("contains itself, which a snapshot cannot keep; refer to it by a key instead")
        if id(value) in self._seen:
            raise Inexact(
                f"is a {type(value).__name__} that the state also holds elsewhere; a restored replica would have two "
                "separate ones; copy it, or refer to it by a key"
            )
        self._seen.add(id(value))

    def items(self, values: Iterable[Any], owner: Any, label: Callable[[int], str] = "[{}]".format) -> Any:
        """The trees of what a container holds."""
        found = list(values)
        if _SCALARS.issuperset(map(type, found)):
            try:
                return msgspec.Raw(_encode(found))  # in one go, in C
            except (OverflowError, UnicodeEncodeError):
                pass
        self._within.add(id(owner))
        trees = []
        for place, value in enumerate(found):
            try:
                trees.append(self.tree(value))
            except Inexact as error:
                error.path.append(label(place))
                raise
        self._within.discard(id(owner))
        return trees

    def mapping(self, value: dict[Any, Any]) -> Any:
        """Keys and values in turn, in the order they were inserted."""
        self._once(value)
        keys = list(value)

        def label(place: int) -> str:
            return f"[{keys[place // 2]!r:.80}]"

        return self.items(chain.from_iterable(value.items()), value, label)

    def sequence(self, tag: Tag, value: Any, *before: Any) -> list[Any]:
        """A mutable sequence."""
        self._once(value)
        return [tag, *before, self.items(value, value)]

    def unordered(self, tag: Tag, value: Any) -> list[Any]:
        """A set: its elements in the order of their bytes, for the order of iteration differs between processes."""
        if tag is Tag.SET:
            self._once(value)

        def label(_: int) -> str:
            return "{...}"

        trees = self.items(value, value, label)
        parts = [_encode(tree) for tree in (msgspec.msgpack.decode(trees) if isinstance(trees, msgspec.Raw) else trees)]
        return [tag, [msgspec.Raw(part) for part in sorted(parts)]]

    def factory(self, value: defaultdict[Any, Any]) -> str | None:
        """The name of a default factory."""
        factory = value.default_factory
        if factory is None:
            return None
        name = getattr(factory, "__name__", "")
        if _FACTORIES.get(name) is not factory:
            raise Inexact(
                f"is a defaultdict of {factory!r}; only {', '.join(sorted(_FACTORIES))} can be kept as its default"
            )
        return str(name)

    def zone(self, value: tzinfo | None) -> Any:
        """A time zone."""
        if value is None:
            return None
        if type(value) is timezone:
            offset = value.utcoffset(None)
            unnamed = timezone(offset).tzname(None) == value.tzname(None)
            return [Tag.OFFSET_ZONE, offset // timedelta.resolution, None if unnamed else value.tzname(None)]
        if type(value) is ZoneInfo and value.key:
            return [Tag.NAMED_ZONE, value.key]
        raise Inexact(f"has the time zone {value!r}; only datetime.timezone and zoneinfo.ZoneInfo can be kept")

    def _class(self, kind: type[Any]) -> list[str]:
        module = "" if kind.__module__ == self._home else kind.__module__
        try:
            same = find_class(module, kind.__qualname__, self._home) is kind
        except LookupError:
            same = False
        if not same:
            raise Inexact(
                f"is a {kind.__qualname__} of {kind.__module__}, a class that cannot be found by this name; define it "
                "at the top of a module"
            )
        return [module, kind.__qualname__]

    def _of_class(self, value: Any, kind: type[Any]) -> list[Any]:
        if isinstance(value, enum.Enum):
            return [Tag.ENUM, self._class(kind), value.value if isinstance(value, enum.Flag) else value.name]
        if dataclasses.is_dataclass(value) and not isinstance(value, (list, dict, set, tuple, str, bytes, int)):
            names = [field.name for field in dataclasses.fields(value)]
            return [Tag.DATACLASS, self._class(kind), *self._fields(value, names, _frozen_dataclass(kind))]
        if isinstance(value, msgspec.Struct):
            config: Any = kind.__struct_config__
            return [Tag.STRUCT, self._class(kind), *self._fields(value, list(kind.__struct_fields__), config.frozen)]
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return [Tag.NAMED_TUPLE, self._class(kind), self.items(tuple(value), value)]
        raise Inexact(
            f"is a {kind.__module__}.{kind.__qualname__}, which cannot be kept exactly; use plain types, dataclasses "
            "or msgspec.Struct, begin the attribute's name with `_` if it is no state, or define snapshot() and "
            "restore()"
        )

    def _fields(self, value: Any, names: list[str], frozen: bool) -> tuple[list[str], Any]:
        if not frozen:
            self._once(value)
        for name in getattr(value, "__dict__", {}).keys() - set(names):
            if not isinstance(getattr(type(value), name, None), cached_property):
                raise Inexact(f"has the attribute {name!r}, which is not one of its fields")

        def label(place: int) -> str:
            return f".{names[place]}"

        return names, self.items((getattr(value, name) for name in names), value, label)


def _frozen_dataclass(kind: type[Any]) -> bool:
    return bool(kind.__dataclass_params__.frozen)


def _write_int(_: Writer, value: int) -> Any:
    if -(1 << 63) <= value < 1 << 64:
        return value
    return [Tag.BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)]


def _write_str(_: Writer, value: str) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return [Tag.SURROGATES, value.encode("utf-8", "surrogatepass")]
    return value


def _write_bytearray(w: Writer, value: bytearray) -> list[Any]:
    w._once(value)
    return [Tag.BYTEARRAY, bytes(value)]


def _write_datetime(w: Writer, v: datetime) -> list[Any]:
    fields = [v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.fold]
    return [Tag.DATETIME, fields, w.zone(v.tzinfo)]


def _write_time(w: Writer, v: time) -> list[Any]:
    return [Tag.TIME, [v.hour, v.minute, v.second, v.microsecond, v.fold], w.zone(v.tzinfo)]


_WRITERS: dict[type[Any], Callable[[Writer, Any], Any]] = {
    int: _write_int,
    str: _write_str,
    list: lambda w, v: w.sequence(Tag.LIST, v),
    tuple: lambda w, v: [Tag.TUPLE, w.items(v, v)],
    set: lambda w, v: w.unordered(Tag.SET, v),
    frozenset: lambda w, v: w.unordered(Tag.FROZENSET, v),
    deque: lambda w, v: w.sequence(Tag.DEQUE, v, v.maxlen),
    dict: lambda w, v: [Tag.DICT, w.mapping(v)],
    defaultdict: lambda w, v: [Tag.DEFAULTDICT, w.factory(v), w.mapping(v)],
    OrderedDict: lambda w, v: [Tag.ORDERED_DICT, w.mapping(v)],
    Counter: lambda w, v: [Tag.COUNTER, w.mapping(v)],
    bytearray: _write_bytearray,
    datetime: _write_datetime,
    date: lambda _, v: [Tag.DATE, v.toordinal()],
    time: _write_time,
    timedelta: lambda _, v: [Tag.TIMEDELTA, v.days, v.seconds, v.microseconds],
    Decimal: lambda _, v: [Tag.DECIMAL, str(v)],
    UUID: lambda _, v: [Tag.UUID, v.bytes],
    timezone: lambda w, v: w.zone(v),
    ZoneInfo: lambda w, v: w.zone(v),
    complex: lambda _, v: [Tag.COMPLEX, v.real, v.imag],
    range: lambda w, v: [Tag.RANGE, *(w.tree(n) for n in (v.start, v.stop, v.step))],
}


def find_class(module: str, name: str, home: str) -> Any:
    """The class of this name, if its module is loaded; raises `LookupError` if not. Never imports anything."""
    found: Any = sys.modules.get(module or home)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise LookupError(  # noqa: TRY004 - to whoever looks, it is not there
            f"{module or home}.{name} is not known here: import it in the module of the machine"
        )
    return found


def encode(tree: Any) -> bytes:
    """What a `Writer` made, as bytes."""
    return _encode(tree)


__all__ = ["Inexact", "Tag", "Writer", "encode", "find_class"]
