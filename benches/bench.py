"""Graft beside its limits and its peers, in one run, on this machine: `make bench`, or `make bench QUICK=1`.

Everything runs in real processes on loopback, three members each, durable. Rounds are interleaved: what counts are the
ratios within a round, of which the median and the extremes are shown. `--json FILE` keeps every measurement, `--plot
FILE` draws the throughput over the depth.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import python_peers

HERE = Path(__file__).parent
Row = dict[str, Any]


def cluster(options: argparse.Namespace, *more: str) -> list[Row]:
    """What the program in Rust measured."""
    command = ["cargo", "bench", "--quiet", "--locked", "--profile", options.profile, "--bench", "cluster", "--"]
    command += ["--rounds", str(options.rounds), "--seconds", str(options.seconds), *more]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


# How, at which depth: as a user would call from Python.
PYTHON = [("sequential", 1), ("threads", 8), ("asyncio", 64), ("many", 1024)]


def from_python(options: argparse.Namespace) -> list[Row]:
    """Machines in Python, called in the leader's process; and the peers that Python has."""
    rows: list[Row] = []
    for machine in ("nothing", "words"):
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(dir="target"))
            ports = python_peers.free_ports(3)
            named = [f"n{n + 1}=127.0.0.1:{port}" for n, port in enumerate(ports)]
            members = []
            for n in range(3):
                command = [sys.executable, str(HERE / "python_member.py"), machine, f"n{n + 1}", directory, *named]
                member = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                stack.callback(member.wait)
                stack.callback(member.kill)
                members.append(member)
            roles = [member.stdout.readline().strip() if member.stdout else "" for member in members]
            leader = members[roles.index("leader")]
            assert leader.stdin
            assert leader.stdout
            for number in range(options.rounds):
                for how, depth in PYTHON:
                    load = {"how": how, "depth": depth, "seconds": options.seconds, "bytes": 128}
                    print(json.dumps(load), file=leader.stdin, flush=True)
                    row = json.loads(leader.stdout.readline())
                    rows.append({"machine": machine, "how": how, "depth": depth, "round": number, **row})
    depths = [1, 8, 64]
    for number in range(options.rounds):
        for peer in (python_peers.etcd, python_peers.pysyncobj):
            found = peer(depths, options.seconds, 128)
            rows.extend({"peer": peer.__name__, "depth": d, "round": number, "rate": r} for d, r in found.items())
    return rows


