"""What one can do with the state: the calls that block, and `submit`, which does not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, cast, get_args, overload

from graft import _units
from graft._errors import ConfigError, GraftError
from graft._lifecycle import refuse_in_event_loop
from graft._machine import Command, Query, StateMachine
from graft._plan import COMMAND, QUERY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

    from graft._aio import AsyncCalls
    from graft._graft import NativeNode
    from graft._node import Node
    from graft._plan import Plan
    from graft._result import Result
    from graft._units import Duration

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=StateMachine)

Consistency = Literal["linearizable", "stale"]
_CONSISTENCIES = get_args(Consistency)
SNAPSHOT_SECONDS = 60.0


class Calls(ABC, Generic[S]):
    """Calls on the replicated state, all with the same options. A `Node` is one; `options()` makes others.

    A call has three outcomes: it returns, and was applied; it raises, and was certainly not applied; or it raises
    `UnknownOutcome`. (`ApplyError` belongs to the first: the command ran, and raised.)
    """

    _seconds: float
    _consistency: Consistency

    @property
    @abstractmethod
    def _node(self) -> Node[S]: ...

    @overload
    def execute(self, command: Command[S, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def execute(self, command: str, /, *args: Any, **kwargs: Any) -> Any: ...
    @overload
    def execute(self, command: bytes, /) -> Any: ...
    def execute(self, command: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Has every replica run the command, and returns what it returned.

        `command` is the method as the class has it (`Bank.deposit`), its name, or bytes for a raw machine.
        Raises `ApplyError` if the command raised, `TypeError` if the arguments do not fit, and else a `GraftError`.
        """
        plan = self._node._plan(COMMAND, command, args, kwargs)
        reply, index, _ = self._native("execute").execute(plan.body, self._seconds)
        return plan.value(reply, index)

    @overload
    def query(self, query: Query[S, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def query(self, query: str, /, *args: Any, **kwargs: Any) -> Any: ...
    @overload
    def query(self, query: bytes, /) -> Any: ...
    def query(self, query: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Asks the state. By default the answer includes every command that had returned to anybody before
        (linearizable); with `options(consistency="stale")` it is what this replica has, without asking the others."""
        plan = self._node._plan(QUERY, query, args, kwargs)
        reply, index, _ = self._native("query").query(plan.body, self._seconds, self._consistency)
        return plan.value(reply, index)

    @overload
    def submit(self, call: Command[S, P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[Result[R]]: ...
    @overload
    def submit(self, call: Query[S, P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[Result[R]]: ...
    @overload
    def submit(self, call: str, /, *args: Any, **kwargs: Any) -> Future[Result[Any]]: ...
    @overload
    def submit(self, call: bytes, /) -> Future[Result[Any]]: ...
    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Future[Result[Any]]:
        """Sends a command or a query and returns at once. Calls submitted one after the other by one thread are not
        bound to that order. Cancelling the future does not take a command back."""
        node = self._node
        plan = node._plan(node._catalog.kind_of(call), call, args, kwargs)
        native = node._engine("submit")
        return node._notifier().submit(native, plan, self._seconds, self._consistency)

    def execute_many(self, calls: Iterable[tuple[Any, ...] | bytes], /, *, return_errors: bool = False) -> list[Any]:
        """Executes many commands at once, which is many times faster than one after the other.

        Each call is a tuple `(Bank.deposit, "ann", 5)`, or bytes for a raw machine. They are separate commands: others
        may come between them. Returns their results in order. If some failed, raises the first error when all have
        ended; with `return_errors=True` the list has errors in the places of their results instead.
        """
        plans = [self._node._plan_of(call) for call in calls]
        if not plans:
            return []
        outcomes = self._native("execute_many").execute_many([plan.body for plan in plans], self._seconds)
        return gathered(plans, outcomes, return_errors=return_errors)

    def options(self, *, timeout: Duration | None = None, consistency: Consistency | None = None) -> Calls[S]:
        """The same calls with other options. `timeout` is in seconds, or text such as "500ms"."""
        return Options(self._node, *self._with(timeout, consistency))

    @property
    def proxy(self) -> S:
        """Looks like the machine, but what is called on it goes through the cluster: `node.proxy.deposit("ann", 1)`."""
        return cast("S", Proxy(self))

    @property
    def aio(self) -> AsyncCalls[S]:
        """The same calls for `await`, from any asyncio event loop."""
        from graft._aio import AsyncCalls

        return AsyncCalls(self._node, self._seconds, self._consistency)

    def _with(self, timeout: Duration | None, consistency: Consistency | None) -> tuple[float, Consistency]:
        return chosen(self._seconds, self._consistency, timeout, consistency)

    def _native(self, verb: str) -> NativeNode:
        native = self._node._engine(verb)
        refuse_in_event_loop(verb)
        return native


class Options(Calls[S]):
    """Calls of a node with options of their own."""

    def __init__(self, node: Node[S], seconds: float, consistency: Consistency) -> None:
        self._of = node
        self._seconds = seconds
        self._consistency = consistency

    @property
    def _node(self) -> Node[S]:
        return self._of

    def __repr__(self) -> str:
        return f"<calls of {self._of!r}, timeout={self._seconds:g}, consistency={self._consistency!r}>"


class Proxy:
    """See `Calls.proxy`."""

    __slots__ = ("_calls",)

    def __init__(self, calls: Calls[Any]) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        operation = self._calls._node._catalog.attribute(name)
        verb = self._calls.query if isinstance(operation, Query) else self._calls.execute
        return partial(cast("Any", verb), operation)

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_calls":
            object.__setattr__(self, name, value)
            return
        raise AttributeError(f"the state changes only through commands: {name!r} cannot be set on a proxy")


def chosen(
    seconds: float, now: Consistency, timeout: Duration | None, consistency: Consistency | None
) -> tuple[float, Consistency]:
    """The options after a change."""
    if consistency is not None and consistency not in _CONSISTENCIES:
        raise ConfigError(f"consistency={consistency!r} must be one of {', '.join(map(repr, _CONSISTENCIES))}")
    return (seconds if timeout is None else _units.seconds("timeout", timeout)), consistency or now


def gathered(plans: list[Plan], outcomes: list[Any], *, return_errors: bool) -> list[Any]:
    """The results of `execute_many`."""
    results: list[Any] = []
    errors: list[GraftError] = []
    for plan, outcome in zip(plans, outcomes, strict=True):
        try:
            if isinstance(outcome, GraftError):
                raise outcome
            reply, index, _ = outcome
            results.append(plan.value(reply, index))
        except GraftError as error:
            results.append(error)
            errors.append(error)
    if errors and not return_errors:
        errors[0].add_note(
            f"{len(errors)} of {len(plans)} commands failed, this one first; "
            "return_errors=True gives the outcome of each"
        )
        raise errors[0]
    return results
