"""The state machine that a user writes, and the two marks that make methods of it commands and queries."""

from __future__ import annotations

import functools
import inspect
import sys
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, BinaryIO, Concatenate, Generic, NoReturn, ParamSpec, TypeVar, overload

from graft import _context
from graft._context import here

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from graft._codec import Shape
    from graft._context import Context

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
# Contravariant: what works on a base class works on its subclasses.
S_contra = TypeVar("S_contra", contravariant=True)
R = TypeVar("R")
S = TypeVar("S", bound="StateMachine")

RUNNING = "_graft_running"
"""The attribute of a machine that a node runs; its value is the node's id."""

_NO_MACHINES = frozenset(kind.__name__ for kind in (bool, int, float, str, bytes, list, dict, tuple, set))
_HOOKS = ("apply", "query", "snapshot", "restore", "digest", "open", "migrate", "context", "version")


class Operation(Generic[S_contra, P, R_co]):
    """What commands and queries have in common. Use `command` and `query` to make one."""

    _kind = "operation"

    def __init__(
        self,
        function: Callable[Concatenate[S_contra, P], R_co],
        name: str | None,
        local_names: Mapping[str, Any],
    ) -> None:
        if not isinstance(function, FunctionType):
            raise TypeError(f"@graft.{self._kind} goes directly on a method, not on {function!r}")
        refuse_unsuited(function)
        _refuse_without_self(function)
        self.function: Callable[..., R_co] = function
        self.attribute = function.__name__
        self.name = function.__name__ if name is None else name
        self.owner: type[Any] = object
        self._local_names = local_names
        functools.update_wrapper(self, function)  # type: ignore[arg-type]

    def __set_name__(self, owner: type[Any], attribute: str) -> None:
        self.owner = owner
        self.attribute = attribute

    @overload
    def __get__(self, obj: None, owner: type[S_contra]) -> Operation[S_contra, P, R_co]: ...
    @overload
    def __get__(self, obj: S_contra, owner: type[S_contra] | None = None) -> Callable[P, R_co]: ...
    def __get__(self, obj: Any, owner: Any = None) -> Any:
        return self if obj is None else MethodType(self.function, obj)

    if not TYPE_CHECKING:  # type checkers find the mistake because they see no such method

        def __call__(self, *_: object, **__: object) -> NoReturn:
            title = f"{self.owner.__name__}.{self.attribute}"
            verb = "query" if isinstance(self, Query) else "execute"
            raise TypeError(f"{title} belongs to the class: pass it to node.{verb}({title}, ...), do not call it")

    @functools.cached_property
    def shape(self) -> Shape:
        """How calls of it are encoded. Raises `TypeError` if an annotation cannot be used."""
        from graft._codec import Shape

        return Shape(self.name, self.function, self._local_names)

    def __repr__(self) -> str:
        return f"<graft.{self._kind} {self.owner.__name__}.{self.attribute}>"


class Command(Operation[S_contra, P, R_co]):
    """A method that changes the state. Every replica runs it, in the order of the log."""

    _kind = "command"
    since: int = 1
    """The version of the machine that brought it."""

    if TYPE_CHECKING:

        @overload
        def __get__(self, obj: None, owner: type[S_contra]) -> Command[S_contra, P, R_co]: ...
        @overload
        def __get__(self, obj: S_contra, owner: type[S_contra] | None = None) -> Callable[P, R_co]: ...
        def __get__(self, obj: Any, owner: Any = None) -> Any: ...

    else:

        def __get__(self, obj: Any, owner: Any = None) -> Any:
            runs_it = here.in_machine and not here.writing
            if obj is None or runs_it or RUNNING not in obj.__dict__:
                return super().__get__(obj, owner)
            # To look is harmless, and completion and inspection do: only the call is refused.
            return MethodType(self._refuse, obj)

        def _refuse(self, machine: Any, *_: object, **__: object) -> NoReturn:
            title = f"{type(machine).__name__}.{self.attribute}"
            raise RuntimeError(
                f"{title}() was called on the machine of node {machine.__dict__.get(RUNNING)}, which runs: this would "
                f"change the state of one replica only: call node.execute({title}, ...)"
            )


class Query(Operation[S_contra, P, R_co]):
    """A method that only looks at the state. One replica runs it."""

    _kind = "query"

    if TYPE_CHECKING:

        @overload
        def __get__(self, obj: None, owner: type[S_contra]) -> Query[S_contra, P, R_co]: ...
        @overload
        def __get__(self, obj: S_contra, owner: type[S_contra] | None = None) -> Callable[P, R_co]: ...
        def __get__(self, obj: Any, owner: Any = None) -> Any: ...


