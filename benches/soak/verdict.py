"""Whether something grew.

What counts is the median of the last third of the samples over that of the first, once the warm-up is left out: a saw's
teeth and a single outage move neither, and what grows all the time does. The slope, than which half of all pairs of
samples have a steeper one, tells how fast.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from scale.report import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

Sample = dict[str, Any]

WARM_UP_SHARE = 0.15
WARM_UP_SECONDS = 60.0
SAMPLES_MIN = 15
MACHINE_MAX = 1.5
"""Between the thirds. Beyond it others have taken the machine, or given it back, and times tell of them."""


@dataclass(frozen=True)
class Limit:
    """How much larger the last third may be than the first: by a share, and by so much beside."""

    what: str
    name: str
    share: float
    beside: float
    unit: str


LIMITS = (
    Limit("memory of the member that was never restarted", "witness.mib", 0.10, 4, "MiB"),
    Limit("memory of all members, the median of each look", "members.mib", 0.10, 4, "MiB"),
    Limit("memory of the client", "client.mib", 0.10, 4, "MiB"),
    Limit("descriptors of the member that was never restarted", "witness.files", 0.0, 3, ""),
    Limit("descriptors of the client", "client.files", 0.0, 3, ""),
    Limit("threads of the member that was never restarted", "witness.threads", 0.0, 2, ""),
    Limit("threads of the client", "client.threads", 0.0, 2, ""),
    Limit("disk of the member that was never restarted", "witness.disk", 0.10, 8, "MiB"),
    Limit("disk of the largest member", "disk.max", 0.10, 8, "MiB"),
    Limit("median time of a write, over what it cannot do without", "p50.bare", 0.5, 1, "x"),
    Limit("p99 of a write, over the same", "p99.bare", 1.0, 10, "x"),
)


def thirds(samples: Sequence[Sample], name: str) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """The first and the last third of those that have it, behind the warm-up: when, and how much."""
    if not samples:
        return [], []
    lasted = samples[-1]["seconds"]
    warm = max(WARM_UP_SHARE * lasted, WARM_UP_SECONDS)
    found = [(one["seconds"], one[name]) for one in samples if one["seconds"] >= warm and one.get(name) is not None]
    third = len(found) // 3
    return found[:third], found[len(found) - third :]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line through them, for each hour; what single points say does not matter (Theil and Sen)."""
    # Of hours of samples a few hundred tell as much.
    thinned = points[:: max(1, len(points) // 300)]
    steps = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(thinned, 2) if b[0] > a[0]]
    return statistics.median(steps) * 3600 if steps else 0.0


def machine(samples: Sequence[Sample]) -> str:
    """What the machine itself did meanwhile, if that is too much for times to be compared; else nothing."""
    first, last = ([value for _, value in part] for part in thirds(samples, "bare_ms"))
    begin, end = statistics.median(first), statistics.median(last)
    if max(begin, end) <= MACHINE_MAX * min(begin, end):
        return ""
    return f"; but the machine itself went from {begin:.2f} to {end:.2f} ms: run it where nothing else does"


def judged(samples: Sequence[Sample], limit: Limit) -> Finding:
    """One of them."""
    first, last = thirds(samples, limit.name)
    unit = f" {limit.unit}" if limit.unit else ""
    most = f"{limit.share:.0%} + {limit.beside:g}{unit}" if limit.share else f"{limit.beside:g}{unit}"
    target = f"grows by <= {most}"
    if len(first) * 3 < SAMPLES_MIN:
        return Finding("soak", limit.what, target, f"too short to tell: {len(first) * 3} samples", False)
    begin, end = (statistics.median(value for _, value in part) for part in (first, last))
    rate = slope([*first, *last])
    met = end <= begin * (1 + limit.share) + limit.beside
    trouble = machine(samples) if not met and limit.name.endswith(".bare") else ""
    return Finding(
        "soak",
        limit.what,
        target,
        f"{begin:.1f} -> {end:.1f}{unit} ({rate:+.1f} an hour){trouble}",
        None if trouble else met,
        {"first": begin, "last": end, "slope_per_hour": rate},
    )


def verdict(samples: Sequence[Sample], ended: dict[str, Any]) -> list[Finding]:
    """All of them; `ended` is what the load says in the end, and whether the replicas agree."""
    found = [judged(samples, limit) for limit in LIMITS]
    wrong: list[str] = ended["wrong"]
    said = f"none of {ended['written']}" if not wrong else "; ".join(wrong[:3])
    counts = f"{ended['unknown']} were unknown at first, {ended['failed']} calls refused"
    return [
        *found,
        Finding("soak", "writes lost, or done twice", "none", f"{said}; {counts}", not wrong),
        Finding("soak", "replicas in the end", "have the same state", "the same" if ended["agree"] else "DIFFER",
                bool(ended["agree"])),
    ]  # fmt: skip
