"""An enclosure for everything that is made: processes, mounts, namespaces. With its first process all of it goes,
whatever that one dies of. Needs root, and `unshare`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

# Names of network namespaces are files there, which would outlive their mounts.
_NAMES = "/run/netns"
# The first process of a set of its own, which sees its own mounts and processes alone.
_COMMAND = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_WITHIN = ("sh", "-c", f'mkdir -p {_NAMES} && mount -t tmpfs tmpfs {_NAMES} && exec "$@"', "sh")
_MARK = "GRAFT_CHAOS_ENCLOSED"
_PROBE_SECONDS = 10.0


def trouble() -> str | None:
    """Why it cannot be had here; None if it can."""
    if os.geteuid() != 0:
        return "an enclosure for mounts needs root"
    if shutil.which(_COMMAND[0]) is None:
        return "an enclosure for mounts needs the command unshare"
    probe = subprocess.run([*_COMMAND, *_WITHIN, "true"], capture_output=True, text=True, timeout=_PROBE_SECONDS)
    return None if probe.returncode == 0 else f"an enclosure for mounts cannot be made: {probe.stderr.strip()}"


def is_within() -> bool:
    """Whether this process is in one."""
    return _MARK in os.environ


def enter(module: str) -> None:
    """Goes on in one, from the beginning of this module, with the same arguments; without one where there cannot be."""
    if not is_within() and trouble() is None:
        os.environ[_MARK] = "yes"
        os.execvp(_COMMAND[0], [*_COMMAND, *_WITHIN, sys.executable, "-m", module, *sys.argv[1:]])
