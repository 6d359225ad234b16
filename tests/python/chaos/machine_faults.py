"""Faults of what a process runs on: its disk, its power, its clock."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from processes import Died, Proc, until

from chaos.harm import Fault, Harm
from chaos.tracing import Trace, is_traced

if TYPE_CHECKING:
    from chaos.nemesis import Nemesis

# A log is given room in steps of a mebibyte: so much does not go into what it has.
_BALLAST_BYTES = 600_000
_BALLAST_CALLS = 3
_BALLAST_SECONDS = 1.0
_FULL_SECONDS = (1.0, 2.0)
_ERROR_SECONDS = (1.0, 2.0)
_JUMP_SECONDS = (1.5, 3.0)
_JUMPS = (-3600.0, -5.0, 5.0, 3600.0)
# The call, its error, and whether the node must stop itself: one that may have lost something that it said is kept.
_ERRORS = (
    ("fdatasync", "EIO", True),
    ("fdatasync", "ENOSPC", True),
    ("pwrite64", "EIO", True),
    ("pwrite64", "ENOSPC", False),
)
_ERROR_AFTER_MAX = 20
_LOG = "/log-"
_STOPS_SECONDS = 10.0


def _power(nemesis: Nemesis, *ids: str | None) -> Harm | None:
    chosen = sorted({id_ for id_ in ids if id_ is not None})
    if not chosen:
        return None
    harm = nemesis.harm()
    disks = [nemesis.members.disks[id_] for id_ in chosen]
    for disk in disks:
        if nemesis.luck.random() < 0.5:
            disk.write_some(nemesis.luck)
    for disk in disks:
        disk.cut()
    nemesis.members.kill(*chosen)
    harm.down = set(chosen)

    def powered() -> None:
        for disk in disks:
            disk.unmount()
            disk.mount()

    harm.undo = powered
    return harm


def power_leader(nemesis: Nemesis) -> Harm | None:
    """The leader's power is cut: what it did not sync is gone."""
    return _power(nemesis, nemesis.leader())


def power_one(nemesis: Nemesis) -> Harm | None:
    """Anybody's."""
    return _power(nemesis, nemesis.some(nemesis.awake()))


def power_all(nemesis: Nemesis) -> Harm | None:
    """That of all at once."""
    return _power(nemesis, *nemesis.awake())


def disk_full(nemesis: Nemesis) -> Harm | None:
    """A member, often the leader, has no room on its disk, and more to write than fits into its log."""
    leader = nemesis.leader()
    chosen = leader if nemesis.luck.random() < 0.5 else nemesis.some(nemesis.awake())
    if leader is None or chosen is None:
        return None
    harm = nemesis.harm(_FULL_SECONDS)
    disk = nemesis.members.disks[chosen]
    disk.fill()
    send = nemesis.members[leader].send
    for _ in range(_BALLAST_CALLS):
        # Nobody waits for the answers: the leader may be paused by then.
        send("ballast", size=_BALLAST_BYTES, seconds=_BALLAST_SECONDS)
    harm.undo = disk.free
    return harm


def disk_error(nemesis: Nemesis) -> Harm | None:
    """A write or a sync of a member, often the leader, fails."""
    chosen = nemesis.leader() if nemesis.luck.random() < 0.5 else nemesis.some(nemesis.awake())
    if chosen is None or is_traced(nemesis.members[chosen].pid):
        return None
    harm = nemesis.harm(_ERROR_SECONDS)
    call, error, stops = nemesis.luck.choice(_ERRORS)
    members, proc = nemesis.members, nemesis.members[chosen]
    # A full disk stays full; another error is over at once, and the node must stop all the same.
    after = nemesis.luck.randint(1, _ERROR_AFTER_MAX)
    trace = Trace(proc.pid, call, error, f"{after}" if stops else f"{after}+", members.directory / f"{chosen}.trace")

    def ended() -> None:
        trace.end()
        # A snapshot that cannot be written is tried again.
        if not (stops and proc.running and any(_LOG in line for line in trace.failed())):
            return
        if not proc.paused:
            _stops(proc, f"{chosen} stops itself, for {call} of its log failed with {error}")
            nemesis.stopped += 1
        members.kill(chosen)
        harm.down.add(chosen)

    harm.undo = ended
    return harm


def _stops(proc: Proc, what: str) -> None:
    with contextlib.suppress(Died):
        until(lambda: proc.status()["role"] == "failed", what, _STOPS_SECONDS)


def clock_jump(nemesis: Nemesis) -> Harm | None:
    """The wall clock of a member, often the leader, jumps, and later back."""
    chosen = nemesis.leader() if nemesis.luck.random() < 0.5 else nemesis.luck.choice(nemesis.members.ids)
    if chosen is None or nemesis.members.clocks is None:
        return None
    clocks = nemesis.members.clocks
    harm = nemesis.harm(_JUMP_SECONDS)
    clocks.jump(chosen, nemesis.luck.choice(_JUMPS))
    harm.undo = lambda: clocks.jump(chosen, 0)
    return harm


DISKS = frozenset({"power_leader", "power_one", "power_all", "disk_full"})
TRACES = frozenset({"disk_error"})
CLOCKS = frozenset({"clock_jump"})

# And how often each is chosen, beside the others.
FAULTS: dict[str, tuple[Fault, int]] = {
    "power_leader": (power_leader, 3),
    "power_one": (power_one, 2),
    "power_all": (power_all, 2),
    "disk_full": (disk_full, 3),
    "disk_error": (disk_error, 4),
    "clock_jump": (clock_jump, 3),
}
