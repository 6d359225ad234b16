"""What grows, what fails and what rests, beside its targets: `make scale`, or parts of it: `make scale PARTS=locks`.

Everything runs in real processes on loopback and on this machine's disk, through the wheel that is installed. Ratios
are of figures of one round; rounds of what is compared take turns. Times hang on the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scale import failing_over, idling, recovering, report, small, writing

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = ("writing", "recovering", "failover", "idling", "locks", "install")


def measured(part: str, home: Path, told: argparse.Namespace) -> Iterator[report.Finding]:
    """What a part finds."""
    quick = told.quick
    if part == "writing":
        plan = writing.Plan(told.entries, 10_000, 1000, 7 if quick else 31, 0.3)
        yield from writing.measured(home, plan)
    elif part == "recovering":
        yield from recovering.measured(home, recovering.Plan(told.mib, tuple(told.sizes), 1 if quick else 5))
    elif part == "failover":
        yield from failing_over.measured(home, told.kills)
    elif part == "idling":
        yield from idling.measured(home, 10 if quick else 30)
    elif part == "locks":
        yield from small.locks(home, 2 if quick else 5, 1.0 if quick else 2.0)
    elif told.wheel is not None:
        yield from small.install(home, told.wheel, 2 if quick else 5)
    else:
        print("install: left out, for it takes a wheel, --wheel FILE", file=sys.stderr)


def main() -> int:
    """Measures what it is told to; with `--strict` a target that is missed is a failure."""
    told = _arguments()
    findings: list[report.Finding] = []
    with tempfile.TemporaryDirectory(dir=told.directory, prefix="graft-scale-") as directory:
        for part in told.parts:
            begun = time.monotonic()
            for one in measured(part, Path(directory) / part, told):
                findings.append(one)
                print(f"{one.verdict:7}{one.what}: {one.found}; wanted: {one.target}", file=sys.stderr, flush=True)
            print(f"{part}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    about = {"machine": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version(),
             "load": os.getloadavg(), "time": time.time(), "arguments": vars(told)}  # fmt: skip
    report.keep(told.json, findings, about)
    print(report.table(findings))
    return 1 if told.strict and any(one.met is False for one in findings) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scale", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="few and short rounds, and small logs")
    parser.add_argument("--entries", type=int, help="of the long log; a million, or 100 000 with --quick")
    parser.add_argument("--mib", type=int, help="of the log that is recovered; 1024, or 128 with --quick")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 4096], help="bytes of its entries")
    parser.add_argument("--kills", type=int, help="of leaders; 60, or 10 with --quick")
    parser.add_argument("--wheel", type=Path, help="what is installed")
    parser.add_argument("--directory", type=Path, default=Path("target"), help="where the disk is that is written to")
    parser.add_argument("--json", type=Path, default=Path("target/scale.json"))
    parser.add_argument("--strict", action="store_true", help="fail if a target is missed")
    told = parser.parse_args()
    told.entries = told.entries or (100_000 if told.quick else 1_000_000)
    told.mib = told.mib or (128 if told.quick else 1024)
    told.kills = told.kills or (10 if told.quick else 60)
    return told


if __name__ == "__main__":
    sys.exit(main())
