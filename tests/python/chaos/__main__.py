"""A cluster of real processes under faults, whose clients' histories are checked.

    python -m chaos faults --seconds 600 --members 5
    python -m chaos increments --number 1000 --kills 20

The seed decides what is done to whom, but not what the machine's timing makes of it. A failure tells the smallest part
of the history that nothing explains, leaves the directory, and ends with 3; other trouble ends with 1.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from chaos.nemesis import FAULTS
from chaos.story import KINDS, NotLinearizable, Story

NOT_LINEARIZABLE = 3


def main() -> int:
    """Reads the arguments and tells the story."""
    told = _arguments()
    directory = Path(tempfile.mkdtemp(prefix="graft-chaos-"))
    print(
        f"seed {told.seed}, {told.members} members, {told.clients} clients, {told.network}, in {directory}", flush=True
    )
    began = time.monotonic()
    with Story(directory, told.seed, members=told.members, clients=told.clients, kind=told.network) as story:
        story.nemesis.faults = tuple(told.faults)
        try:
            if told.what == "increments":
                verdict = story.increments(told.number, told.kills)
            else:
                while True:
                    left = told.seconds - story.tally.seconds
                    verdict = story.epoch(min(told.epoch, left), told.pause)
                    print(f"{story.tally.seconds:.0f} s of {told.seconds:.0f}: {verdict}", flush=True)
                    if story.tally.seconds >= told.seconds:
                        break
        except AssertionError as error:
            print(f"{story.tally}\n{error}", file=sys.stderr)
            print("\n".join(getattr(error, "__notes__", ())), file=sys.stderr)
            return NOT_LINEARIZABLE if isinstance(error, NotLinearizable) else 1
        counts = ", ".join(f"{number} {name}" for name, number in sorted(story.clients.counts().items()))
        print(f"{story.tally}\nat the clients: {counts}\n{verdict}; all in {time.monotonic() - began:.0f} s")
    shutil.rmtree(directory)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("faults", "increments"))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--network", choices=KINDS, default=KINDS[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults")
    parser.add_argument("--epoch", type=float, default=30.0, help="seconds of faults between two checks")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="FAULT", help="only these")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds that a lane rests between two calls")
    parser.add_argument("--number", type=int, default=1000, help="of increments by each client")
    parser.add_argument("--kills", type=int, default=20, help="of leaders, meanwhile")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
