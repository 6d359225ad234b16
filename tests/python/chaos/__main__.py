"""A cluster of real processes under faults, whose clients' histories are checked.

    python -m chaos faults --minutes 10 --members 5
    python -m chaos increments --number 1000 --kills 20
    python -m chaos powercuts --cuts 1000

The seed decides what is done to whom, but not what the machine's timing makes of it. A failure tells the smallest part
of the history that nothing explains, or what was lost, leaves the directory, and ends with 3; other trouble ends
with 1.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import graft
from processes import Died, ProcessError

from chaos import enclosure
from chaos.checking import Checking
from chaos.disks import Disk
from chaos.ledger import Broken
from chaos.nemesis import FAULTS
from chaos.powercuts import PowerCuts
from chaos.router import Router
from chaos.story import KINDS, NotLinearizable, Story

NOT_LINEARIZABLE = 3
_PROGRESS_SECONDS = 10.0


def main() -> int:
    """Reads the arguments and tells the story."""
    told = _arguments()
    if told.what == "powercuts" and (why := enclosure.trouble() or Disk.trouble()) is not None:
        sys.exit(why)
    enclosure.enter("chaos")
    directory = Path(tempfile.mkdtemp(prefix="graft-chaos-"))
    print(f"seed {told.seed}, in {directory}", flush=True)
    try:
        if told.what == "powercuts":
            _power_cuts(told, directory)
        else:
            _story(told, directory)
    except (AssertionError, ProcessError, Died, graft.GraftError) as error:
        print(f"{error}", file=sys.stderr)
        print("\n".join(getattr(error, "__notes__", ())), file=sys.stderr)
        print(f"FAILED: {str(error).splitlines()[0]}; seed {told.seed}, all is left in {directory}", file=sys.stderr)
        return NOT_LINEARIZABLE if isinstance(error, (NotLinearizable, Broken)) else 1
    shutil.rmtree(directory)
    return 0


def _story(told: argparse.Namespace, directory: Path) -> None:
    if told.network is None:
        why = Router.trouble()
        told.network = KINDS[0] if why else Router.name
        if why:
            print(f"with proxies, for {why}")
    print(f"{told.members} members, {told.clients} clients, {told.network}", flush=True)
    began = time.monotonic()
    kinds: dict[str, Any] = {"members": told.members, "clients": told.clients, "kind": told.network}
    with Story(directory, told.seed, machines=told.what == "faults", **kinds) as story:
        story.nemesis.faults = tuple(told.faults)
        for name, why in sorted(story.nemesis.lacks.items()):
            if told.what == "faults" and name in told.faults:
                print(f"left out: {name}: {why}", flush=True)
        if not set(told.faults) - story.nemesis.lacks.keys():
            sys.exit("none of these faults can be done here")
        try:
            if told.what == "increments":
                print(story.increments(told.number, told.kills))
            else:
                _epochs(told, story)
        finally:
            print(story.tally)
        counts = ", ".join(f"{number} {name}" for name, number in sorted(story.clients.counts().items()))
        print(f"at the clients: {counts}\nLINEARIZABLE; all in {time.monotonic() - began:.0f} s")


def _epochs(told: argparse.Namespace, story: Story) -> None:
    checking: Checking | None = None
    while True:
        left = told.seconds - story.tally.seconds
        now = story.harm(min(told.epoch, left), told.pause) if left > 0 else None
        if checking is not None:
            print(f"{story.tally.seconds:.0f} s of {told.seconds:.0f}: {story.verdict(checking)}", flush=True)
        if now is None:
            return
        checking = now


def _power_cuts(told: argparse.Namespace, directory: Path) -> None:
    with PowerCuts(directory, told.seed, lying=told.lying) as cuts:
        began = shown = time.monotonic()
        try:
            while cuts.cuts < told.cuts:
                cuts.round()
                if (now := time.monotonic()) - shown >= _PROGRESS_SECONDS:
                    shown = now
                    print(f"{now - began:.0f} s: {cuts}, lost 0", flush=True)
            cuts.check()
        except Broken as error:
            print(f"{cuts}, lost {error.lost}", flush=True)
            raise
        seconds = time.monotonic() - began
        print(f"{cuts}; lost 0, twice 0; every restart by itself")
        print(f"{seconds:.0f} s, {seconds / cuts.cuts:.2f} s a cut, {60 * cuts.cuts / seconds:.0f} cuts a minute")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("faults", "increments", "powercuts"))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--network", choices=KINDS, help="without: a router, or proxies")
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults")
    parser.add_argument("--minutes", type=float, help="the same, in minutes")
    parser.add_argument("--epoch", type=float, default=30.0, help="seconds of faults between two checks")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="FAULT", help="only these")
    parser.add_argument("--pause", type=float, default=0.008, help="seconds that a lane rests between two calls")
    parser.add_argument("--number", type=int, default=1000, help="of increments by each client")
    parser.add_argument("--kills", type=int, default=20, help="of leaders, meanwhile")
    parser.add_argument("--cuts", type=int, default=1000, help="of the power of all members")
    parser.add_argument(
        "--lying", type=int, default=0, metavar="N", help="each N-th sync does nothing: this must be found out"
    )
    told = parser.parse_args()
    if told.minutes is not None:
        told.seconds = 60 * told.minutes
    return told


if __name__ == "__main__":
    sys.exit(main())
