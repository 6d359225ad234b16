"""What commands emit, for those who watch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graft._codec import decode_plain
from graft._errors import ConfigError, GraftError
from graft._events import Span, checked_timeout, woken

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType
    from typing import Self

    from graft._access import Access
    from graft._graft import NativeWatch
    from graft._units import Duration

_INDEX_MAX = 2**64 - 1
_ALL_OF_IT = 2**32 - 1
# A wait that nobody bounds is cut into these, so that the interpreter gets a word in.
_WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Emitted:
    """Something that a command told with `self.context.emit(topic, value)`."""

    index: int
    """The log index of the command. It only ever grows."""
    number: int
    """Which of the things that this command emitted, from 0."""
    topic: str
    value: Any = field(hash=False)
    """As plain data: what was a dataclass is a dict, a tuple or a set a list."""


@dataclass(frozen=True, slots=True)
class FellBehind:
    """Some of what was emitted up to an index is not kept any more, and this watcher has not seen it. What comes after
    is whole again: read the state anew, then go on."""

    upto: int
    """The index; `query` with `options(at_least=upto)` sees all of it."""


Since = int | Emitted | FellBehind
"""Where to go on: behind all that came from an index, or behind one item."""


class _Watching:
    """What `Watch` and `AsyncWatch` have in common."""

    def __init__(
        self, access: Access[Any], topics: tuple[object, ...], since: object, timeout: Duration | None
    ) -> None:
        self._seconds = checked_timeout(timeout)
        names = [_checked_topic(topic) for topic in topics]
        place = _place(since)
        self._access = access
        self._native: NativeWatch = access._engine("watch").watch(names, place)
        self._position: Since | None = since  # type: ignore[assignment]  # _place has looked at it
        self._waiting: deque[Emitted | FellBehind] = deque()
        self._failure: GraftError | None = None
        self._closed = False

    @property
    def position(self) -> Since | None:
        """What to give as `since=` to go on behind what came out of here; None while nothing is known to have come."""
        return self._position

    def close(self) -> None:
        """Ends it, from any thread: iteration stops."""
        self._closed = True
        self._native.close()

    def _take(self, items: list[tuple[Any, ...]], ended: GraftError | None) -> None:
        for item in items:
            if item[0] == "emitted":
                _, index, number, topic, value = item
                self._waiting.append(Emitted(index, number, topic, decode_plain(value)))
            elif item[0] == "behind":
                self._waiting.append(FellBehind(item[1]))
            elif not self._waiting:
                self._position = item[1]
        self._failure = ended

    def _next(self) -> Emitted | FellBehind:
        self._position = item = self._waiting.popleft()
        return item

    def _end(self) -> bool:
        """Whether there is nothing more, if nothing waits. Raises why, if it is not the reader's own doing."""
        if self._closed:
            return True
        if self._failure is not None:
            raise self._failure
        return False


class Watch(_Watching):
    """An iterator of `Emitted` and `FellBehind`: see `Node.watch`."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Emitted | FellBehind:
        """The next item. Blocks until there is one or the time is over. Raises `Stopped` once there will be none."""
        span = Span(self._access, self._native, self._seconds)
        while not self._waiting:
            if self._end():
                raise StopIteration
            left = span.left()
            self._take(*self._native.next(0.0))
            if self._waiting or self._failure is not None:
                continue
            left = _WAIT_SECONDS if left is None else left
            if left <= 0:
                raise StopIteration
            self._access._refuse_to_block("watch")
            self._take(*self._native.next(left))
        return self._next()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncWatch(_Watching):
    """`Watch` for `async for`."""

    _woken: asyncio.Future[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Emitted | FellBehind:
        """The next item, when there is one."""
        span = Span(self._access, self._native, self._seconds)
        while not self._waiting:
            if self._end():
                raise StopAsyncIteration
            left = span.left()
            self._take(*self._native.next(0.0))
            if self._waiting or self._failure is not None:
                continue
            if left is not None and left <= 0:
                raise StopAsyncIteration
            self._woken = await woken(self._access, self._native, self._woken, left)
        return self._next()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _checked_topic(topic: object) -> str:
    if not isinstance(topic, str):
        raise ConfigError(f"topic={topic!r:.100} must be a str; an index to begin behind is since=...")
    if not topic:
        raise ConfigError("a topic is a non-empty text; leave it out to watch all topics")
    return topic


def _place(since: object) -> tuple[int, int] | None:
    match since:
        case None:
            return None
        case Emitted(index, number):
            return index, number
        case FellBehind(index):
            return index, _ALL_OF_IT
        case _ if type(since) is int and 0 <= since <= _INDEX_MAX:
            return since, _ALL_OF_IT
        case _:
            raise ConfigError(
                f"since={since!r:.100} must be an index of the log, or the last item that was seen; "
                "0 begins with the oldest that is kept"
            )
