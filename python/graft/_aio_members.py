"""The awaitable mirror of what changes the members of a cluster."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from graft import _changes, _progress
from graft._completions import CHANGE
from graft._errors import Timeout, UnknownOutcome
from graft._members import (
    CHANGE_SECONDS,
    TRANSFER_SECONDS,
    Roster,
    knows,
    leader_of,
    leads,
    limit,
    refuse_late,
    result,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from graft._changes import Change
    from graft._graft import NativeCalls
    from graft._members import Condition
    from graft._progress import Report
    from graft._status import Member
    from graft._units import Duration

_POLL_SECONDS = 0.02
_LOOK_SECONDS = 0.05


class AsyncMembers(Roster):
    """What `Members` has, for `await`. Cancelling a call does not take a change back: `cancel()` does.

    `async for member in client.members` gives the members; those of a node may be looked at without `await` as well.
    """

    async def __aiter__(self) -> AsyncIterator[Member]:
        """All members, voters and learners, in the order of their ids."""
        for member in (await self._access._status_later()).members:
            yield member

    async def add(
        self,
        id: str,  # noqa: A002 - the word of the product
        address: str,
        *,
        voter: bool = True,
        timeout: Duration = CHANGE_SECONDS,
        progress: Report = None,
        if_unchanged: int | None = None,
    ) -> Member:
        """See `Members.add`."""
        return await self._member(_changes.addition(id, address, voter=voter), timeout, progress, if_unchanged)

    async def remove(
        self,
        id: str,  # noqa: A002
        *,
        timeout: Duration = CHANGE_SECONDS,
        progress: Report = None,
        if_unchanged: int | None = None,
    ) -> tuple[Member, ...]:
        """See `Members.remove`."""
        return await self._all(_changes.removal(id), timeout, progress, if_unchanged)

    async def promote(
        self,
        id: str,  # noqa: A002
        *,
        timeout: Duration = CHANGE_SECONDS,
        progress: Report = None,
        if_unchanged: int | None = None,
    ) -> Member:
        """See `Members.promote`."""
        return await self._member(_changes.promotion(id), timeout, progress, if_unchanged)

    async def demote(
        self,
        id: str,  # noqa: A002
        *,
        timeout: Duration = CHANGE_SECONDS,
        progress: Report = None,
        if_unchanged: int | None = None,
    ) -> Member:
        """See `Members.demote`."""
        return await self._member(_changes.demotion(id), timeout, progress, if_unchanged)

    async def replace(
        self,
        old: str,
        new: str,
        address: str,
        *,
        timeout: Duration = CHANGE_SECONDS,
        progress: Report = None,
        if_unchanged: int | None = None,
    ) -> Member:
        """See `Members.replace`."""
        return await self._member(_changes.replacement(old, new, address), timeout, progress, if_unchanged)

    async def apply(
        self,
        members: Mapping[str, str],
        *,
        timeout: Duration = CHANGE_SECONDS,
        progress: Report = None,
        if_unchanged: int | None = None,
    ) -> tuple[Member, ...]:
        """See `Members.apply`."""
        return await self._all(_changes.application(members), timeout, progress, if_unchanged)

    async def cancel(self, *, timeout: Duration = CHANGE_SECONDS) -> tuple[Member, ...]:
        """See `Members.cancel`."""
        return await self._all(_changes.cancellation(), timeout, None, None)

    async def transfer_leadership(self, to: str | None = None, *, timeout: Duration = TRANSFER_SECONDS) -> Member:
        """See `Members.transfer_leadership`."""
        change = _changes.transfer(to)
        before = (await self._access._status_later()).term
        seconds, deadline = limit(timeout)
        await self._changed(change, seconds, None, None)
        await self._until(lambda status: leads(status, to, before), change, deadline)
        return leader_of(await self._access._status_later())

    async def _member(self, change: Change, timeout: Duration, progress: Report, if_unchanged: int | None) -> Member:
        seconds, deadline = limit(timeout)
        index = await self._changed(change, seconds, progress, if_unchanged)
        await self._until(lambda status: knows(status, index), change, deadline)
        return result(change, await self._access._status_later())

    async def _all(
        self, change: Change, timeout: Duration, progress: Report, if_unchanged: int | None
    ) -> tuple[Member, ...]:
        seconds, deadline = limit(timeout)
        index = await self._changed(change, seconds, progress, if_unchanged)
        await self._until(lambda status: knows(status, index), change, deadline)
        return (await self._access._status_later()).members

    async def _changed(self, change: Change, seconds: float, progress: Report, if_unchanged: int | None) -> int:
        body = change.guarded(if_unchanged)
        tell = _progress.checked(progress)
        native = self._access._engine(f"members.{change.verb}")
        watcher = None if tell is None else _progress.Watcher(change, native, tell)
        try:
            index = await self._answered(native, body, seconds, watcher)
        except (Timeout, UnknownOutcome) as error:
            status = await self._access._last_status_later()
            index = _changes.done_or_unfinished(change, error, status, seconds)
        if watcher is not None:
            watcher.end(await self._access._last_status_later())
        return index

    async def _answered(
        self, native: NativeCalls, body: dict[str, object], seconds: float, watcher: _progress.Watcher | None
    ) -> int:
        loop = self._access._loops.of(asyncio.get_running_loop())
        future = loop.send(CHANGE, partial(native.submit_change, body, seconds))
        try:
            while watcher is not None and not future.done():
                if watcher.wants():
                    watcher.look(await self._access._last_status_later())
                await asyncio.wait({future}, timeout=_LOOK_SECONDS)
            _, index, _ = await future
        finally:
            future.cancel()  # of an answer that nobody waits for any more
        return int(index)

    async def _until(self, condition: Condition, change: Change, deadline: float) -> None:
        while not condition(status := await self._access._status_later()):
            refuse_late(change, status, deadline)
            self._access._engine(f"members.{change.verb}")
            await asyncio.sleep(_POLL_SECONDS)
