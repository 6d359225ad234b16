"""What asking for a snapshot comes to when it does not come to one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graft._errors import GraftError, StorageError, Timeout, UnknownOutcome

if TYPE_CHECKING:
    from graft._status import Status


def unfinished(error: GraftError, status: Status | None, seconds: float) -> GraftError:
    """What is raised in the place of what the engine says."""
    if isinstance(error, UnknownOutcome) and status is not None and status.role != "stopped":
        return Timeout(
            f"the snapshot is not written after {seconds:g} s, and goes on without this call",
            fix="follow it with `node.status().snapshot_phase` or `node.events()`",
        )
    if type(error) is StorageError:
        return StorageError(
            error.message,
            fix="see to what the message names, the machine's snapshot() or the disk; the node goes on meanwhile, and "
            "tries again by itself",
        )
    return error
