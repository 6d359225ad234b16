"""Asking again for an outcome that is not known."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from graft import _units
from graft._errors import ConfigError, GraftError, SessionExpired, UnknownOutcome
from graft._plan import COMMAND

if TYPE_CHECKING:
    from graft._access import Access
    from graft._aio import AsyncCalls
    from graft._plan import Plan
    from graft._units import Duration
    from graft._verbs import Calls

Slot = tuple[int, int, int]
"""The place of a command: its session, its number in there, the lowest number that has no answer yet."""


class Asked(NamedTuple):
    """A call, by whom, and how long it was to take."""

    access: Access[Any]
    plan: Plan
    seconds: float


def remember(error: GraftError, access: Access[Any] | None, plan: Plan, seconds: float) -> GraftError:
    """Has an error whose call has a place in a session know what was called, so that it can be asked again."""
    if isinstance(error, UnknownOutcome) and plan.kind == COMMAND and "session" in error.details:
        error.details["command"] = plan.body
        if access is not None:
            error._by = Asked(access, plan, seconds)
    return error


def resolve(error: UnknownOutcome, timeout: Duration | None, via: Calls[Any] | AsyncCalls[Any] | None) -> Any:
    """See `UnknownOutcome.resolve`."""
    asked, slot = _asked(error, timeout, via)
    asked.access._refuse_to_block("resolve")
    try:
        native = asked.access._engine("resolve")
        reply, index, _ = native.execute(asked.plan.body, asked.seconds, slot)
    except GraftError as trouble:
        raise _still(error, trouble, asked) from trouble
    return asked.plan.value(reply, index)


async def aresolve(error: UnknownOutcome, timeout: Duration | None, via: Calls[Any] | AsyncCalls[Any] | None) -> Any:
    """See `UnknownOutcome.aresolve`."""
    import asyncio

    asked, slot = _asked(error, timeout, via)
    try:
        native = asked.access._engine("resolve")
        submit = partial(native.submit_execute, asked.plan.body, asked.seconds, slot)
        loop = asked.access._loops.of(asyncio.get_running_loop())
        reply, index, _ = await loop.send(COMMAND, submit)
    except GraftError as trouble:
        raise _still(error, trouble, asked) from trouble
    return asked.plan.value(reply, index)


def _asked(
    error: UnknownOutcome, timeout: Duration | None, via: Calls[Any] | AsyncCalls[Any] | None
) -> tuple[Asked, Slot]:
    details = error.details
    slot = tuple(details.get(name) for name in ("session", "sequence", "unanswered"))
    body = details.get("command")
    if not isinstance(body, bytes) or not all(type(number) is int for number in slot):
        raise UnknownOutcome(
            f"this cannot be asked again, for the call has no place in a session: {error.message}",
            fix="look at the state: it tells whether the command was applied",
        )
    by = error._by
    if via is not None:
        access = getattr(via, "_access", None)
        if access is None:
            raise ConfigError(f"via={via!r:.100} must be a node or a client of the same cluster")
        plan = access._catalog.plan_again(body) if by is None else by.plan
        by = Asked(access, plan, via._seconds)
    if by is None:
        raise UnknownOutcome(
            f"this error comes from another process, or is a copy, and does not know whom to ask: {error.message}",
            fix="say who is to ask: `error.resolve(via=node_or_client)`",
            **details,
        )
    if timeout is not None:
        by = by._replace(seconds=_units.seconds("timeout", timeout))
    return by, slot  # type: ignore[return-value]  # three numbers


def _still(error: UnknownOutcome, trouble: GraftError, asked: Asked) -> GraftError:
    """What asking again came to. What says of itself that it was not applied says so of this attempt alone."""
    if isinstance(trouble, UnknownOutcome):
        return remember(trouble, asked.access, asked.plan, asked.seconds)
    if isinstance(trouble, SessionExpired):
        return trouble
    still = UnknownOutcome(
        f"it is still not known whether the command was applied: {trouble.message}",
        fix=f"call `resolve()` again, through others with `via=` if need be ({trouble.fix})",
        **error.details,
    )
    still._by = asked
    return still
