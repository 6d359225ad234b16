"""Work on files while no node runs in them: restoring from a backup, and going on after a majority was lost."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft import _engine
from graft._errors import ConfigError

if TYPE_CHECKING:
    from typing import TypeAlias

    Where: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Backup:
    """What a file holds that `backup()` wrote."""

    path: Path
    index: int
    """Of the last entry of the log that it covers."""
    term: int
    """Of that entry."""
    time: float
    """When the newest command in it was executed, in seconds since the epoch, by the leader's clock; 0 without one."""
    bytes: int
    """Of the file."""


@dataclass(frozen=True, slots=True)
class Survivor:
    """What one data directory of a lost cluster holds."""

    data_dir: Path
    id: str
    last_index: int
    """Where its log ends."""
    last_term: int
    """Of the last entry. The best log is the one with the newest, and then the longest."""
    commit_index: int
    """So far it knows that its log was committed. What follows may have been, or not."""
    snapshot_index: int
    """Of the last entry that its newest snapshot covers; 0 without one."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What is left of a cluster, and as what it goes on."""

    survivors: tuple[Survivor, ...]
    best: Survivor
    """The one that has most: whatever was acknowledged and any of them has, it has."""
    missing: tuple[str, ...]
    """Ids of voting members that none of the directories belongs to."""
    has_quorum: bool
    """Whether the survivors can go on by themselves: then they only have to be started."""
    complete: bool
    """Whether every command that was acknowledged is there, if the membership did not change after what these
    directories know. If not, commands that only the missing ones had are lost."""
    data_dir: Path | None = None
    """The new directory; None if none was made."""
    id: str | None = None
    """Of the only member of the new cluster; None as above, as is what follows."""
    address: str | None = None
    last_index: int | None = None
    """Where the new log ends: behind everything that the best survivor had."""


def check_backup(path: Where) -> Backup:
    """Reads all of a backup, verifies every byte, and says what it holds.

    Raises `Corruption` if it is damaged, `StorageError` if it cannot be read or is no backup.
    """
    return _backup(path, _engine.load().verify_backup(os.fspath(path)))


def restore(path: Where, data_dir: Where) -> Backup:
    """Makes `data_dir`, which must be empty or not there, one that begins with the state of a backup.

    A node that is started with it founds a new cluster, under any id and address: alone, or with `members=` and others
    whose directories were restored from the same backup. Further members join with empty directories. Members of the
    cluster that the backup was made of are refused.

    Raises `Corruption` if the backup is damaged; `StorageError` if it cannot be read or is none, or there is something
    in `data_dir`.
    """
    return _backup(path, _engine.load().restore(os.fspath(path), os.fspath(data_dir)))


def recover(
    *data_dirs: Where | Iterable[Where],
    into: Where | None = None,
    id: str | None = None,  # noqa: A002 - the word of the product
    address: str | None = None,
    force: bool = False,
) -> Recovery:
    """Looks at what is left of a cluster whose majority is lost and, given `into`, goes on with it there.

    Give the data directories of all members that are left; no node may run in them, and nothing in them is changed. The
    one that has most is copied to `into`, which must be empty or not there, with all of its log. It is the only member
    of a cluster with a new name: whoever comes back from the lost one is refused. Start a node with `into` as its
    `data_dir`, the `id` and the `address` (that of the best survivor unless they are given), and let others join it
    with empty directories; they may have their old ids.

    Writes that only the lost members had are lost, see `Recovery.complete`. While a majority is left nothing is made
    unless `force` is true: start the members, and nothing is lost.

    Raises `ConfigError` if the directories are not of one cluster, or a majority is left; `Corruption` if one is
    damaged; `StorageError` if one cannot be read or is in use, or there is something in `into`.
    """
    paths = list(_paths(data_dirs))
    if not isinstance(force, bool):
        raise ConfigError(f"force={force!r:.100} must be True or False")
    target = None if into is None else os.fspath(into)
    found = _engine.load().recover(paths, target, id, address, force)
    recovery = _recovery(found, target)
    if target is not None and recovery.data_dir is None:
        ids = ", ".join(survivor.id for survivor in recovery.survivors)
        raise ConfigError(
            f"a majority of the voters is left: {ids}",
            fix="start them, and they elect a leader; nothing is lost then; force=True goes on with one of them anyway",
        )
    return recovery


def _paths(given: Iterable[object]) -> Iterable[str]:
    for item in given:
        if isinstance(item, str | os.PathLike):
            yield os.fspath(item)
        elif isinstance(item, Iterable):
            yield from _paths(item)
        else:
            raise ConfigError(f"{item!r:.100} is no path of a data directory")


def _backup(path: Where, kept: tuple[int, int, float, int]) -> Backup:
    return Backup(Path(path), *kept)


def _recovery(found: dict[str, Any], target: str | None) -> Recovery:
    survivors = tuple(replace(Survivor(**one), data_dir=Path(one["data_dir"])) for one in found["survivors"])
    recovery = Recovery(
        survivors, survivors[found["best"]], tuple(found["missing"]), found["is_quorum"], found["is_complete"]
    )
    if found["recovered"] is None or target is None:
        return recovery
    id_, address, _, last_index = found["recovered"]
    return replace(recovery, data_dir=Path(target), id=id_, address=address, last_index=last_index)