@overload
def command(function: Callable[Concatenate[S, P], R], /) -> Command[S, P, R]: ...
@overload
def command(
    *, name: str | None = None, since: int = 1
) -> Callable[[Callable[Concatenate[S, P], R]], Command[S, P, R]]: ...
def command(
    function: Callable[Concatenate[S, P], R] | None = None, /, *, name: str | None = None, since: int = 1
) -> Command[S, P, R] | Callable[[Callable[Concatenate[S, P], R]], Command[S, P, R]]:
    """Makes a method of a `StateMachine` a command.

    `name` is what the log calls it (default: the method's name): keep it when you rename the method, for the log
    outlives the code. `since` is the version of the machine that brought it (default 1): a note for readers, which
    holds nothing back. Start the code that has a new command on every member before you call it: a replica that meets
    a command that its code does not know halts at it.
    On an instance, as in `self.deposit(...)` within another command, it is the plain method; called from outside on
    the machine of a node that runs, it raises `RuntimeError`.
    """
    _check_name(name)
    if type(since) is not int or since < 1:
        raise TypeError(f"since={since!r} must be a version of the machine: an int from 1 up")

    def make(method: Callable[Concatenate[S, P], R]) -> Command[S, P, R]:
        made = Command(method, name, _local_names(method, sys._getframe(1)))
        made.since = since
        return made

    if function is None:
        return make
    return Command(function, name, _local_names(function, sys._getframe(1)))


@overload
def query(function: Callable[Concatenate[S, P], R], /) -> Query[S, P, R]: ...
@overload
def query(*, name: str | None = None) -> Callable[[Callable[Concatenate[S, P], R]], Query[S, P, R]]: ...
def query(
    function: Callable[Concatenate[S, P], R] | None = None, /, *, name: str | None = None
) -> Query[S, P, R] | Callable[[Callable[Concatenate[S, P], R]], Query[S, P, R]]:
    """Makes a method of a `StateMachine` a query: it looks at the state and must not change it.

    `name` is what callers on other machines call it (default: the method's name).
    """
    _check_name(name)

    def make(method: Callable[Concatenate[S, P], R]) -> Query[S, P, R]:
        return Query(method, name, _local_names(method, sys._getframe(1)))

    if function is None:
        return make
    return Query(function, name, _local_names(function, sys._getframe(1)))


class StateMachine:
    """Subclass it and keep your state in attributes.

    *Typed*: mark methods with `graft.command` and `graft.query`. *Raw*: define `apply(self, command: bytes)` and, if
    you like, `query(self, query: bytes)`. Commands must be deterministic: no clock, no luck, no network. What they
    need of those is in `self.context`.

    The attributes that do not start with `_` are the state; they are what a snapshot holds. A machine whose state
    lies elsewhere defines `snapshot()` and `restore(file)`, and may define `digest() -> bytes`.

    A machine that keeps its state on disk also defines `open(directory) -> int`, answering the index of the last
    command it has there; only later ones come. It stores that index (`self.context.index`) together with the data, in
    one transaction, and *its snapshots carry it*: after `restore(file)` the machine has applied what the snapshot
    had, and a restart asks `open` again.
    """

    @property
    def context(self) -> Context:
        """The log entry being applied: its index, term and time, and luck that all replicas share.
        Raises `RuntimeError` outside of a command."""
        return _context.current()

    def snapshot(self) -> bytes | Callable[[BinaryIO], None]:
        """The whole state: as bytes, or as a function `write(file)`.

        Commands wait while this method runs, but not for the function, which is called once, in a thread of its own,
        while further commands are applied. So the function writes what was there when it was made: a copy, or something
        that does not change. It must not use `self.context`, nor call the node. The file is a binary stream: it cannot
        seek. A snapshot that raises is given up, and told in `status().snapshot_error`; the node goes on and tries
        again later. All members make their own snapshots.
        """
        from graft import _state

        return _state.dump(self)

    def restore(self, file: BinaryIO) -> None:
        """Makes the state what a snapshot says, whatever it was before. The file is a binary stream: it can be read
        once, from its beginning to its end. What it raises halts the replica, for the log before the snapshot is
        gone. Override it and call `super().restore(file)` to rebuild what you derive from the state and keep in
        attributes that start with `_`."""
        from graft import _state

        _state.load(self, file.read())

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_class(cls)


