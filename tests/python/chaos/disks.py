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
# What linux/loop.h says.
_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_CONFIG_BYTES = 304
_FLAGS_OFFSET = 60
_AUTOCLEAR = 4
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
        self._is_full = False
        path.mkdir(parents=True, exist_ok=True)
        # Named after the story, for whoever looks what the loop devices are.
        name = "-".join([*path.parts[-3:-1], ""])
        self.image, image = tempfile.mkstemp(
            prefix=name, suffix=".ext4", dir=_MEMORY if _MEMORY.is_dir() else path.parent
        )
        try:
            os.truncate(self.image, _IMAGE_BYTES)
            _run("mkfs.ext4", "-q", "-F", "-m", "0", "-J", "size=8", image)
            self.mount()
        except BaseException:
            self.close()
            raise
        finally:
            Path(image).unlink(missing_ok=True)

    @staticmethod
    def trouble() -> str | None:
        """Why they cannot be had here; None if they can."""
        if os.geteuid() != 0:
            return "disks whose power can be cut need root"
        if shutil.which("mkfs.ext4") is None:
            return "disks whose power can be cut need the command mkfs.ext4"
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
        """Mounts it, and plays its journal back. The device is another one each time, and goes with the mount: what a
        device still had in memory of the time before would be seen again."""
        device = _attached(self.image)
        try:
            options = f"data={self._mode}".encode()
            done = _libc.mount(os.readlink(f"/proc/self/fd/{device}").encode(), bytes(self.path), b"ext4", 0, options)
            _checked(done, f"mount {self.path}")
        finally:
            os.close(device)
        if not self._is_full:
            # What gave the room back may have been lost with the power, or come when there was none.
            self.free()

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
        self._is_full = True
        with self._ballast.open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_bsize)
            file.seek(0, os.SEEK_END)
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))

    def free(self) -> None:
        """Gives the room back, for good."""
        self._is_full = False
        with contextlib.suppress(OSError):
            self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Takes it down, and with it all that is on it."""
        with contextlib.suppress(OSError):
            if os.path.ismount(self.path):
                self.unmount()
        os.close(self.image)


def keep(disks: Mapping[str, Disk], directory: Path) -> None:
    """Copies what is on them to where it stays, for whoever looks for the reason of a failure."""
    for id_, disk in disks.items():
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(disk.path, directory / id_ / "kept")


def _attached(image: int) -> int:
    """A loop device for this file, open; it is free again when nobody has it open any more."""
    told = bytearray(_CONFIG_BYTES)
    struct.pack_into("I", told, 0, image)
    struct.pack_into("I", told, _FLAGS_OFFSET, _AUTOCLEAR)
    with Path("/dev/loop-control").open("rb") as control:
        while True:
            device = os.open(f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}", os.O_RDWR)
            try:
                fcntl.ioctl(device, _CONFIGURE, bytes(told))
            except OSError as error:
                os.close(device)
                # Somebody else was faster.
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMMAND_SECONDS).stdout
