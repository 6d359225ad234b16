"""Pictures of a recording, by matplotlib's objects: no window, no global state."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graft._timeline import Timeline

COLOURS = {
    "leader": "#2e7d32",
    "follower": "#1565c0",
    "candidate": "#ef6c00",
    "pre-candidate": "#ffa040",
    "learner": "#6a1b9a",
    "paused": "#f9a825",
    "failed": "#b71c1c",
    "down": "#9e9e9e",
}
_DOTS_PER_INCH = 100


def colour(role: str) -> str:
    """Of a role, the same in every picture."""
    return COLOURS.get(role, COLOURS["down"])


def figure(timeline: Timeline) -> Any:
    """The whole recording on one page."""
    try:
        from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        from graft._timeline import absent

        command = 'pip install "graft-raft[notebook]"'
        raise absent("a picture of a recording", "matplotlib", command, error) from error

    moments = timeline.moments

    class Page(Figure):  # type: ignore[misc]
        """Shows itself in a notebook that has not heard of matplotlib."""

        def _repr_png_(self) -> bytes:
            target = io.BytesIO()
            self.savefig(target, format="png", dpi=_DOTS_PER_INCH)
            return target.getvalue()

    page = Page(figsize=(9.7, 5.2), layout="constrained")
    axes = page.subplots(3, 1, sharex=True, height_ratios=[1.2, 1, 1])
    begin = moments[0]["time"] if moments else 0.0
    _roles(axes[0], moments, begin)
    _events(axes[0], timeline, begin)
    _logs(axes[1], moments, begin)
    _calls(axes[2], moments, begin)
    axes[2].set_xlabel("seconds")
    return page


def png(timeline: Timeline) -> bytes:
    """The same as bytes of a PNG file."""
    drawn: bytes = figure(timeline)._repr_png_()
    return drawn


def bands(moments: list[Any], begin: float) -> dict[str, list[tuple[float, float, str]]]:
    """For each node `(from, for how long, role)`, one after the other."""
    found: dict[str, list[tuple[float, float, str]]] = {}
    for now, then in zip(moments, [*moments[1:], None], strict=True):
        start = now["time"] - begin
        length = 0.05 if then is None else then["time"] - now["time"]
        for row in now["nodes"]:
            band = found.setdefault(row["id"], [])
            if band and band[-1][2] == row["role"] and abs(band[-1][0] + band[-1][1] - start) < 1e-6:  # noqa: PLR2004
                band[-1] = (band[-1][0], band[-1][1] + length, row["role"])
            else:
                band.append((start, length, row["role"]))
    return found


def _roles(axes: Any, moments: list[Any], begin: float) -> None:
    found = bands(moments, begin)
    for place, spans in enumerate(found.values()):
        axes.broken_barh(
            [(start, length) for start, length, _ in spans],
            (place - 0.42, 0.84),
            facecolors=[colour(role) for _, _, role in spans],
        )
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(len(found) - 0.4, -0.6)
    shown = [role for role in COLOURS if any(role == one for spans in found.values() for *_, one in spans)]
    from matplotlib.patches import Patch  # pyright: ignore[reportMissingImports]

    patches = [Patch(color=colour(role), label=role) for role in shown]
    if patches:
        axes.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.005, 1.0), fontsize="small", frameon=False)
    axes.set_title("roles and terms", fontsize="medium", pad=14)


def _events(axes: Any, timeline: Timeline, begin: float) -> None:
    """A line where a term begins."""
    last = timeline.moments[-1]["time"] if timeline.moments else begin
    for event in timeline.events:
        if event.kind == "leader" and begin <= event.time <= last:
            at = event.time - begin
            axes.axvline(at, color="black", linewidth=1)
            axes.annotate(
                f"term {event.data['term']}",
                (at, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 3),
                textcoords="offset points",
                fontsize="x-small",
            )


def _logs(axes: Any, moments: list[Any], begin: float) -> None:
    times = [moment["time"] - begin for moment in moments]
    axes.plot(times, [moment["commit"] for moment in moments], label="commit", color="black", linewidth=2.5, alpha=0.35)
    for id_ in dict.fromkeys(row["id"] for moment in moments for row in moment["nodes"]):
        applied = [next((row["applied"] for row in moment["nodes"] if row["id"] == id_), None) for moment in moments]
        known = [float("nan") if one is None else one for one in applied]
        axes.plot(times, known, label=f"applied {id_}", linewidth=1.2)
    axes.set_ylabel("index")
    if moments:
        axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.0), fontsize="small", frameon=False)


def _calls(axes: Any, moments: list[Any], begin: float) -> None:
    """How long calls took, if some were made through the cluster; else how fast the log grew."""
    timed = [moment for moment in moments if moment.get("calls", {}).get("count")]
    if timed:
        times = [moment["time"] - begin for moment in timed]
        for name in ("p50", "p99"):
            axes.plot(times, [moment["calls"][name] * 1000 for moment in timed], label=name, marker=".", markersize=3)
        axes.set_yscale("log")
        axes.set_ylabel("latency, ms")
        axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.0), fontsize="small", frameon=False)
        return
    pairs = list(pairwise(moments))
    rates = [max(0, b["commit"] - a["commit"]) / max(1e-3, b["time"] - a["time"]) for a, b in pairs]
    axes.plot([b["time"] - begin for _, b in pairs], rates, color="teal")
    axes.set_ylabel("entries/s")
