"""How far a change of the membership has come, while the call that asked for it waits."""

from __future__ import annotations

import html
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from graft import _lifecycle

if TYPE_CHECKING:
    from collections.abc import Callable

    from graft._changes import Change
    from graft._graft import NativeCalls
    from graft._status import Status

    Report = bool | Callable[["Progress"], object] | None

_STEPS = {
    "learner": "{member} gets the log",
    "joint": "the members before and after decide together",
    "voter": "{member} votes",
    "removed": "{member} is a member no more",
    "demoted": "{member} does not vote any more",
    "address": "{member} has moved",
    "cancelled": "it is given up",
    "settled": "it is done",
}
_LINES_SECONDS = 1.0
_BAR_SECONDS = 0.2
_BAR_WIDTH = 24
# A client asks over the network.
_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of a change of the membership."""

    what: str
    """The change: "adding n4"."""
    member: str | None
    """Whom this step is about; None for all."""
    done: int
    """How many entries of the log, or bytes of a snapshot, the newcomer has; 0 if that is not what this step is."""
    total: int | None
    """Of how many; None if that is not known. It grows while commands go on."""
    words: str
    """What happens, in words."""

    @property
    def fraction(self) -> float | None:
        """How much is done, from 0 to 1; None if that is not known."""
        return None if not self.total else min(1.0, self.done / self.total)

    def __str__(self) -> str:
        return f"{self.what}: {self.words}"


class Watcher:
    """Tells of one change what the engine notes meanwhile."""

    def __init__(self, change: Change, native: NativeCalls, tell: Callable[[Progress], object]) -> None:
        self._change = change
        self._events = native.events(None)
        self._tell = tell
        self._words: str | None = None
        self._next = 0.0
        self._say(change.member, "asked for")

    def wants(self) -> bool:
        """Whether it is time for a look."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _LOOK_SECONDS
        return True

    def look(self, status: Status | None) -> None:
        """Called now and then. What `tell` raises comes out."""
        ended: object = None
        events: list[dict[str, Any]] = [{}]
        while events and ended is None:
            events, ended = self._events.next(0.0)
            for event in events:
                step = step_of(self._change.title, event)
                if step is not None:
                    self._tell(step)
        words = None if status is None else status.change
        if words is not None and words != self._words:
            self._words = words
            self._say(self._change.member, words)

    def end(self, status: Status | None) -> None:
        """The change is done."""
        self.look(status)
        self._events.close()
        self._say(self._change.member, "done")

    def _say(self, member: str | None, words: str) -> None:
        self._tell(Progress(what=self._change.title, member=member, done=0, total=None, words=words))


def step_of(what: str, event: dict[str, Any]) -> Progress | None:
    """What an event of the engine says about a change; None if nothing."""
    match event["kind"]:
        case "membership":
            member = event["member"]
            step = str(event["step"])
            words = _STEPS.get(step, step).format(member=member or "the cluster")
            if event["committed"]:
                words = f"{words}, for certain"
            return Progress(what=what, member=member, done=0, total=None, words=words)
        case "catch-up":
            member, done, total = event["member"], event["matched"], event["last"]
            return Progress(
                what=what, member=member, done=done, total=total, words=f"{member} has {done} of {total} entries"
            )
        case "snapshot" if event["phase"] == "sending" and event["peer"] is not None:
            member, done, total = event["peer"], event["bytes"], event["total"]
            return Progress(
                what=what,
                member=member,
                done=done,
                total=total,
                words=f"{member} gets a snapshot: {done / (1 << 20):.1f} of {total / (1 << 20):.1f} MiB",
            )
        case _:
            return None


def checked(report: object) -> Callable[[Progress], object] | None:
    """Who is told: a function, a bar for True (in a notebook below the cell, else on standard error), nobody for None
    and False."""
    if report is None or report is False:
        return None
    if report is True:
        return Bar() if _lifecycle.is_in_notebook() else Line(sys.stderr)
    if not callable(report):
        raise TypeError(f"progress={report!r:.100} must be a function of one Progress, or True for a bar")
    return report


class Bar:
    """Shows progress below a notebook's cell, in one place that changes."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        """Shows it, at most five times a second while it only gets on."""
        now = time.monotonic()
        is_over = progress.words == "done" or progress.fraction == 1
        if progress.fraction is not None and not is_over and now < self._next:
            return
        self._next = now + _BAR_SECONDS
        shown = _Shown(progress)
        if self._handle is not None:
            self._handle.update(shown)
            return
        # It is there, for this is a notebook.
        self._handle = sys.modules["IPython"].display.display(shown, display_id=True)


class _Shown:
    """One step, as a notebook shows it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        words, fraction = html.escape(str(self._progress)), self._progress.fraction
        is_over = self._progress.words == "done"
        value = 1.0 if is_over else fraction
        bar = "" if value is None else f'<progress max="1" value="{value:.3f}" aria-label="{words}"></progress> '
        share = "" if fraction is None or is_over else f" ({fraction:.0%})"
        return {"text/html": f"<div>{bar}{words}{share}</div>", "text/plain": f"{self._progress}{share}"}


class Line:
    """Shows progress on one line of a terminal, or now and then on a line of its own elsewhere."""

    def __init__(self, to: TextIO) -> None:
        self._to = to
        self._rewrites = to.isatty()
        self._width = 0
        self._next = 0.0
        self._last = ""

    def __call__(self, progress: Progress) -> None:
        """Shows it."""
        text = str(progress)
        fraction = progress.fraction
        if fraction is not None and self._rewrites:
            full = int(fraction * _BAR_WIDTH)
            text = f"[{'#' * full}{'.' * (_BAR_WIDTH - full)}] {fraction:4.0%} {text}"
        elif fraction is not None:
            text = f"{text} ({fraction:.0%})"
        elif text == self._last:
            return
        self._last = text
        ends = progress.words == "done"
        if self._rewrites:
            padding = " " * max(0, self._width - len(text))
            self._to.write(f"\r{text}{padding}{chr(10) if ends else ''}")
        elif fraction is None or ends or time.monotonic() >= self._next:
            self._to.write(f"{text}\n")
            self._next = time.monotonic() + _LINES_SECONDS
        self._width = len(text)
        self._to.flush()
