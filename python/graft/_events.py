"""What happens to a node and its cluster, one event after the other."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from graft import _units
from graft._completions import WAKE
from graft._errors import ConfigError, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from graft._access import Access
    from graft._graft import NativeEvents, NativeWatch
    from graft._units import Duration

# A wait that nobody bounds is cut into these.
_WAIT_SECONDS = 60.0
_COMMON = ("sequence", "time", "kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. `str()` gives it in words.

    Kinds, and what is in `data`: "leader" (term, leader), "role" (role, term), "membership" (index, step, member,
    committed), "catch-up" (member, matched, last), "snapshot" (phase, index, bytes, total, peer, why), "link" (member,
    connected, why), "certificate" (phase, expires, why), "stopped", and "gap" (missed), for events that are forgotten
    already.
    """

    sequence: int
    """Counts the events of this node from its start. `node.events(since=event.sequence)` goes on after this one."""
    time: float
    """Seconds since the epoch, by this machine's clock."""
    kind: str
    """What it is about."""
    data: Mapping[str, Any] = field(hash=False)
    """The rest, by name."""

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.time).astimezone().isoformat(" ", "milliseconds")[11:23]
        words = _WORDS.get(self.kind, _plainly)
        return f"{when} #{self.sequence} {words(self)}"


class Cursor:
    """Reads events in order, and sees where some are missing."""

    def __init__(self, access: Access[Any], since: int | None) -> None:
        self._since = None if since is None else checked_since(since)
        self.native: NativeEvents = access._engine("events").events(self._since)
        self.ended = False

    def read(self, seconds: float) -> list[Event]:
        """The next events, as many as there are; none if none came in so many seconds."""
        found, ended = self.native.next(seconds)
        events: list[Event] = []
        for one in found:
            sequence = one["sequence"]
            if self._since is not None and sequence != self._since + 1:
                # A lower number is of another run of the node, or of another one.
                missed = sequence - 1 - self._since if sequence > self._since else None
                events.append(Event(sequence=sequence - 1, time=one["time"], kind="gap", data={"missed": missed}))
            self._since = sequence
            events.append(event_of(one))
        if ended is not None and not isinstance(ended, Stopped) and not events:
            raise ended
        self.ended = ended is not None or any(event.kind == "stopped" for event in events)
        return events


class Span:
    """How long a reader waits for the next thing."""

    def __init__(self, access: Access[Any], native: NativeEvents | NativeWatch, seconds: float | None) -> None:
        self._access = access
        self._native = native
        self._seconds = seconds
        self._begun = time.monotonic()

    def left(self) -> float | None:
        """Seconds that are left, none or less if it is over; None if it has no end.

        Whoever does not want to wait for what is still to come wants all that is there: a member elsewhere is waited
        for, as long as for a call, to say what that is. Raises `Timeout` if it does not."""
        if self._seconds is None:
            return None
        passed = time.monotonic() - self._begun
        if self._seconds > 0 or self._native.is_current():
            return self._seconds - passed
        if passed >= self._access._seconds:
            raise self._access._late(self._access._seconds)
        return self._access._seconds - passed


class Events:
    """An iterator of what happens: see `Node.events`."""

    def __init__(self, access: Access[Any], since: int | None, timeout: Duration | None) -> None:
        self._seconds = checked_timeout(timeout)
        self._access = access
        self._cursor = Cursor(access, since)
        self._waiting: list[Event] = []

    def __iter__(self) -> Events:
        return self

    def __next__(self) -> Event:
        """The next event. Blocks until there is one, the time is over, or the node stops."""
        span = Span(self._access, self._cursor.native, self._seconds)
        while not self._waiting:
            if self._cursor.ended:
                raise StopIteration
            left = span.left()
            left = _WAIT_SECONDS if left is None else left
            if left > 0:
                self._access._refuse_to_block("events")
            self._waiting = self._cursor.read(max(0.0, left))[::-1]
            if not self._waiting and left <= 0:
                raise StopIteration
        return self._waiting.pop()


