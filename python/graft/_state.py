"""The default snapshot: a machine's attributes that do not start with `_`, with their exact types."""

from __future__ import annotations

import hashlib
import types
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from graft._exact import Inexact, Writer, encode
from graft._exact_reader import Reader

if TYPE_CHECKING:
    from collections.abc import Collection

    from graft._machine import StateMachine

_FORMAT = "graft.state"
_FORMAT_VERSION = 1
_INITIAL = "_graft_initial"
_document = msgspec.msgpack.Decoder(tuple[str, int, dict[str, Any]])
# Of names in a message.
_LISTED_MAX = 8
_NAME_CHARS_MAX = 80
_MUTABLE = (list, dict, set, bytearray, deque)


def dump(machine: StateMachine) -> bytes:
    """The state as bytes: equal states give equal bytes. Raises `TypeError` naming what cannot be kept."""
    state = _attributes(machine)
    missing = machine.__dict__.get(_INITIAL, frozenset()) - state.keys()
    if missing:
        raise TypeError(
            f"{type(machine).__name__}.{min(missing)} is gone: a snapshot could not tell this from an attribute that "
            "newer code brings; set it to None instead of deleting it"
        )
    writer = Writer(type(machine).__module__)
    trees = {}
    for name in sorted(state):
        try:
            trees[name] = writer.tree(state[name])
        except Inexact as error:
            error.path.append(f"{type(machine).__name__}.{name}")
            raise TypeError(str(error)) from None
    return encode([_FORMAT, _FORMAT_VERSION, trees])


def load(machine: StateMachine, data: bytes) -> None:
    """Makes the state what `dump` saw. Raises `ValueError` if the bytes are no such state, or that of
    another machine, which has no attribute that this one had at first; nothing is changed then."""
    state = _read(machine, data)
    keep = machine.__dict__.get(_INITIAL, frozenset())
    for name in _attributes(machine).keys() - state.keys() - keep:
        object.__delattr__(machine, name)
    for name, value in state.items():
        object.__setattr__(machine, name, value)


class Digest:
    """Takes a snapshot, piece by piece, and gives 32 bytes that tell it from any other."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=32)

    def write(self, data: bytes, /) -> None:
        """The next piece."""
        self._hash.update(data)

    def digest(self) -> bytes:
        """The 32 bytes."""
        return self._hash.digest()


def prepare(machine: StateMachine) -> None:
    """Called before a machine runs: remembers what `__init__` made and tries a round trip.
    Raises `TypeError` naming the attribute that would not survive it."""
    _refuse_class_state(machine)
    machine.__dict__[_INITIAL] = frozenset(_attributes(machine))
    data = dump(machine)
    name = type(machine).__name__
    writer = Writer(type(machine).__module__)
    try:
        state = _read(machine, data)
        again = {attribute: encode(writer.tree(value)) for attribute, value in state.items()}
    except (ValueError, TypeError) as error:
        raise TypeError(f"the state of {name} cannot be read back from its own snapshot: {error}") from error
    writer = Writer(type(machine).__module__)
    for attribute, value in _attributes(machine).items():
        if encode(writer.tree(value)) != again.get(attribute):
            raise TypeError(f"{name}.{attribute} does not survive being written and read back: {value!r:.200}")


def _read(machine: StateMachine, data: bytes) -> dict[str, Any]:
    try:
        format_, version, trees = _document.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(f"this is not a snapshot of a machine's attributes: {error}") from None
    if format_ != _FORMAT or version != _FORMAT_VERSION:
        raise ValueError(f"this snapshot has the format {format_!r} {version}; this code reads {_FORMAT!r} 1")
    _refuse_another(machine, trees.keys())
    reader = Reader(type(machine).__module__)
    state = {}
    for name, tree in trees.items():
        try:
            state[name] = reader.value(tree)
        except Exception as error:
            raise ValueError(f"{type(machine).__name__}.{name} cannot be restored: {error}") from error
    return state


def _refuse_another(machine: StateMachine, found: Collection[str]) -> None:
    # One that makes its attributes as it goes may have any; one that shares a single one may be an older release.
    own = machine.__dict__.get(_INITIAL, frozenset())
    if own and found and own.isdisjoint(found):
        name = type(machine).__name__
        raise ValueError(
            f"this is the state of another machine than {name}: it has {_listed(found)}, and {name}.__init__ makes "
            f"{_listed(own)}. Start the node with the machine that wrote it, or {name} with another data_dir; if all "
            f"attributes of {name} were renamed, let __init__ make one of the old ones, too, as None"
        )


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)[:_LISTED_MAX]
    more = len(names) - len(shown)
    return ", ".join(name[:_NAME_CHARS_MAX] for name in shown) + (f" and {more} more" if more else "")


def _attributes(machine: StateMachine) -> dict[str, Any]:
    found = {name: value for name, value in machine.__dict__.items() if not name.startswith("_")}
    for kind in type(machine).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("_") and isinstance(vars(kind).get(name), types.MemberDescriptorType):
                try:
                    found[name] = getattr(machine, name)
                except AttributeError:
                    continue
    return found


def _refuse_class_state(machine: StateMachine) -> None:
    # A container made in the class body is shared by all machines of the process and is in no snapshot.
    cls = type(machine)
    for kind in cls.__mro__:
        for name, value in vars(kind).items():
            constant = "ClassVar" in str(vars(kind).get("__annotations__", {}).get(name, "")) or name.isupper()
            if isinstance(value, _MUTABLE) and not (name.startswith("_") or constant or name in machine.__dict__):
                raise TypeError(
                    f"{kind.__name__}.{name} is a {type(value).__name__} of the class, shared by all its instances, "
                    f"and is in no snapshot: make it in __init__ as self.{name}, or annotate it with ClassVar"
                )
