"""From what a user calls to the bytes that are replicated, and from the reply to what the user gets."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from graft import _codec
from graft._errors import ApplyError
from graft._machine import Command, Operation, Query, callable_operations, is_raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from graft._engine import Reply
    from graft._machine import StateMachine

COMMAND = 0
QUERY = 1
_VERBS = {COMMAND: "execute", QUERY: "query"}
_KINDS: dict[int, type[Operation[Any, ..., Any]]] = {COMMAND: Command, QUERY: Query}


class Plan(NamedTuple):
    """One call, ready to be sent."""

    kind: int
    body: bytes
    title: str
    decode: Callable[[bytes], Any]

    def value(self, reply: Reply, index: int) -> Any:
        """What the caller gets, or raises `ApplyError` with what the machine raised."""
        if isinstance(reply, tuple):
            type_name, message, traceback = reply
            raise ApplyError(message, type_name=type_name, index=index, traceback=traceback)
        try:
            return self.decode(reply)
        except msgspec.ValidationError as error:
            raise ApplyError(
                f"{self.title}() ran, but what it returned is not what its annotation says: {error}",
                type_name="DecodeError",
                index=index,
                traceback="",
                fix="let the annotation of the result and what is returned agree; what the call did stands",
            ) from None


class Catalog:
    """What can be called on a machine. Its class is enough: there is no machine here where a client is."""

    def __init__(self, kind: type[StateMachine]) -> None:
        """Raises `TypeError` if nothing can be called on it, and says why."""
        self._type: type[Any] = kind
        self._raw = is_raw(kind)
        self._by_name = callable_operations(kind)
        self._decoders = {kind: _raw_decoder(self._type, hook) for kind, hook in ((COMMAND, "apply"), (QUERY, "query"))}

    def plan(self, kind: int, what: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
        """Checks the call. Raises `TypeError` if there is no such command or query, or its arguments do not fit."""
        if self._raw:
            return self._plan_raw(kind, what, args, kwargs)
        operation = self._find(what)
        if not isinstance(operation, _KINDS[kind]):
            title = f"{self._type.__name__}.{operation.attribute}"
            if isinstance(operation, Query):
                raise TypeError(f"{title} is a query: call node.query({title}, ...)")
            raise TypeError(f"{title} is a command: call node.execute({title}, ...)")
        shape = operation.shape
        return Plan(kind, shape.encode(args, kwargs), operation.attribute, shape.decode_result)

    def plan_again(self, body: bytes) -> Plan:
        """A command that was planned before, from its bytes. Raises `TypeError` if it is of another machine."""
        if self._raw:
            return Plan(COMMAND, body, "apply", self._decoders[COMMAND])
        try:
            name, _ = _codec.split_call(body)
        except msgspec.DecodeError:
            name = None
        operation = None if name is None else self._by_name.get(name)
        if not isinstance(operation, Command):
            raise TypeError(f"the command is of another machine than {self._type.__name__}, which has no {name!r}")
        return Plan(COMMAND, body, operation.attribute, operation.shape.decode_result)

    def plan_of(self, call: object) -> Plan:
        """A command as `execute_many` is given it."""
        if isinstance(call, tuple) and call:
            return self.plan(COMMAND, call[0], call[1:], {})
        if isinstance(call, tuple):
            raise TypeError("a call is a tuple of a command and its arguments; this one is empty")
        return self.plan(COMMAND, call, (), {})

    def kind_of(self, what: object) -> int:
        """Whether it is a command or a query; bytes are a command."""
        return QUERY if not self._raw and isinstance(self._find(what), Query) else COMMAND

    def attribute(self, name: str) -> Operation[Any, ..., Any]:
        """The command or query that the machine has under this attribute."""
        operation = getattr(self._type, name, None)
        if isinstance(operation, Operation):
            return operation
        raise AttributeError(f"{self._type.__name__} has no command or query {name!r}; it has {self._offer()}")

    @property
    def title(self) -> str:
        """The name of the machine's class."""
        return str(self._type.__name__)

    def attributes(self) -> list[str]:
        """Under which attributes the machine has its commands and queries."""
        return sorted(operation.attribute for operation in self._by_name.values())

    def _find(self, what: object) -> Operation[Any, ..., Any]:
        if isinstance(what, Operation):
            if not issubclass(self._type, what.owner):
                raise TypeError(self._foreign(what))
            return self.attribute(what.attribute)
        if isinstance(what, str):
            found = self._by_name.get(what)
            if found is None:
                raise TypeError(f"{self._type.__name__} has no command or query {what!r}; it has {self._offer()}")
            return found
        if isinstance(what, (bytes, bytearray, memoryview)):
            raise TypeError(
                f"{self._type.__name__} is a typed machine and takes no bytes: "
                f"call node.execute({self._example()}, ...)"
            )
        if callable(what):
            raise TypeError(
                f"{what!r} is not a command: pass it as the class has it, such as {self._example()}, and its arguments "
                "after it"
            )
        raise TypeError(f"expected a command such as {self._example()}, or its name, not {what!r:.80}")

    def _foreign(self, what: Operation[Any, ..., Any]) -> str:
        words = f"{what!r} is not of this node's machine, {self._type.__name__}"
        if any(_full_name(base) == _full_name(what.owner) for base in self._type.__mro__):
            # As when the cell of a notebook that defines it is run again.
            return f"{words}: the class was defined again since: make a new node from the new class"
        return words

    def _plan_raw(self, kind: int, what: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
        if not isinstance(what, (bytes, bytearray, memoryview)) or args or kwargs:
            raise TypeError(
                f"{self._type.__name__} is a raw machine: call node.{_VERBS[kind]}(b'...') with bytes and nothing else"
            )
        return Plan(kind, bytes(what), "query" if kind else "apply", self._decoders[kind])

    def _offer(self) -> str:
        return ", ".join(sorted(self._by_name)) or "none: it is a raw machine"

    def _example(self) -> str:
        first = next(op for op in self._by_name.values() if isinstance(op, Command))
        return f"{self._type.__name__}.{first.attribute}"


def _full_name(cls: type[Any]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _raw_decoder(kind: type[Any], hook: str) -> Callable[[bytes], Any]:
    method = getattr(kind, hook, None)
    try:
        type_ = _codec.result_type(typing.get_type_hints(method).get("return", Any))
    except (NameError, TypeError):
        return _codec.decode_plain  # nobody promised a type
    return msgspec.msgpack.Decoder(type_).decode
