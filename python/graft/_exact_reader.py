"""The other half of `_exact`: from bytes to values."""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from graft._exact import _FACTORIES, Tag, find_class

if TYPE_CHECKING:
    from collections.abc import Callable


class Reader:
    """Makes the values of one document."""

    def __init__(self, home: str) -> None:
        self.home = home

    def value(self, tree: Any) -> Any:
        """The value that a `Writer` saw."""
        return _READERS[tree[0]](self, *tree[1:]) if type(tree) is list else tree

    def items(self, trees: list[Any]) -> list[Any]:
        """The values that a container held."""
        if list in set(map(type, trees)):
            return [self.value(tree) for tree in trees]
        return trees

    def pairs(self, trees: list[Any]) -> list[tuple[Any, Any]]:
        """The keys and values that a mapping held."""
        flat = self.items(trees)
        return list(zip(flat[::2], flat[1::2], strict=True))

    def class_(self, name: list[str]) -> Any:
        """A class named in the document."""
        return find_class(name[0], name[1], self.home)


def _read_datetime(r: Reader, fields: list[int], zone: Any) -> datetime:
    *parts, fold = fields
    return datetime(*parts, fold=fold, tzinfo=r.value(zone))  # type: ignore[misc,arg-type]


def _read_time(r: Reader, fields: list[int], zone: Any) -> time:
    *parts, fold = fields
    return time(*parts, fold=fold, tzinfo=r.value(zone))  # type: ignore[misc,arg-type]


def _read_defaultdict(r: Reader, factory: str | None, trees: list[Any]) -> defaultdict[Any, Any]:
    return defaultdict(None if factory is None else _FACTORIES[factory], r.pairs(trees))


def _read_counter(r: Reader, trees: list[Any]) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    for key, count in r.pairs(trees):
        counter[key] = count
    return counter


def _read_offset_zone(_: Reader, microseconds: int, name: str | None) -> timezone:
    offset = timedelta(microseconds=microseconds)
    if name is not None:
        return timezone(offset, name)
    return timezone(offset) if offset else UTC


def _read_enum(r: Reader, name: list[str], member: Any) -> Any:
    kind = r.class_(name)
    if not issubclass(kind, enum.Enum):
        raise TypeError(f"{kind.__qualname__} is no Enum any more")
    return kind(member) if issubclass(kind, enum.Flag) else kind[member]


def _read_dataclass(r: Reader, name: list[str], names: list[str], trees: list[Any]) -> Any:
    kind: type[Any] = r.class_(name)
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"{kind.__qualname__} is no dataclass any more")
    values = dict(zip(names, r.items(trees), strict=True))
    made = _bare_dataclass(kind, values)
    _refuse_surplus(kind, values)
    return made


def _bare_dataclass(kind: Any, values: dict[str, Any]) -> Any:
    # Neither __init__ nor __post_init__ runs: what they did once is in the fields.
    made = object.__new__(kind)
    for field in dataclasses.fields(kind):
        if field.name in values:
            value = values.pop(field.name)
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            value = field.default
        else:
            raise TypeError(f"{kind.__qualname__} has a field {field.name!r} without a default; the snapshot has none")
        object.__setattr__(made, field.name, value)
    return made


def _read_struct(r: Reader, name: list[str], names: list[str], trees: list[Any]) -> Any:
    kind = r.class_(name)
    if not issubclass(kind, msgspec.Struct):
        raise TypeError(f"{kind.__qualname__} is no msgspec.Struct any more")
    values = dict(zip(names, r.items(trees), strict=True))
    _refuse_surplus(kind, {name: values[name] for name in values.keys() - set(kind.__struct_fields__)})
    made = kind(**values)
    for field, value in values.items():
        msgspec.structs.force_setattr(made, field, value)  # whatever __post_init__ made of it
    return made


def _read_named_tuple(r: Reader, name: list[str], trees: list[Any]) -> Any:
    kind = r.class_(name)
    make = getattr(kind, "_make", None)
    if make is None or not issubclass(kind, tuple):
        raise TypeError(f"{kind.__qualname__} is no named tuple any more")
    return make(r.items(trees))


def _refuse_surplus(kind: type[Any], values: dict[str, Any]) -> None:
    if values:
        raise TypeError(f"{kind.__qualname__} has no field {', '.join(sorted(values))} any more; the snapshot has")


_READERS: dict[int, Callable[..., Any]] = {
    Tag.LIST: lambda r, trees: r.items(trees),
    Tag.TUPLE: lambda r, trees: tuple(r.items(trees)),
    Tag.SET: lambda r, trees: set(r.items(trees)),
    Tag.FROZENSET: lambda r, trees: frozenset(r.items(trees)),
    Tag.DEQUE: lambda r, limit, trees: deque(r.items(trees), limit),
    Tag.DICT: lambda r, trees: dict(r.pairs(trees)),
    Tag.DEFAULTDICT: _read_defaultdict,
    Tag.ORDERED_DICT: lambda r, trees: OrderedDict(r.pairs(trees)),
    Tag.COUNTER: _read_counter,
    Tag.BIG_INT: lambda _, data: int.from_bytes(data, "big", signed=True),
    Tag.SURROGATES: lambda _, data: data.decode("utf-8", "surrogatepass"),
    Tag.BYTEARRAY: lambda _, data: bytearray(data),
    Tag.DATETIME: _read_datetime,
    Tag.DATE: lambda _, ordinal: date.fromordinal(ordinal),
    Tag.TIME: _read_time,
    Tag.TIMEDELTA: lambda _, days, seconds, microseconds: timedelta(days, seconds, microseconds),
    Tag.DECIMAL: lambda _, digits: Decimal(digits),
    Tag.UUID: lambda _, data: UUID(bytes=data),
    Tag.ENUM: _read_enum,
    Tag.DATACLASS: _read_dataclass,
    Tag.STRUCT: _read_struct,
    Tag.NAMED_TUPLE: _read_named_tuple,
    Tag.COMPLEX: lambda _, real, imag: complex(real, imag),
    Tag.RANGE: lambda r, *bounds: range(*(r.value(bound) for bound in bounds)),
    Tag.OFFSET_ZONE: _read_offset_zone,
    Tag.NAMED_ZONE: lambda _, key: ZoneInfo(key),
}