class AsyncEvents:
    """`Events` for `async for`."""

    _woken: asyncio.Future[Any] | None = None

    def __init__(self, access: Access[Any], since: int | None, timeout: Duration | None) -> None:
        self._seconds = checked_timeout(timeout)
        self._access = access
        self._cursor = Cursor(access, since)
        self._waiting: list[Event] = []

    def __aiter__(self) -> AsyncEvents:
        return self

    async def __anext__(self) -> Event:
        """The next event, when there is one."""
        span = Span(self._access, self._cursor.native, self._seconds)
        while not self._waiting:
            if self._cursor.ended:
                raise StopAsyncIteration
            left = span.left()
            self._waiting = self._cursor.read(0.0)[::-1]
            if not self._waiting and not self._cursor.ended:
                if left is not None and left <= 0:
                    raise StopAsyncIteration
                self._woken = await woken(self._access, self._cursor.native, self._woken, left)
        return self._waiting.pop()


async def woken(
    access: Access[Any],
    native: NativeEvents | NativeWatch,
    before: asyncio.Future[Any] | None,
    seconds: float | None,
) -> asyncio.Future[Any]:
    """Waits until there may be more to read. One wait that was not waited for to its end still stands, and is given
    again as `before`: nobody else is woken in its place."""
    future = before
    if future is None or future.done():
        loop = access._loops.of(asyncio.get_running_loop())
        future = loop.send(WAKE, native.arm)
    await asyncio.wait({future}, timeout=seconds)
    return future


def event_of(found: dict[str, Any]) -> Event:
    """An event as the engine tells it."""
    data = {name: value for name, value in found.items() if name not in _COMMON}
    return Event(sequence=found["sequence"], time=found["time"], kind=found["kind"], data=data)


def checked_since(since: object) -> int:
    """A sequence number."""
    if type(since) is not int or not 0 <= since < 1 << 63:
        raise ConfigError(f"since={since!r:.100} must be the sequence of an event, or 0 for all that are kept")
    return since


def checked_timeout(timeout: object) -> float | None:
    """Seconds, 0 included; None for no end."""
    if timeout is None:
        return None
    if not isinstance(timeout, bool) and timeout == 0:
        return 0.0
    return _units.seconds("timeout", timeout)


# In words.


def _leader(event: Event) -> str:
    leader = event.data["leader"]
    return (
        f"nobody leads in term {event.data['term']}" if leader is None else f"{leader} leads term {event.data['term']}"
    )


def _role(event: Event) -> str:
    return f"this node is {event.data['role']} in term {event.data['term']}"


def _membership(event: Event) -> str:
    data = event.data
    who = "" if data["member"] is None else f" {data['member']}"
    return f"members: {data['step']}{who} at index {data['index']}{', committed' if data['committed'] else ''}"


def _catch_up(event: Event) -> str:
    return "{member} has {matched} of {last} entries".format_map(event.data)


def _snapshot(event: Event) -> str:
    data = event.data
    words = f"snapshot at index {data['index']}: {data['phase']}"
    if data["peer"] is not None:
        words += f" {'to' if data['phase'] == 'sending' else 'from'} {data['peer']}"
    if data["total"]:
        words += f", {data['bytes']} of {_units.counted(data['total'], 'byte')}"
    elif data["bytes"]:
        words += f", {_units.counted(data['bytes'], 'byte')}"
    return words if data["why"] is None else f"{words}: {data['why']}"


def _link(event: Event) -> str:
    data = event.data
    if data["connected"]:
        return f"{data['member']} is connected"
    return f"{data['member']} is not connected" + ("" if data["why"] is None else f": {data['why']}")


def _certificate(event: Event) -> str:
    why = event.data["why"]
    return f"this node's certificate: {event.data['phase']}" + ("" if why is None else f": {why}")


def _stopped(_: Event) -> str:
    return "this node has stopped"


def _gap(event: Event) -> str:
    missed = event.data["missed"]
    if missed is None:
        return "an unknown number of events before this are forgotten"
    return f"{_units.counted(missed, 'event')} {'is' if missed == 1 else 'are'} forgotten"


def _plainly(event: Event) -> str:
    return " ".join([event.kind, *(f"{name}={value!r}" for name, value in event.data.items())])


_WORDS: dict[str, Callable[[Event], str]] = {
    "leader": _leader,
    "role": _role,
    "membership": _membership,
    "catch-up": _catch_up,
    "snapshot": _snapshot,
    "link": _link,
    "certificate": _certificate,
    "stopped": _stopped,
    "gap": _gap,
}