def operations(cls: type[StateMachine]) -> dict[str, Operation[Any, ..., Any]]:
    """The commands and queries of a machine, by the names that the log knows."""
    found: dict[str, Operation[Any, ..., Any]] = {}
    for attribute in dir(cls):
        operation = inspect.getattr_static(cls, attribute)
        if not isinstance(operation, Operation):
            continue
        twin = found.setdefault(operation.name, operation)
        if twin is not operation:
            raise TypeError(f"{cls.__name__}.{twin.attribute} and .{attribute} share the name {operation.name!r}")
    return found


def callable_operations(cls: type[StateMachine]) -> dict[str, Operation[Any, ..., Any]]:
    """As `operations`. Raises `TypeError` if no command can be sent to the machine, or one cannot be encoded."""
    found = operations(cls)
    if not is_raw(cls) and not any(isinstance(operation, Command) for operation in found.values()):
        raise TypeError(
            f"{cls.__name__} has no command: mark a method with @graft.command, or define apply(self, command: bytes)"
        )
    for operation in found.values():
        _ = operation.shape
    return found


def is_raw(cls: type[StateMachine]) -> bool:
    """Whether the machine takes bytes in `apply`."""
    return hasattr(cls, "apply")


def refuse_unsuited(function: object) -> None:
    """Raises `TypeError` for a coroutine or a generator: a replica must run a method to its end, at once."""
    name = getattr(function, "__qualname__", repr(function))
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{name} is `async def`: commands and queries run to their end in the order of the log, so they cannot "
            "await; do the waiting before you send the command, and write it with plain `def`"
        )
    if inspect.isgeneratorfunction(function):
        raise TypeError(f"{name} contains `yield`: a command or a query returns its answer; return a list instead")


def _refuse_without_self(function: FunctionType) -> None:
    # What stands first is the machine, by whatever name. If it says that it is a number, or if nothing stands there, it
    # was forgotten, and the first argument of a call would be lost.
    code = function.__code__
    first = code.co_varnames[0] if code.co_argcount else None
    if first is None and not code.co_flags & inspect.CO_VARARGS:
        raise TypeError(f"{function.__qualname__}() takes no machine: begin its parameters with `self`")
    try:
        annotation = function.__annotations__.get(first or "")
    except NameError:  # of a class that is still to come, where annotations are looked at when they are asked for
        return
    kind = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    if kind.partition("[")[0] in _NO_MACHINES:
        raise TypeError(
            f"the first parameter of {function.__qualname__}() is the machine, and {first!r} is annotated as {kind}: "
            "begin its parameters with `self`"
        )


def _check_name(name: object) -> None:
    if callable(name) or (name is not None and (not isinstance(name, str) or not name)):
        raise TypeError(f"name={name!r} must be a non-empty str")


def _check_class(cls: type[StateMachine]) -> None:
    found = operations(cls)
    for operation in found.values():
        if operation.attribute in _HOOKS:
            raise TypeError(
                f"{cls.__name__}.{operation.attribute}: a state machine has its own use for this name; name the "
                f'method otherwise, and say @graft.command(name="{operation.attribute}") if callers know it so'
            )
    raw = [hook for hook in ("apply", "query") if hasattr(cls, hook)]
    if raw and found:
        marked = next(iter(found.values())).attribute
        raise TypeError(
            f"{cls.__name__} defines {raw[0]}(), as a raw machine does, and the marked method {marked}(), as a typed "
            "one does: a command would have two meanings; keep one of the two"
        )
    for hook in raw:
        refuse_unsuited(getattr(cls, hook))
    for attribute, value in vars(cls).items():
        covered = _inherited(cls, attribute)
        if isinstance(covered, Operation) and not isinstance(value, type(covered)):
            raise TypeError(
                f"{cls.__name__}.{attribute} overrides a {covered._kind} and is none: "
                f"mark it with @graft.{covered._kind}"
            )


def _inherited(cls: type[Any], attribute: str) -> object:
    for base in cls.__mro__[1:]:
        if attribute in vars(base):
            return vars(base)[attribute]
    return None


def _local_names(function: Callable[..., Any], class_body: FrameType) -> dict[str, Any]:
    # Annotations that are text can name what is defined in the function around the class. Only while the class is
    # being made can that be looked up, as a plain annotation would be.
    if "<locals>" not in function.__qualname__:
        return {}
    from graft._codec import annotation_names

    missing = annotation_names(function)
    found: dict[str, Any] = {}
    frame: FrameType | None = class_body
    while frame is not None and function.__qualname__.startswith(frame.f_code.co_qualname + "."):
        found = {name: frame.f_locals[name] for name in missing & set(frame.f_locals)} | found
        frame = frame.f_back
    return found
