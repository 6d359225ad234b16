"""What was found, beside what was wanted, as a table and as JSON."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One line of the table. `met` is None where there is no target."""

    part: str
    what: str
    target: str
    found: str
    met: bool | None
    figures: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def verdict(self) -> str:
        """In a word."""
        return {True: "met", False: "MISSED", None: ""}[self.met]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-len(ordered) * share // 1) - 1))]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """The median and the extremes."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """Between which the median of what these are drawn from lies with 95 %, whatever its distribution. Of fewer than
    six the extremes, which is less sure."""
    ordered, count = sorted(values), len(values)
    # How often at most so many of them lie on one side of it: throws of a coin.
    chances = accumulate(math.comb(count, heads) / 2**count for heads in range(count))
    left_out = max(0, sum(chance <= 0.025 for chance in chances) - 1)
    return ordered[left_out], ordered[-1 - left_out]


def table(findings: Sequence[Finding]) -> str:
    """In Markdown."""
    heads = ["", "target", "here", ""]
    rows = [[one.what, one.target, one.found, one.verdict] for one in findings]
    widths = [max(len(row[n]) for row in [heads, *rows]) for n in range(len(heads))]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(cell.ljust(widths[n]) for n, cell in enumerate(line)) + " |" for line in lines)


def keep(path: Path, findings: Sequence[Finding], about: dict[str, Any]) -> None:
    """Writes all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**about, "findings": [asdict(one) for one in findings]}, indent=1, default=str)
    path.write_text(text + "\n")
