"""Rows of measurements as tables of ratios, for `bench.py`. A ratio is one of two figures of the same round."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Found = dict[int, Row]
"""What was measured at one place, by round."""

TITLES = {
    "depths": "Commands by how many are in flight",
    "reads": "Reads by consistency",
    "mixed": "Nine linearizable reads to a command",
    "tls": "With certificates, over the same without",
    "members": "Commands by the number of members",
    "sizes": "Commands by their size",
    "python": "Machines in Python",
}
BEGIN, END = "<!-- written by make bench-docs: begin -->", "<!-- written by make bench-docs: end -->"
# Over what a subject computes that it wrote, what the device got must lie within these to be believed of others.
BELIEVED = (0.95, 1.1)


def spread(values: list[float], form: str = ".2f") -> str:
    """The median, and the extremes if there are several."""
    if not values:
        return ""
    middle = format(statistics.median(values), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}-{max(values):{form}})"


def short(value: float) -> str:
    """A ratio, with as many digits as say something."""
    return format(value, ".0f" if value >= 20 else ".1f" if value >= 5 else ".2f" if value >= 0.02 else ".4f")


def spread_short(values: list[float]) -> str:
    """Of ratios."""
    if len(values) < 2:
        return "".join(map(short, values))
    return f"{short(statistics.median(values))} ({short(min(values))}-{short(max(values))})"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """In Markdown; a column without a word is left out."""
    columns = [n for n in range(len(heads)) if n == 0 or any(row[n] for row in rows)]
    lines = [[row[n] for n in columns] for row in [heads, *rows]]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
            for line in lines]  # fmt: skip
    return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])


def by_place(rows: list[Row], *names: str) -> dict[tuple[Any, ...], Found]:
    """The rows of each combination of these columns."""
    places: dict[tuple[Any, ...], Found] = defaultdict(dict)
    for row in rows:
        places[tuple(row.get(name) for name in names)][row["round"]] = row
    return places


def ratios(ours: Found, theirs: Found, column: str) -> list[float]:
    """Within each round."""
    return [ours[n][column] / theirs[n][column] for n in ours if n in theirs and theirs[n][column]]


def values(found: Found, column: str) -> list[float]:
    """Where it was measured."""
    return [row[column] for row in found.values() if row.get(column) is not None]


def written_is_believed(at_place: dict[str, Found]) -> bool:
    """Whether the device got, of those who can compute it, what they wrote: if so, nobody else wrote much."""
    told = [statistics.median(row.get("written_bytes", 0) / row["counted_bytes"] for row in at_place[subject].values())
            for subject in (SYNC, "floor") if at_place.get(subject)]  # fmt: skip
    return bool(told) and BELIEVED[0] <= min(told) and max(told) <= BELIEVED[1]


def bounds(sync: Found, call: Found) -> Found:
    """What a command alone cannot be faster than: one sync and one call."""
    return {n: {"p50_us": sync[n]["p50_us"] + call[n]["p50_us"]} for n in sync if n in call}


@dataclass(frozen=True)
class Part:
    """The rows of one part, to be looked up."""

    places: dict[tuple[Any, ...], Found]

    def other(self, subject: str, kind: str, rest: list[Any]) -> Found:
        """Another subject at the same place. What one subject does not know is compared with what comes nearest."""
        if subject in LIMITS:
            kind = "command"
        elif kind == "lease" and subject == "etcd":
            kind = "linearizable"
        return self.places.get((subject, kind, *rest), {})

    def written(self, kind: str, rest: list[Any], found: Found) -> str:
        """Bytes, where they are to be believed."""
        at_place = {subject: self.other(subject, "command", rest) for subject in (SYNC, "floor")}
        believed = kind in WRITING and values(found, "syncs") and written_is_believed(at_place)
        return spread(values(found, "written_bytes"), ".0f") if believed else ""


SYNC, SYNCS, ECHO, CALL = "write and sync", "write and sync, all members at once", "gRPC echo", "gRPC call"
LIMITS = (SYNC, SYNCS, ECHO, CALL)
WRITING = ("command", "mixed")
SET = ["members", "bytes", "in flight"]
FOUND = ["per s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs", "syncs", "written B", "RSS MiB"]
BESIDE = [
    "x floor",
    "x etcd",
    "p50 x etcd",
    "CPU x etcd",
    "x sync",
    "x echo",
    "p50 x sync + call",
    "p50 x syncs + call",
]


def of_cluster(rows: list[Row]) -> str:
    """Throughput, latency and cost of one part, beside limits and etcd. What is the same all over is said once."""
    part = Part(by_place(rows, "subject", "kind", "members", "bytes", "depth"))
    same = [len({place[2 + n] for place in part.places}) == 1 for n in range(len(SET))]
    lines = [[*_set_and_found(part, place, found, same), *_beside(part, place, found)]
             for place, found in part.places.items()]  # fmt: skip
    first = next(iter(part.places))
    said = "; ".join(f"{name}: {first[2 + n]}" for n, name in enumerate(SET) if same[n])
    return f"{said}\n\n{table(['', *SET, *FOUND, *BESIDE], lines)}".lstrip()


def _times(found: Found) -> list[str]:
    whole = [spread(values(found, column), ".0f") for column in ("rate", "p50_us", "p99_us", "p999_us")]
    return [*whole, spread_short(values(found, "cpu_us"))]


def _set_and_found(part: Part, place: tuple[Any, ...], found: Found, same: list[bool]) -> list[str]:
    subject, kind, *rest = place
    name = subject if kind == "command" else f"{subject}: {kind}"
    syncs = spread_short(values(found, "syncs")) if kind in WRITING else ""
    shown = ["" if alike else str(value) for value, alike in zip(rest, same, strict=True)]
    return [
        name,
        *shown,
        *_times(found),
        syncs,
        part.written(kind, rest, found),
        spread(values(found, "rss_mib"), ".0f"),
    ]


def _beside(part: Part, place: tuple[Any, ...], found: Found) -> list[str]:
    subject, kind, *rest = place
    if subject in LIMITS:
        return [""] * len(BESIDE)
    floor, etcd, sync, syncs, echo, call = (part.other(name, kind, rest) for name in ("floor", "etcd", *LIMITS))
    beside = [spread_short(ratios(found, floor, "rate"))]
    beside += [spread_short(ratios(found, etcd, column)) for column in ("rate", "p50_us", "cpu_us")]
    beside += [spread_short(ratios(found, limit, "rate")) for limit in (sync, echo)]
    is_alone = kind == "command" and rest[-1] == 1
    limits = [bounds(one, call) if is_alone else {} for one in (sync, syncs)]
    return [*beside, *(spread_short(ratios(found, limit, "p50_us")) for limit in limits)]


def of_tls(rows: list[Row]) -> str:
    """What encryption and proofs of identity cost."""
    clusters = by_place([row for row in rows if "subject" in row], "subject", "kind", "members", "bytes", "depth")
    machines = by_place([row for row in rows if "machine" in row], "machine", "how", "depth", "tls")
    pairs: list[tuple[list[str], Found, Found]] = []
    for (subject, kind, *rest), found in clusters.items():
        plain = clusters.get((subject.removesuffix(", TLS"), kind, *rest))
        if subject.endswith(", TLS") and plain:
            pairs.append(([f"{subject.removesuffix(', TLS')}: {kind}", str(rest[-1])], found, plain))
    for (machine, how, depth, tls), found in machines.items():
        plain = machines.get((machine, how, depth, False))
        if tls and plain:
            pairs.append(([f"Python, {machine}, {how}", str(depth)], found, plain))
    columns = [("rate", "per s"), ("p50_us", "p50"), ("p99_us", "p99"), ("cpu_us", "CPU"), ("rss_mib", "RSS")]
    heads = ["", "in flight", *(f"{name}, x plain" for _, name in columns)]
    return table(heads, [[*names, *(spread_short(ratios(found, plain, column)) for column, _ in columns)]
                         for names, found, plain in pairs])  # fmt: skip


PEERS = ["etcd", "PySyncObj", "PySyncObj, tuned"]


def of_python(rows: list[Row]) -> str:
    """Machines in Python, beside the one in Rust, what Python has otherwise, and the interpreter alone."""
    rust = by_place([row for row in rows if row.get("subject") == "graft, on the leader"], "depth")
    peers = by_place([row for row in rows if "peer" in row], "peer", "depth")
    machines = by_place([row for row in rows if "machine" in row], "machine", "how", "depth")
    lines: list[list[str]] = []
    for (machine, how, depth), found in machines.items():
        if how == "bare":
            continue
        near = min(depth, 64)
        bare = next((one for (name, kind, _), one in machines.items() if name == machine and kind == "bare"), {})
        others = [rust.get((depth,), {}), *(peers.get((peer, near), {}) for peer in PEERS), bare]
        beside = [spread_short(ratios(found, other, "rate")) for other in others]
        lines.append([f"{machine}, {how}", *_python_cells(depth, found), *beside])
    none = [""] * (2 + len(PEERS))
    lines += [[f"{peer}, threads", *_python_cells(depth, found), *none] for (peer, depth), found in peers.items()]
    # How long a thousand of them took says nothing of one.
    lines += [[f"{machine}, the interpreter alone", "", spread(values(found, "rate"), ".0f"), *[""] * 6, *none]
              for (machine, how, _), found in machines.items() if how == "bare"]  # fmt: skip
    lines += [["Rust machine", *_python_cells(depth, found), *none] for (depth,), found in rust.items()]
    heads = ["machine, calls", "in flight", "per s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs", "syncs", "RSS MiB"]
    return table([*heads, "x Rust", *(f"x {peer}" for peer in PEERS), "x interpreter"], lines)


def _python_cells(depth: int, found: Found) -> list[str]:
    syncs = spread_short(values(found, "syncs"))
    return [str(depth), *_times(found), syncs, spread(values(found, "rss_mib"), ".0f")]


def of_part(part: str, rows: list[Row]) -> str:
    """The table of a part's rows."""
    form = {"tls": of_tls, "python": of_python}.get(part, of_cluster)
    return form(rows)


def document(about: dict[str, Any], rows: list[Row]) -> str:
    """All tables, with what they were measured on."""
    said = f"{about['machine']}; {about['peers']}. {about['when']}, load before it {about['load']}.\n"
    said += f"Built with the profile `{about['profile']}`. Rounds: {about['rounds']}, of {about['seconds']} s a line; "
    said += "median (least-most)."
    parts = list(dict.fromkeys(row["part"] for row in rows))
    tables = [f"### {TITLES[part]}\n\n{of_part(part, [row for row in rows if row['part'] == part])}" for part in parts]
    return "\n\n".join([said, *tables])


def into(text: str, written: str) -> str:
    """The text with that between its marks."""
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        msg = f"there is no place for tables: it begins with {BEGIN} and ends with {END}"
        raise ValueError(msg)
    return f"{before}{BEGIN}\n\n{written}\n\n{END}{after}"
