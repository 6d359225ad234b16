"""What one can do with the state: the calls that block, and `submit`, which does not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from graft import _units
from graft._errors import GraftError, UnknownOutcome
from graft._machine import Command, Query, StateMachine
from graft._plan import COMMAND, QUERY
from graft._resolving import remember

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

    from graft._access import Access
    from graft._aio import AsyncCalls
    from graft._graft import NativeCalls
    from graft._plan import Plan
    from graft._reading import Consistency, Reading
    from graft._result import Result
    from graft._units import Duration

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=StateMachine)

SNAPSHOT_SECONDS = 60.0
BACKUP_SECONDS = 300.0
VERIFY_SECONDS = 10.0


class Calls(ABC, Generic[S]):
    """Calls on the replicated state, all with the same options. A `Node` and a `Client` are some; `options()` makes
    others.

    A call has three outcomes: it returns, and was applied; it raises, and was certainly not applied; or it raises
    `UnknownOutcome`, whose `resolve()` finds out. (`ApplyError` belongs to the first: the command ran, and raised.)
    """

    _seconds: float
    _reading: Reading

    @property
    @abstractmethod
    def _access(self) -> Access[S]: ...

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
        plan = self._access._catalog.plan(COMMAND, command, args, kwargs)
        native = self._native("execute")
        try:
            reply, index, _ = native.execute(plan.body, self._seconds, None)
        except UnknownOutcome as error:
            remember(error, self._access, plan, self._seconds)
            raise
        return plan.value(reply, index)

    @overload
    def query(self, query: Query[S, P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def query(self, query: str, /, *args: Any, **kwargs: Any) -> Any: ...
    @overload
    def query(self, query: bytes, /) -> Any: ...
    def query(self, query: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Asks the state. By default the answer includes every command that had returned to anybody before
        (linearizable); see `options` for others."""
        plan = self._access._catalog.plan(QUERY, query, args, kwargs)
        reply, index, _ = self._native("query").query(plan.body, self._seconds, self._reading)
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
        bound to that order. The future is that of a call that runs, from the beginning: its `cancel()` answers False,
        since what was sent cannot be taken back."""
        access = self._access
        plan = access._catalog.plan(access._catalog.kind_of(call), call, args, kwargs)
        native = access._engine("submit")
        return access._notifier().submit(native, plan, self._seconds, self._reading)

    def execute_many(self, calls: Iterable[tuple[Any, ...] | bytes], /, *, return_errors: bool = False) -> list[Any]:
        """Executes many commands at once, which is many times faster than one after the other.

        Each call is a tuple `(Bank.deposit, "ann", 5)`, or bytes for a raw machine. They are separate commands: others
        may come between them. Returns their results in order. If some failed, raises one error when all have ended: the
        first `UnknownOutcome` if there is any, for such a command may have been applied, else the first error; its note
        tells how many failed. With `return_errors=True` the list has errors in the places of their results instead.
        """
        plans = [self._access._catalog.plan_of(call) for call in calls]
        if not plans:
            return []
        outcomes = self._native("execute_many").execute_many([plan.body for plan in plans], self._seconds)
        for plan, outcome in zip(plans, outcomes, strict=True):
            if isinstance(outcome, GraftError):
                remember(outcome, self._access, plan, self._seconds)
        return gathered(plans, outcomes, return_errors=return_errors)

    def options(
        self,
        *,
        timeout: Duration | None = None,
        consistency: Consistency | None = None,
        max_age: Duration | None = None,
        at_least: int | None = None,
    ) -> Calls[S]:
        """The same calls with other options.

        - `timeout`: how long a call may take, in seconds, or text such as "500ms".
        - `consistency`: what a query sees. "linearizable", the default: every command that had returned to anybody
          before, confirmed by a majority. "lease": the same on the word of a leader whose lease tells that nobody else
          can lead, which saves a round to the others, and holds as long as the members' clocks run alike within a
          tenth. "stale": what the member that is asked has, without asking the others, however old.
        - `max_age`: with "stale" only: the answer is no older than this, in seconds, or text such as "2s".
        - `at_least`: an index of the log that a query's answer must have seen, such as `.index` of a `Result` or an
          `Emitted`.
        """
        return Options(self._access, *chosen(self, timeout, consistency, max_age, at_least))

    @property
    def proxy(self) -> S:
        """Looks like the machine, but what is called on it goes through the cluster: `node.proxy.deposit("ann", 1)`."""
        return cast("S", Proxy(self))

    @property
    def aio(self) -> AsyncCalls[S]:
        """The same calls for `await`, from any asyncio event loop."""
        from graft._aio import AsyncCalls

        return AsyncCalls(self._access, self._seconds, self._reading)

    def _native(self, verb: str) -> NativeCalls:
        native = self._access._engine(verb)
        self._access._refuse_to_block(verb)
        return native


class Options(Calls[S]):
    """Calls of a node or a client with options of their own."""

    def __init__(self, access: Access[S], seconds: float, reading: Reading) -> None:
        self._of = access
        self._seconds = seconds
        self._reading = reading

    @property
    def _access(self) -> Access[S]:
        return self._of

    def __repr__(self) -> str:
        return f"<calls of {self._of!r}, timeout={self._seconds:g}, {self._reading}>"


class Proxy:
    """See `Calls.proxy` and `AsyncCalls.proxy`."""

    __slots__ = ("_calls",)

    def __init__(self, calls: Calls[Any] | AsyncCalls[Any]) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        operation = self._calls._access._catalog.attribute(name)
        verb = self._calls.query if isinstance(operation, Query) else self._calls.execute
        return partial(cast("Any", verb), operation)

    def __dir__(self) -> list[str]:
        return self._calls._access._catalog.attributes()

    def __repr__(self) -> str:
        catalog = self._calls._access._catalog
        offer = ", ".join(catalog.attributes()) or "nothing, it is a raw machine"
        return f"<proxy of {catalog.title} by {self._calls!r}: {offer}>"

    def __setattr__(self, name: str, value: object) -> None:
        if name == "_calls":
            object.__setattr__(self, name, value)
            return
        raise AttributeError(f"the state changes only through commands: {name!r} cannot be set on a proxy")


def chosen(
    now: Calls[Any] | AsyncCalls[Any],
    timeout: Duration | None,
    consistency: Consistency | None,
    max_age: Duration | None,
    at_least: int | None,
) -> tuple[float, Reading]:
    """The options after a change."""
    seconds = now._seconds if timeout is None else _units.seconds("timeout", timeout)
    return seconds, now._reading.changed(consistency, max_age, at_least)


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
        raise _worst(errors, len(plans))
    return results


def _worst(errors: list[GraftError], calls: int) -> GraftError:
    # Whoever handles one error only must not take what may have been applied for what certainly was not.
    unknown = [error for error in errors if isinstance(error, UnknownOutcome)]
    worst = (unknown or errors)[0]
    words = f"{len(errors)} of {calls} commands failed"
    if unknown:
        words += f", {len(unknown)} of them with an unknown outcome, this one first among these"
    else:
        words += ", this one first, and none of them with an unknown outcome"
    worst.add_note(f"{words}; return_errors=True gives the outcome of each")
    return worst
