"""Disks whose power can be cut: each an ext4 in a file, behind a loop device. Needs root.

To cut the power the file system is told to stop where it is, without writing its journal: what was not synced is gone,
and so are names that were not. The journal is played back when it is mounted again, as on a real machine. Only what a
program said to the kernel is real, though: a sync that reached the device is taken for durable, whatever it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import random
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

_IMAGE_BYTES = 192 << 20
_MEMORY = Path("/dev/shm")
_SHUTDOWN = 0x8004587D
_WITHOUT_JOURNAL = 2
_WRITE_NOW = 2
_BUSY_SECONDS = 5.0
_COMMAND_SECONDS = 30.0
_KEPT_BYTES = 1 << 16
# How much of what a file says reaches the disk when: file systems are mounted in all three ways.
MODES = ("ordered", "writeback", "journal")

_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    """One of them. Its file has no name any more: whatever happens to its maker, it goes with the last mount."""

    def __init__(self, path: Path, mode: str = MODES[0]) -> None:
        """Makes it, and mounts it at `path`."""
        self.path = path
        self._mode = mode
        self._ballast = path / "ballast"
        path.mkdir(parents=True, exist_ok=True)
        # Named after the story, for whoever looks what the loop devices are.
        name = "-".join([*path.parts[-3:-1], ""])
        made, file = tempfile.mkstemp(prefix=name, suffix=".ext4", dir=_MEMORY if _MEMORY.is_dir() else path.parent)
        image = Path(file)
        try:
            os.truncate(made, _IMAGE_BYTES)
            _run("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^metadata_csum_seed", "-J", "size=8", str(image))
            self._device = _run("losetup", "--find", "--show", str(image)).strip()
            # The device goes when it is closed for the last time: by the mount, and here.
            self._held = os.open(self._device, os.O_RDONLY)
            _run("losetup", "--detach", self._device)
        finally:
            os.close(made)
            image.unlink(missing_ok=True)
        try:
            self.mount()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def trouble() -> str | None:
        """Why they cannot be had here; None if they can."""
        if os.geteuid() != 0:
            return "disks whose power can be cut need root"
        for command in ("mkfs.ext4", "losetup"):
            if shutil.which(command) is None:
                return f"disks whose power can be cut need the command {command}"
        probe = _MEMORY / f"graft-probe-{os.getpid()}" / "disk"
        try:
            disk = Disk(probe)
            try:
                disk.cut()
                disk.unmount()
            finally:
                disk.close()
        except subprocess.CalledProcessError as error:
            return f"disks whose power can be cut cannot be made: {error.stderr.strip()}"
        except OSError as error:
            return f"disks whose power can be cut cannot be made: {error}"
        finally:
            shutil.rmtree(probe.parent, ignore_errors=True)
        return None

    def mount(self) -> None:
        """Mounts it, and plays its journal back."""
        options = f"data={self._mode}".encode()
        _checked(_libc.mount(self._device.encode(), bytes(self.path), b"ext4", 0, options), f"mount {self._device}")

    def unmount(self) -> None:
        """Unmounts it, as soon as nobody uses it any more."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while _libc.umount2(bytes(self.path), 0) != 0:
            code = ctypes.get_errno()
            if code != errno.EBUSY or time.monotonic() > deadline:
                raise OSError(code, os.strerror(code), str(self.path))
            time.sleep(0.002)

    def cut(self) -> None:
        """Cuts its power: from now on whoever reads or writes gets an error."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _SHUTDOWN, struct.pack("I", _WITHOUT_JOURNAL))
        finally:
            os.close(directory)

    def write_some(self, luck: random.Random) -> None:
        """Writes some of what nobody synced, as a kernel does when it likes: here a part of a file, there none."""
        for path in self.path.glob("*/log-*"):
            with contextlib.suppress(OSError), path.open("rb") as file:
                begin = luck.randrange(0, max(1, path.stat().st_size), 4096)
                _libc.sync_file_range(file.fileno(), ctypes.c_long(begin), ctypes.c_long(_KEPT_BYTES), _WRITE_NOW)

    def fill(self) -> None:
        """Leaves no room on it."""
        with self._ballast.open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_bsize)
            file.seek(0, os.SEEK_END)
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))

    def free(self) -> None:
        """Gives the room back."""
        with contextlib.suppress(OSError):
            self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Takes it down, and with it all that is on it."""
        with contextlib.suppress(OSError):
            if os.path.ismount(self.path):
                self.unmount()
        os.close(self._held)


def keep(disks: Mapping[str, Disk], directory: Path) -> None:
    """Copies what is on them to where it stays, for whoever looks for the reason of a failure."""
    for id_, disk in disks.items():
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(disk.path, directory / id_ / "kept")


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMMAND_SECONDS).stdout
