"""Whether a long log, open sessions or watchers cost those who write: clusters with and without, side by side."""

from __future__ import annotations

import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from processes import Proc

from scale import proc as of
from scale.cluster import KEEPING, Members, asked
from scale.report import Finding, bounds, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

SIZE = 128
# A ratio within this is nothing, however sure it is; and one of which no more is known than this is not known.
NOTHING, UNSURE = 0.03, 0.15

Load: TypeAlias = "Callable[[Members, Path], AbstractContextManager[str]]"


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    entries: int
    sessions: int
    watchers: int
    rounds: int
    seconds: float


@contextmanager
def entries(number: int, members: Members, _: Path) -> Generator[str]:
    """A log of so many entries that nothing has been cut from."""
    begun = asked(members.leading, "fill", entries=number, size=32)
    yield f"a log of {begun} entries"


def varint(number: int) -> bytes:
    """As protobuf writes numbers."""
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])


def field(number: int, data: bytes) -> bytes:
    """Bytes as a field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


@contextmanager
def sessions(number: int, members: Members, _: Path) -> Generator[str]:
    """So many sessions, opened as any program may over gRPC, each with a command whose answer is kept."""
    import grpc

    with grpc.insecure_channel(members.members[members.leader()]) as channel:
        opening = channel.unary_unary("/graft.v1.Client/OpenSession", None, None)
        executing = channel.unary_unary("/graft.v1.Client/Execute", None, None)

        def one(_: int) -> None:
            # The answer has the session in its first field, a number: what a slot begins with as well.
            opened = opening(b"", timeout=60)
            at = next(n for n in range(1, len(opened)) if opened[n] < 128) + 1
            slot = opened[:at] + bytes([2 << 3, 1, 3 << 3, 1])
            executing(field(1, b"bell".ljust(32)) + field(2, slot), timeout=60)

        with ThreadPoolExecutor(64) as pool:
            done = sum(1 for _ in pool.map(one, range(number)))
    yield f"{done} sessions"


@contextmanager
def watchers(number: int, members: Members, directory: Path) -> Generator[str]:
    """So many watchers of what is not written, in a process of their own; each is seen to hear what it watches."""
    told = {"endpoints": members.addresses, "number": number}
    proc = Proc("watchers", told, directory / "watchers.log", (sys.executable, "-m", "scale.watching"))
    try:
        proc.started.value()
        yield f"{asked(proc, 'hear')} watchers"
    finally:
        proc.kill()
        proc.reap()


def nothing(_: Members, __: Path) -> AbstractContextManager[str]:
    """No load at all: what two clusters that are alike differ by."""
    return nullcontext("the same once more")


def measured(directory: Path, plan: Plan) -> Iterator[Finding]:
    """One load after the other. The first is none, and shows what the noise is."""
    loads: list[tuple[str, Load]] = [
        ("nothing", nothing),
        ("entries", lambda members, home: entries(plan.entries, members, home)),
        ("sessions", lambda members, home: sessions(plan.sessions, members, home)),
        ("watchers", lambda members, home: watchers(plan.watchers, members, home)),
    ]
    for name, load in loads:
        home = directory / name
        machine = "bells" if name == "watchers" else "nothing"
        with (
            Members(home / "plain", machine=machine, **KEEPING) as plain,
            Members(home / "laden", machine=machine, **KEEPING) as laden,
            load(laden, home) as words,
        ):
            yield from _compared(name, words, plain, laden, plan)


def _compared(name: str, words: str, plain: Members, laden: Members, plan: Plan) -> Iterator[Finding]:
    rounds: list[dict[str, dict[str, Any]]] = []
    pair = {"plain": plain.leading, "laden": laden.leading}
    for number in range(-1, plan.rounds):
        found: dict[str, dict[str, Any]] = {"plain": {}, "laden": {}}
        for how in ("alone", "many"):
            # Neither is always the second.
            for which in sorted(pair, reverse=number % 2 == 0):
                found[which][how] = asked(pair[which], how, seconds=plan.seconds, size=SIZE)
        if number >= 0:  # the first round warms up
            rounds.append(found)
    memory = {which: statistics.median(of.resident(one.pid) for one in members.procs.values())
              for which, members in (("plain", plain), ("laden", laden))}  # fmt: skip
    figures = {"rounds": rounds, "mib": memory}
    for how, column, what in (
        ("many", "rate", "throughput, 1024 at once"),
        ("alone", "p50", "median time of one alone"),
    ):
        ratios = [one["laden"][how][column] / one["plain"][how][column] for one in rounds]
        low, high = bounds(ratios)
        # Worse is less of a rate, and more of a time.
        best, worst = (high, low) if column == "rate" else (1 / low, 1 / high)
        unclear = best >= 1 - NOTHING and worst < 1 - UNSURE
        yield Finding(
            "writing",
            f"{words}: {what}, over without",
            "1.00, or nothing measurable" if name != "nothing" else "(the noise)",
            f"{spread(ratios)}, median within {low:.2f}-{high:.2f}{'; too noisy to tell' if unclear else ''}",
            None if name == "nothing" or unclear else best >= 1 - NOTHING,
            {**figures, "ratios": ratios},
        )
