"""A recording of a cluster: what happened, and how it was, many times a second."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from graft import _units
from graft._errors import ConfigError, GraftError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from graft._access import Access
    from graft._moment import Moment
    from graft._units import Duration

EVENTS_MAX = 10_000
"""Events that are kept: the newest."""
MOMENTS_MAX = 18_000
"""Moments that are kept: the newest; an hour of them at five a second."""
EVERY_SECONDS = 0.2
_JOIN_SECONDS = 2.0
_FORMAT = "graft-timeline-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEvent:
    """Something that happened, or that was done on purpose. `str()` gives it in words."""

    time: float
    """Seconds since the epoch."""
    node: str | None
    """Whom it is about, or who told it; None for all."""
    kind: str
    """As `Event.kind`, or what was done to a `LocalCluster`: "kill", "restart", "partition", "heal", …"""
    words: str
    """It, in words."""
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The rest, by name."""

    def __str__(self) -> str:
        return f"{clock(self.time)} {self.words}"


class Timeline:
    """What happened to a cluster, and how it was at every moment: see `LocalCluster.record`.

    ```python
    with cluster.record() as timeline:
        cluster.kill(cluster.leader)
    timeline.plot()
    ```
    """

    def __init__(self) -> None:
        self._events: deque[TimelineEvent] = deque(maxlen=EVENTS_MAX)
        self._moments: deque[Moment] = deque(maxlen=MOMENTS_MAX)
        self._recorder: Any = None

    @property
    def events(self) -> list[TimelineEvent]:
        """What happened, oldest first; of a long recording the newest 10 000."""
        return sorted(self._events, key=lambda event: event.time)

    @property
    def moments(self) -> list[Moment]:
        """How it was, several times a second, oldest first; of a long recording the last hour."""
        return list(self._moments)

    @property
    def is_recording(self) -> bool:
        """Whether it still goes on."""
        return self._recorder is not None and self._recorder.is_running

    def stop(self) -> Self:
        """Ends the recording. Stopping twice is fine."""
        if self._recorder is not None:
            self._recorder.stop()
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __len__(self) -> int:
        """How many events there are."""
        return len(self._events)

    def to_pandas(self, what: str = "events") -> Any:
        """A `pandas.DataFrame`: of "events", a row each, or of "moments", a row for every node at every moment.

        Raises `ModuleNotFoundError` without pandas: `pip install pandas`."""
        try:
            import pandas as pd  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise absent("Timeline.to_pandas()", "pandas", "pip install pandas", error) from error

        if what == "events":
            columns = ["time", "node", "kind", "words"]
            rows = [[event.time, event.node, event.kind, event.words] for event in self._events]
        elif what == "moments":
            columns = ["time", "node", "role", "term", "last", "commit", "applied", "match", "lag"]
            rows = [
                [moment["time"], row["id"], *(row[name] for name in columns[2:])]
                for moment in self._moments
                for row in moment["nodes"]
            ]
        else:
            raise ConfigError(f'what={what!r:.40} must be "events" or "moments"')
        frame = pd.DataFrame(rows, columns=columns)
        frame["time"] = pd.to_datetime(frame["time"], unit="s", utc=True)
        return frame

    def plot(self) -> Any:
        """A `matplotlib.figure.Figure`: roles and terms, how far each log is, calls and how long they took.

        Raises `ModuleNotFoundError` without matplotlib: `pip install "graft-raft[notebook]"`."""
        from graft._plot import figure

        return figure(self)

    def _repr_png_(self) -> bytes | None:
        from graft._plot import png

        try:
            return png(self)
        except ModuleNotFoundError:
            return None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it to a file, as JSON."""
        events = [[event.time, event.node, event.kind, event.words, dict(event.data)] for event in self._events]
        content = {"format": _FORMAT, "events": events, "moments": list(self._moments)}
        Path(path).write_bytes(msgspec.json.encode(content, enc_hook=str))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Timeline:
        """Reads what `save` wrote. Raises `ConfigError` if that is not what is in the file."""
        try:
            content = msgspec.json.decode(Path(path).read_bytes())
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is {content['format']!r:.40}")
            timeline = cls()
            for when, node, kind, words, data in content["events"]:
                timeline._events.append(TimelineEvent(time=when, node=node, kind=kind, words=words, data=data))
            timeline._moments.extend(content["moments"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{os.fspath(path)} is no recording that this version of graft can read: {error}"
            ) from None
        return timeline

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:  # noqa: ARG002
        from graft._display import of_timeline

        return of_timeline(self)

    def __repr__(self) -> str:
        seconds = self._moments[-1]["time"] - self._moments[0]["time"] if self._moments else 0.0
        recording = ", recording" if self.is_recording else ""
        return f"<graft.Timeline of {seconds:.1f} s, {_units.counted(len(self._events), 'event')}{recording}>"


def absent(what: str, needed: str, command: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """What to raise where a package that Graft does without is needed after all."""
    words = f"{what} needs {needed}, which is not here ({error}); install it with `{command}`"
    return ModuleNotFoundError(words, name=error.name)


class Recorder:
    """Looks at a cluster several times a second, on a thread of its own, until it is stopped or the cluster ends."""

    def __init__(self, access: Access[Any], timeline: Timeline, every: Duration = EVERY_SECONDS) -> None:
        # Weak: who records a cluster does not keep it alive.
        self._of = weakref.ref(access)
        self._timeline = timeline
        self._every = _units.seconds("every", every)
        self._sources: dict[int, Any] = {}
        # The members as they were when this began are no news.
        begin = getattr(access, "_begin_index", None)
        self._begin: int = 0 if begin is None else begin()
        self._fresh: list[TimelineEvent] = []
        self._told: deque[tuple[Any, ...]] = deque(maxlen=1000)
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.on_look: Any = None
        """Called with each moment, and the events before it, on the recorder's thread."""
        listeners = getattr(access, "_listeners", None)
        if listeners is not None:
            listeners.append(self._done_to)
        self.look()
        self._thread = threading.Thread(target=self._run, name="graft-recorder", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it looks on."""
        return not self._ended.is_set()

    def stop(self) -> None:
        """Looks once more and ends."""
        if self._ended.is_set():
            return
        self._ended.set()
        access = self._of()
        listeners = getattr(access, "_listeners", None)
        if listeners:
            with suppress(ValueError):
                listeners.remove(self._done_to)
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)
        if access is not None and not access._ended.is_set():
            self.look()
        for cursor in self._sources.values():
            cursor.native.close()
        self._sources.clear()

    def look(self) -> None:
        """One look."""
        from graft._moment import moment_of

        access = self._of()
        if access is None:
            self._ended.set()
            return
        with self._lock:
            before = len(self._timeline._moments)
            events = self._events(access)
            moment = moment_of(access)
            moment["calls"] = _calls(access)
            self._timeline._moments.append(moment)
        if self.on_look is not None and before:
            self.on_look(moment, events)

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            if self._is_over():
                return
            try:
                self.look()
            except Exception:
                # One that is being closed meanwhile is no news; whatever else it is must not be hidden.
                if not self._is_over():
                    raise
                return

    def _is_over(self) -> bool:
        access = self._of()
        over = access is None or access._ended.is_set()
        if over:
            self.stop()
        return over

    def _done_to(self, when: float, kind: str, member: str | None, words: str) -> None:
        told = TimelineEvent(time=when, node=member, kind=kind, words=words)
        self._timeline._events.append(told)
        self._fresh.append(told)

    def _events(self, access: Access[Any]) -> list[TimelineEvent]:
        """What has happened since the last look. What all nodes tell is kept once."""
        from graft._cluster import LocalCluster
        from graft._events import Cursor

        nodes = (
            [seat.node for seat in access._all() if seat.is_running] if isinstance(access, LocalCluster) else [access]
        )
        for node in nodes:
            with suppress(GraftError):
                if id(node) not in self._sources:
                    since = 0 if self._timeline._moments and node is not access else None
                    self._sources[id(node)] = Cursor(node, since)
                for event in self._sources[id(node)].read(0.0):
                    self._take(getattr(node, "id", None), event)
        fresh, self._fresh = self._fresh, []
        return fresh

    def _take(self, node: str | None, event: Any) -> None:
        if event.kind == "gap" or (event.kind == "leader" and event.data["leader"] is None):
            return
        if event.kind == "membership" and event.data["index"] <= self._begin:
            return  # a newcomer tells what it hears of the past
        key = _key(event)
        if key is not None:
            if key in self._told:
                return
            self._told.append(key)
        words = _words(node, event)
        told = TimelineEvent(time=event.time, node=node, kind=event.kind, words=words, data=dict(event.data))
        self._timeline._events.append(told)
        self._fresh.append(told)


def _key(event: Any) -> tuple[Any, ...] | None:
    """The same for what several nodes tell of one thing."""
    data = event.data
    if event.kind == "leader":
        return "leader", data["term"], data["leader"]
    if event.kind == "membership":
        return "membership", data["index"], data["step"], data["member"], data["committed"]
    return None


def _words(node: str | None, event: Any) -> str:
    words = str(event).split(" ", 2)[2]
    if event.kind == "link":
        words = words.partition(":")[0]  # why is in the data
    if event.kind in ("leader", "membership", "catch-up") or node is None:
        return words
    return words.replace("this node", node) if "this node" in words else f"{node}: {words}"


def _calls(access: Any) -> dict[str, Any]:
    """How many calls have ended since the last look, and how long they took, in seconds."""
    taken: list[float] = []
    times = getattr(access, "_times", None)
    while times:
        taken.append(times.popleft())
    taken.sort()
    if not taken:
        return {"count": 0, "p50": None, "p99": None}
    return {
        "count": len(taken),
        "p50": taken[len(taken) // 2],
        "p99": taken[min(len(taken) - 1, len(taken) * 99 // 100)],
    }


def clock(when: float) -> str:
    """The time of day, to a tenth of a second."""
    return datetime.fromtimestamp(when).astimezone().strftime("%H:%M:%S.%f")[:-5]


def record(access: Access[Any], every: Duration = EVERY_SECONDS) -> Timeline:
    """A recording that goes on."""
    timeline = Timeline()
    timeline._recorder = Recorder(access, timeline, every)
    return timeline
