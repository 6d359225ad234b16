"""Which annotations no value that travels can ever fit."""

from __future__ import annotations

import typing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

if TYPE_CHECKING:
    from collections.abc import Iterator

# One of each kind that comes out of msgpack where no annotation says more.
_PLAIN: tuple[object, ...] = (None, True, 1, 1.0, "", b"", [], {}, datetime(2000, 1, 1, tzinfo=UTC))


def trouble(annotation: Any) -> str | None:
    """Why every call with this annotation would fail; None if one may succeed."""
    for found in _customs(inspect.type_info(annotation), set()):
        cls = typing.get_origin(found) or found
        if not any(_is_one(value, cls) for value in _PLAIN):
            name = getattr(cls, "__qualname__", str(cls))
            module = getattr(cls, "__module__", "builtins")
            return (
                f"nothing that was sent can be read back as a {name if module == 'builtins' else f'{module}.{name}'}: "
                "annotate it with plain types, a dataclass, a NamedTuple, an Enum or a msgspec.Struct"
            )
    return None


def _customs(found: inspect.Type, seen: set[type[Any]]) -> Iterator[Any]:
    """The classes in it that are nothing to msgpack. Not those beside others in a union: another one may be meant."""
    if isinstance(found, inspect.CustomType):
        yield found.cls
        return
    if isinstance(found, inspect.UnionType):
        return
    cls = getattr(found, "cls", None)
    if cls is not None:
        if cls in seen:
            return
        seen.add(cls)
    for part in _parts(found):
        yield from _customs(part, seen)


def _parts(found: msgspec.Struct) -> Iterator[inspect.Type]:
    for name in found.__struct_fields__:
        value = getattr(found, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, inspect.Type):
                yield one
            elif isinstance(one, inspect.Field):
                yield one.type


def _is_one(value: object, cls: Any) -> bool:
    try:
        return isinstance(value, cls)
    except TypeError:  # a protocol that cannot be asked
        return False
