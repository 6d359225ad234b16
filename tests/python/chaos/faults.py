"""Faults of processes and of the network between them. Each does its harm and says how it is undone; None if nothing
could be done just now."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

from processes import Died, ProcessError

from chaos.cables import Pair
from chaos.harm import SLEEP_SECONDS, Fault, Harm
from chaos.network import Noise

if TYPE_CHECKING:
    from chaos.nemesis import Nemesis

DELAYS_SECONDS = (0.02, 0.1, 0.3)
LOSSES = (0.01, 0.05, 0.2)
JITTERS_SECONDS = (0.0, 0.005, 0.05)
_TRANSFER_SECONDS = 2.0


def _kill(nemesis: Nemesis, *ids: str | None) -> Harm | None:
    chosen = {id_ for id_ in ids if id_ is not None}
    if not chosen:
        return None
    harm = nemesis.harm()
    nemesis.members.kill(*sorted(chosen))
    harm.down = chosen
    return harm


def kill_leader(nemesis: Nemesis) -> Harm | None:
    """SIGKILL."""
    return _kill(nemesis, nemesis.leader())


def kill_one(nemesis: Nemesis) -> Harm | None:
    """SIGKILL, to anybody."""
    return _kill(nemesis, nemesis.some(nemesis.awake()))


def kill_all(nemesis: Nemesis) -> Harm | None:
    """SIGKILL, to all at once."""
    return _kill(nemesis, *nemesis.awake())


def _sleep(nemesis: Nemesis, id_: str | None) -> Harm | None:
    if id_ is None:
        return None
    nemesis.members[id_].pause()
    harm = nemesis.harm(SLEEP_SECONDS)
    harm.asleep = {id_}
    return harm


def pause_leader(nemesis: Nemesis) -> Harm | None:
    """SIGSTOP, for longer than an election takes."""
    return _sleep(nemesis, nemesis.leader())


def pause_one(nemesis: Nemesis) -> Harm | None:
    """SIGSTOP, to anybody."""
    return _sleep(nemesis, nemesis.some(nemesis.awake()))


def isolate_leader(nemesis: Nemesis) -> Harm | None:
    """The leader and a third of the clients on one side, all others on the other one."""
    leader = nemesis.leader()
    return None if leader is None else _split(nemesis, {leader})


def split(nemesis: Nemesis) -> Harm | None:
    """A minority and a third of the clients on one side, all others on the other one."""
    ids = nemesis.members.ids
    return _split(nemesis, set(nemesis.luck.sample(ids, max(1, (len(ids) - 1) // 2))))


def _split(nemesis: Nemesis, minority: set[str]) -> Harm:
    harm = nemesis.harm(SLEEP_SECONDS)
    side = minority | set(nemesis.luck.sample(nemesis.clients, len(nemesis.clients) // 3))
    others = {*nemesis.members.ids, *nemesis.clients} - side
    harm.cuts = {pair for one in side for other in others for pair in ((one, other), (other, one))}
    return harm


def mute_leader(nemesis: Nemesis) -> Harm | None:
    """Nothing of what the leader says reaches the other members."""
    leader = nemesis.leader()
    return None if leader is None else _one_way(nemesis, [(leader, other) for other in nemesis.members.ids])


def deafen_leader(nemesis: Nemesis) -> Harm | None:
    """Nothing of what the other members say reaches the leader."""
    leader = nemesis.leader()
    return None if leader is None else _one_way(nemesis, [(other, leader) for other in nemesis.members.ids])


def cut_one_way(nemesis: Nemesis) -> Harm | None:
    """One member does not hear another one."""
    return _one_way(nemesis, [nemesis.luck.choice(list(permutations(nemesis.members.ids, 2)))])


def _one_way(nemesis: Nemesis, pairs: list[Pair]) -> Harm:
    harm = nemesis.harm(SLEEP_SECONDS)
    harm.cuts = {(one, other) for one, other in pairs if one != other}
    return harm


def cut_clients(nemesis: Nemesis) -> Harm | None:
    """Half of the clients reach one member only, and not always the leader."""
    harm = nemesis.harm(SLEEP_SECONDS)
    reached = nemesis.luck.choice(nemesis.members.ids)
    some = nemesis.luck.sample(nemesis.clients, (len(nemesis.clients) + 1) // 2)
    far = [id_ for id_ in nemesis.members.ids if id_ != reached]
    harm.cuts = {pair for client in some for id_ in far for pair in ((client, id_), (id_, client))}
    return harm


def delay(nemesis: Nemesis) -> Harm | None:
    """What one member says is late."""
    harm = nemesis.harm()
    slow = nemesis.luck.choice(nemesis.members.ids)
    seconds = nemesis.luck.choice(DELAYS_SECONDS)
    harm.delays = {(slow, other): seconds for other in nemesis.members.ids if other != slow}
    return harm


def noise(nemesis: Nemesis) -> Harm | None:
    """What one member says and hears, or what all say, is lost in part, comes twice, or out of order."""
    harm = nemesis.harm(SLEEP_SECONDS)
    ids, luck = nemesis.members.ids, nemesis.luck
    worst = Noise(luck.choice(LOSSES), luck.choice(LOSSES), luck.choice(JITTERS_SECONDS))
    if luck.random() < 0.5:
        pairs = list(permutations([*ids, *nemesis.clients], 2))
    else:
        one = luck.choice(ids)
        pairs = [pair for other in ids if other != one for pair in ((one, other), (other, one))]
    harm.noises = dict.fromkeys(pairs, worst)
    return harm


def reset(nemesis: Nemesis) -> Harm | None:
    """All connections with one member end."""
    one = nemesis.luck.choice(nemesis.members.ids)
    nemesis.members.network.reset((one, other) for other in {*nemesis.members.ids, *nemesis.clients} - {one})
    return nemesis.harm((0.0,))


def transfer(nemesis: Nemesis) -> Harm | None:
    """The leader hands over. Whether it can is all one."""
    leader = nemesis.leader()
    if leader is None:
        return None
    try:
        nemesis.members[leader].call("change", change="transfer_leadership", args=[], seconds=_TRANSFER_SECONDS)
    except (Died, ProcessError):
        return None
    return nemesis.harm((0.0,))


# And how often each is chosen, beside the others.
FAULTS: dict[str, tuple[Fault, int]] = {
    "kill_leader": (kill_leader, 4),
    "kill_one": (kill_one, 2),
    "kill_all": (kill_all, 1),
    "pause_leader": (pause_leader, 4),
    "pause_one": (pause_one, 1),
    "isolate_leader": (isolate_leader, 4),
    "split": (split, 2),
    "mute_leader": (mute_leader, 2),
    "deafen_leader": (deafen_leader, 2),
    "cut_one_way": (cut_one_way, 2),
    "cut_clients": (cut_clients, 2),
    "delay": (delay, 2),
    "noise": (noise, 3),
    "reset": (reset, 1),
    "transfer": (transfer, 2),
}
