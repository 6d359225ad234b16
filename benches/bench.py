"""Graft beside its limits and its peers, in one run, on this machine: `make bench`, or `make bench QUICK=1`.

Everything runs in real processes on loopback, durable. Rounds are interleaved: what counts are the ratios within a
round, of which the median and the extremes are shown. `--json FILE` keeps every measurement, `--plot FILE` draws the
throughput over the depth, `--table FILE` writes the tables of such a file into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import bench_python
import bench_tables

Row = dict[str, Any]
DOCS = Path("docs/performance.md")
PARTS = tuple(bench_tables.TITLES)
LIMITS = "sync,echo"
MODULE = Path("target/bench-python").absolute()
"""Where the module for Python lies, in the way of nothing else."""


def built(profile: str, module: Path) -> str:
    """The program in Rust, and the module for Python, put there. One build makes both, so that all that they depend on
    is built once; an interpreter is not linked to the module and not reached from the program."""
    command = ["cargo", "bench", "--locked", "--package", "graft", "--profile", profile, "--features", "python"]
    command += ["--bench", "cluster", "--no-run", "--message-format", "json-render-diagnostics"]
    about = {"PYO3_BUILD_EXTENSION_MODULE": "1", "PYO3_PYTHON": sys.executable}
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **about})
    made = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    of = {one["target"]["name"]: one for one in made if one["reason"] == "compiler-artifact"}
    (library,) = (name for name in of["graft"]["filenames"] if name.endswith(".so"))
    shutil.rmtree(module, ignore_errors=True)
    shutil.copytree("python/graft", module / "graft", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(library, module / "graft" / "_graft.abi3.so")
    return str(of["cluster"]["executable"])


class Bench:
    """A run, with a directory for all that it writes, which goes with it."""

    def __init__(self, options: argparse.Namespace, program: str, home: Path) -> None:
        self.program = program
        self.quick: bool = options.quick
        self.rounds: int = options.rounds or (1 if options.quick else 5)
        self.seconds: float = options.seconds or (0.3 if options.quick else 0.5)
        self.home = home

    def cluster(self, *arguments: str, rounds: int | None = None) -> list[Row]:
        """What the program in Rust measured, with these arguments."""
        command = [self.program, "--directory", str(self.home), "--seconds", str(self.seconds)]
        command += ["--rounds", str(rounds or self.rounds), *arguments]
        # In a group of its own: what it started goes with it, however this ends.
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)
        try:
            lines = child.communicate()[0].splitlines()
            if child.returncode:
                raise subprocess.CalledProcessError(child.returncode, command)
        finally:
            _end_group(child)
        return [json.loads(line) for line in lines if line.startswith("{")]

    def measured(self, part: str) -> list[Row]:
        """The rows of a part."""
        command, reads = ("--kinds", "command"), ("--kinds", "linearizable,lease,stale")
        few = ("--depths", "64" if self.quick else "1,64,256")
        if part == "depths":
            return self.cluster(*command, "--subjects", f"{LIMITS},syncs,call,bare,graft,follower,remote,etcd")
        if part == "reads":
            return self.cluster(*reads, "--subjects", "echo,graft,follower,remote,etcd",
                                "--depths", "64" if self.quick else "1,64,1024")  # fmt: skip
        if part == "mixed":
            return self.cluster("--kinds", "mixed", "--subjects", f"{LIMITS},graft,follower,remote,etcd", *few)
        if part == "tls":
            both = self.cluster("--kinds", "command,linearizable", "--subjects", "graft,remote,tls,tls-remote", *few)
            return both + self.from_python(tls=True)
        if part == "members":
            each = [self.cluster(*command, "--subjects", f"{LIMITS},bare,graft,etcd", "--members", members, *few)
                    for members in ("3", "5", "7")]  # fmt: skip
            return [row for rows in each for row in rows]
        if part == "sizes":
            depths = ("--depths", "16" if self.quick else "1,16")
            sizes = ("--bytes", "100,1024,65536,1048576")
            return self.cluster(*command, "--subjects", f"{LIMITS},bare,graft,remote,etcd", *sizes, *depths)
        return self.from_python(tls=False)

    def from_python(self, *, tls: bool) -> list[Row]:
        """With and without certificates, or beside all that machines in Python are held against."""
        rows: list[Row] = []
        for number in range(self.rounds):
            if tls:
                for one in (False, True):
                    rows += bench_python.members("nothing", self.home, self.seconds, number, tls=one)
                continue
            rust = self.cluster("--kinds", "command", "--subjects", "graft", "--depths", "1,8,64,1024", rounds=1)
            rows += [{**row, "round": number} for row in rust]
            rows += bench_python.one_round(self.home, self.seconds, number)
        return rows


def _end_group(child: subprocess.Popen[str]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.wait()


def plot(rows: list[Row], path: str) -> None:
    """Throughput over the depth."""
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    lines: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["part"] == "depths":
            lines[row["subject"]][row["depth"]].append(row["rate"])
    for name, points in lines.items():
        axes.plot(list(points), [statistics.median(rates) for rates in points.values()], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="commands in flight", ylabel="commands per second")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def machine() -> str:
    """What this is measured on."""
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    # Behind the number stands who built it.
    number, _, _ = platform.release().partition("-")
    system = f"Linux {number}, CPython {platform.python_version()}"
    return f"{os.cpu_count()} cores ({names[0] if names else platform.machine()}), {memory:.0f} GiB, {system}"


def peers() -> str:
    """What is there of those that Graft is held against."""
    found: list[str] = []
    if shutil.which("etcd"):
        lines = subprocess.run(["etcd", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        found += [f"etcd {line.rpartition(' ')[2]}" for line in lines if line.startswith("etcd Version")]
    for name in ("PySyncObj", "grpcio"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    """Measures what it is told to, or writes the tables of what was measured."""
    options = _arguments()
    if options.table:
        kept = json.loads(options.table.read_text())
        text = options.docs.read_text()
        options.docs.write_text(bench_tables.into(text, bench_tables.document(kept["about"], kept["rows"])))
        return
    # So that all that was begun is ended when this is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    program = built(options.profile, MODULE)
    # For this process and for those that it starts.
    sys.path.insert(0, str(MODULE))
    os.environ["PYTHONPATH"] = str(MODULE)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir="target", prefix="bench-") as home:
        bench = Bench(options, program, Path(home))
        about = {"machine": machine(), "peers": peers(), "when": time.strftime("%Y-%m-%d"),
                 "load": f"{os.getloadavg()[0]:.1f}", "profile": options.profile,
                 "rounds": bench.rounds, "seconds": bench.seconds}  # fmt: skip
        for part in options.parts:
            begun = time.monotonic()
            rows += [{"part": part, **row} for row in bench.measured(part)]
            print(f"{part}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    print(bench_tables.document(about, rows))
    if options.json:
        Path(options.json).write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    if options.plot and "depths" in options.parts:
        plot(rows, options.plot)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--profile", default="quick", help="of cargo, for what is built")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--json", help="keep every measurement in this file")
    parser.add_argument("--plot", help="draw the throughput into this file")
    parser.add_argument("--table", type=Path, help="measure nothing: write the tables of this JSON into the docs")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where they are written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
