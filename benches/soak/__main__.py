"""A cluster of three for hours: `make soak HOURS=8`, or `make soak MINUTES=20`. Ends with 1 if something grew or
was lost.

A client in a process of its own writes and reads at a steady rate, everything with certificates. Meanwhile members are
killed, paused, stopped and started, replaced by new ones; leadership is handed over, snapshots are taken. One member is
spared the worst, so that its process is as old as all of this. Every ten seconds a look is taken at every process.
`--leak` puts a leak in, to see it found: `machine` keeps every command, `files` forgets a file at every look.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from processes import Proc
from scale import proc, report

from soak.bare import Bare
from soak.cluster import WITNESS, Members, Nemesis
from soak.verdict import Sample, verdict

if TYPE_CHECKING:
    from collections.abc import Generator

LEAKS = ("none", "machine", "files")
EVERY_SECONDS = 10.0
LANES = 8
_ENDED_SECONDS = 300.0
_TOLD_EVERY = 6


@contextmanager
def worker(members: Members, rate: float) -> Generator[Proc]:
    """The load."""
    told = {"authority": str(members.authority), "endpoints": list(members.members.values()), "lanes": LANES,
            "rate": rate}  # fmt: skip
    found = Proc("client", told, members.directory / "client.log", (sys.executable, "-m", "soak.worker"))
    try:
        found.started.value()
        found.call("work")
        yield found
    finally:
        found.kill()
        found.reap()


def looked(members: Members, client: Proc, nemesis: Nemesis, bare: Bare, since: float) -> Sample:
    """One look at everything."""
    pids = {id_: one.pid for id_, one in list(members.procs.items()) if one.running}
    resident: dict[str, float] = {}
    disks: dict[str, float] = {}
    for id_, pid in pids.items():
        try:
            resident[id_] = proc.resident(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it was killed meanwhile
        disks[id_] = proc.disk(members.home(id_) / "data")
    load: dict[str, Any] = client.call("sample")
    bare_ms = bare.ms()
    witness = pids[WITNESS]
    sample: Sample = {
        "seconds": time.monotonic() - since,
        "witness.mib": resident[WITNESS],
        "members.mib": statistics.median(resident.values()),
        "client.mib": proc.resident(client.pid),
        "witness.disk": disks[WITNESS],
        "disk.max": max(disks.values()),
        "bare_ms": bare_ms,
        "p50.bare": load["p50_ms"] / bare_ms if load["p50_ms"] else None,
        "p99.bare": load["p99_ms"] / bare_ms if load["p99_ms"] else None,
        "faults": dict(nemesis.done),
        **load,
    }
    for name, pid in (("witness", witness), ("client", client.pid)):
        sample |= {f"{name}.files": proc.files(pid), f"{name}.threads": proc.threads(pid)}
    return sample


def watched(members: Members, client: Proc, nemesis: Nemesis, seconds: float, file: TextIO) -> list[Sample]:
    """Looks at everything until the time is over, or something has gone wrong."""
    samples: list[Sample] = []
    begun = time.monotonic()
    with Bare(members.directory) as bare:
        while time.monotonic() - begun < seconds and nemesis.failure is None and client.running:
            time.sleep(EVERY_SECONDS)
            sample = looked(members, client, nemesis, bare, begun)
            samples.append(sample)
            # A paused one hears it later.
            members[WITNESS].send("sampled")
            print(json.dumps(sample), file=file, flush=True)
            if len(samples) % _TOLD_EVERY == 0:
                print(_line(sample), file=sys.stderr, flush=True)
            if sample["wrong"]:
                break
    return samples


def _line(sample: Sample) -> str:
    return (
        f"{sample['seconds']:6.0f} s: {sample['writes']} writes, p50 {sample['p50_ms'] or 0:.1f} ms, "
        f"{sample['witness.mib']:.0f} MiB, {sample['witness.files']} files, {sample['witness.threads']} threads, "
        f"{sample['disk.max']:.0f} MiB of disk, {sum(sample['faults'].values())} faults"
    )


def main() -> int:
    """Runs, and says what it came to."""
    told = _arguments()
    seconds = told.minutes * 60 if told.minutes else told.hours * 3600
    told.samples.parent.mkdir(parents=True, exist_ok=True)
    print(f"seed {told.seed}, {seconds / 60:.0f} minutes, {told.rate:g} calls a second, leak: {told.leak}", flush=True)
    with (
        tempfile.TemporaryDirectory(dir=told.directory, prefix="graft-soak-") as directory,
        Members(Path(directory) / "soak", told.leak) as members,
        worker(members, told.rate) as client,
        told.samples.open("w") as file,
    ):
        nemesis = Nemesis(members, told.seed)
        nemesis.start()
        samples = watched(members, client, nemesis, seconds, file)
        nemesis.end()
        ended: dict[str, Any] = client.send("end").value(_ENDED_SECONDS)
        members.converged()
        ended["agree"] = members[members.leader()].send("agree").value(_ENDED_SECONDS)
    findings = verdict(samples, ended)
    about = {"seconds": samples[-1]["seconds"], "seed": told.seed, "leak": told.leak, "faults": dict(nemesis.done),
             "samples": str(told.samples)}  # fmt: skip
    report.keep(told.json, findings, about)
    print(report.table(findings))
    print("faults: " + ", ".join(f"{number} {name}" for name, number in sorted(nemesis.done.items())))
    bad = [one.what for one in findings if one.met is False]
    print(f"NOT STEADY: {'; '.join(bad)}" if bad else f"steady, for {samples[-1]['seconds'] / 60:.0f} minutes")
    return 1 if bad else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, help="in place of hours; less than five tell nothing")
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second")
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    parser.add_argument("--leak", choices=LEAKS, default="none", help="puts one in")
    parser.add_argument("--directory", type=Path, default=Path("target"), help="where the disk is that is written to")
    parser.add_argument("--samples", type=Path, default=Path("target/soak.jsonl"), help="each look, a line")
    parser.add_argument("--json", type=Path, default=Path("target/soak.json"), help="the verdict")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