def spread(values: list[float], form: str = ".2f") -> str:
    """The median, and the extremes if there are several."""
    if not values:
        return "-"
    middle = format(statistics.median(values), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}-{max(values):{form}})"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """In Markdown."""
    widths = [max(len(row[n]) for row in [heads, *rows]) for n in range(len(heads))]
    line = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"  # noqa: E731
    return "\n".join([line(heads), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])


def by_place(rows: list[Row], *names: str) -> dict[tuple[Any, ...], dict[int, Row]]:
    """The rows of each combination of these columns, by round."""
    places: dict[tuple[Any, ...], dict[int, Row]] = defaultdict(dict)
    for row in rows:
        places[tuple(row.get(name) for name in names)][row["round"]] = row
    return places


def ratios(ours: dict[int, Row], theirs: dict[int, Row], column: str) -> list[float]:
    """Within each round."""
    return [ours[n][column] / theirs[n][column] for n in ours if n in theirs and theirs[n][column]]


def of_clusters(rows: list[Row]) -> str:
    """Throughput, latency and cost, beside the floor and etcd."""
    limits = by_place([row for row in rows if "limit" in row], "limit")
    places = by_place([row for row in rows if "subject" in row], "subject", "kind", "members", "bytes", "depth")
    heads = ["", "members", "bytes", "in flight", "per s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs"]
    heads += ["x floor", "x etcd", "p50 x limits"]
    lines = []
    for (subject, kind, members, size, depth), found in places.items():

        def column(name: str, form: str = ".0f", found: dict[int, Row] = found) -> str:
            return spread([row[name] for row in found.values()], form)

        floor = places.get(("floor", kind, members, size, depth), {})
        etcd = places.get(("etcd", "command" if kind == "command" else "linearizable", members, size, depth), {})
        parts = [limits.get((name,), {}) for name in ("fdatasync", "grpc echo")]
        bound = {n: {"p50_us": sum(part[n]["p50_us"] for part in parts)} for n in found if all(n in p for p in parts)}
        near = spread(ratios(found, bound, "p50_us")) if kind == "command" and depth == 1 else ""
        lines.append([
            f"{subject}: {kind}", str(members), str(size), str(depth), column("rate"), column("p50_us"),
            column("p99_us"), column("p999_us"), column("cpu_us", form=".1f"), spread(ratios(found, floor, "rate")),
            spread(ratios(found, etcd, "rate")), near,
        ])  # fmt: skip
    return table(heads, lines)


def of_tls(rows: list[Row]) -> str:
    """What encryption and proofs of identity cost."""
    places = by_place([row for row in rows if "subject" in row], "subject", "kind", "members", "bytes", "depth")
    lines = []
    for (subject, *rest), found in places.items():
        plain = places.get((subject.removesuffix(", TLS"), *rest))
        if subject.endswith(", TLS") and plain:
            kind, members, size, depth = map(str, rest)
            share = spread(ratios(found, plain, "rate"))
            cost = spread(ratios(found, plain, "cpu_us"))
            lines.append([f"{subject}: {kind}", members, size, depth, share, cost])
    return table(["", "members", "bytes", "in flight", "per s, x plain", "CPU, x plain"], lines)


def of_python(rows: list[Row]) -> str:
    """Machines in Python, beside what Python has otherwise."""
    peers = by_place([row for row in rows if "peer" in row], "peer", "depth")
    places = by_place([row for row in rows if "machine" in row], "machine", "how", "depth")
    lines = []
    for (machine, how, depth), found in places.items():
        near = min(depth, 64)
        beside = [spread(ratios(found, peers.get((peer, near), {}), "rate"), ".1f") for peer in ("etcd", "pysyncobj")]
        rates, middles = [row["rate"] for row in found.values()], [row["us"][0] for row in found.values()]
        lines.append([f"{machine}, {how}", str(depth), spread(rates, ".0f"), spread(middles, ".0f"), *beside])
    lines += [
        [f"{peer} from Python, threads", str(depth), spread([row["rate"] for row in found.values()], ".0f"), "", "", ""]
        for (peer, depth), found in peers.items()
    ]
    return table(["machine, calls", "in flight", "per s", "p50 µs", "x etcd", "x PySyncObj"], lines)


def plot(rows: list[Row], path: str) -> None:
    """Throughput over the depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    lines: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.get("kind") == "command":
            lines[row["subject"]][row["depth"]].append(row["rate"])
    for name, points in lines.items():
        axes.plot(list(points), [statistics.median(rates) for rates in points.values()], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="commands in flight", ylabel="commands per second")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def machine() -> str:
    """What this was measured on."""
    cpu = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({cpu[0] if cpu else platform.machine()}), {system}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--profile", default="quick", help="of cargo, for the program in Rust")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--json", help="keep every measurement in this file")
    parser.add_argument("--plot", help="draw the throughput into this file")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.seconds = options.seconds or (0.7 if options.quick else 2)
    rows = cluster(options)
    if not options.quick:
        for members in ("5", "7"):
            rows += cluster(options, "--members", members, "--subjects", "bare,graft,etcd", "--depths", "64,256")
        for size in ("1024", "65536", "1048576"):
            rows += cluster(options, "--bytes", size, "--subjects", "bare,graft,etcd", "--depths", "1,16")
    print(f"\nOn {machine()}. {options.rounds} rounds of {options.seconds} s: median (least-most).\n")
    print(of_clusters(rows), "\n")
    print(of_tls(rows), "\n")
    python = from_python(options)
    print(of_python(python))
    if options.json:
        Path(options.json).write_text("\n".join(map(json.dumps, rows + python)) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
