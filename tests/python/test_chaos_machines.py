"""What breaks machines: power that is cut, disks that are full or fail, clocks that jump.

The stories run as programs of their own: with those everything that they made goes, whatever becomes of them.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chaos import enclosure, machine_faults
from chaos.__main__ import NOT_LINEARIZABLE
from chaos.clocks import LOOK_SECONDS, Clocks
from chaos.disks import MODES, Disk
from chaos.network import run
from chaos.powercuts import compiler_trouble
from chaos.tracing import Trace
from processes import until

NO_DISKS = enclosure.trouble() or Disk.trouble()
NO_TRACES = Trace.trouble()
NO_CLOCKS = Clocks.trouble()
NO_COMPILER = compiler_trouble()
HOUR = 3600

needs_disks = pytest.mark.skipif(NO_DISKS is not None, reason=str(NO_DISKS))
KINDS = (
    pytest.param(machine_faults.DISKS, marks=needs_disks, id="disks"),
    pytest.param(
        machine_faults.TRACES, marks=pytest.mark.skipif(NO_TRACES is not None, reason=str(NO_TRACES)), id="errors"
    ),
    pytest.param(
        machine_faults.CLOCKS, marks=pytest.mark.skipif(NO_CLOCKS is not None, reason=str(NO_CLOCKS)), id="clocks"
    ),
)


def told(directory: Path, *arguments: str) -> tuple[int, str]:
    """How that story ends, and what it says."""
    command = ["env", f"TMPDIR={directory}", *run("chaos"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


@needs_disks
@pytest.mark.timeout(240)
def test_power_cuts_of_all_members_lose_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = told(tmp_path, "powercuts", "--cuts", "6", "--seed", "1")
    with capsys.disabled():
        print("\n" + "\n".join(said.splitlines()[-2:]))
    assert status == 0, said
    assert "lost 0, twice 0" in said


@needs_disks
@pytest.mark.skipif(NO_COMPILER is not None, reason=str(NO_COMPILER))
@pytest.mark.timeout(240)
def test_disks_that_do_not_sync_are_found_out(tmp_path: Path) -> None:
    status, said = told(tmp_path, "powercuts", "--cuts", "6", "--seed", "1", "--lying", "1")
    assert status == NOT_LINEARIZABLE, said
    # What the kernel wrote by itself may be damaged without the rest.
    assert re.search(r"lost [1-9]|does not start by itself: .* CORRUPTION", said), said


@pytest.mark.parametrize("faults", KINDS)
@pytest.mark.timeout(240)
def test_what_clients_see_when_machines_fail_is_linearizable(
    tmp_path: Path, faults: frozenset[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = told(tmp_path, "faults", "--seconds", "6", "--seed", "1", "--faults", *sorted(faults))
    with capsys.disabled():
        print("\n" + "\n".join(line for line in said.splitlines() if "faults" in line))
    assert status == 0, said
    assert "left out" not in said
    assert not re.search(r"^0 faults", said, re.MULTILINE), said


@needs_disks
@pytest.mark.parametrize("what", ["powercuts", "faults"])
def test_a_story_that_is_killed_leaves_nothing_behind(tmp_path: Path, what: str) -> None:
    before = namespaces()
    command = ["env", f"TMPDIR={tmp_path}", *run("chaos"), what]
    story = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert story.stdout is not None
    try:
        said = story.stdout.readline()
        directory = said.strip().rpartition(" in ")[2]
        until(lambda: directory in processes(), "members of the story")
        assert Path(directory).name in loops()
    finally:
        story.send_signal(signal.SIGKILL)
        story.wait()
        story.stdout.close()
    until(lambda: directory not in processes(), "no members any more")
    until(lambda: Path(directory).name not in loops(), "no loop devices any more")
    assert directory not in Path("/proc/mounts").read_text()
    assert namespaces() == before


def namespaces() -> list[str]:
    names = Path("/run/netns")
    return sorted(os.listdir(names)) if names.exists() else []


def processes() -> str:
    return subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def loops() -> str:
    return subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True).stdout


@needs_disks
@pytest.mark.parametrize("mode", MODES)
def test_what_was_not_synced_is_gone_when_the_power_is_cut(tmp_path: Path, mode: str) -> None:
    disk = Disk(tmp_path / "disk", mode)
    try:
        written = disk.path / "written"
        with written.open("wb") as file:
            file.write(b"old")
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            file.write(b"new")
            file.flush()
            fresh = disk.path / "fresh"
            fresh.write_bytes(b"never synced")
            written.rename(disk.path / "renamed")
            disk.cut()
            with pytest.raises(OSError, match="Input/output error"):
                os.fsync(file.fileno())
        disk.unmount()
        disk.mount()
        assert written.read_bytes() == b"old"
        assert not fresh.exists()
    finally:
        disk.close()
    assert str(disk.path) not in Path("/proc/mounts").read_text()


@needs_disks
@pytest.mark.parametrize("mode", MODES)
def test_a_file_system_is_whole_after_many_cuts(tmp_path: Path, mode: str) -> None:
    disk = Disk(tmp_path / "disk", mode)
    luck = random.Random(1)
    try:
        for cut in range(20):
            for number in range(luck.randrange(30)):
                (disk.path / f"{cut}-{number}").write_bytes(bytes(luck.randrange(1 << 20)))
            for path in sorted(disk.path.glob("*-*")):
                if luck.random() < 0.3:
                    path.unlink()
            if luck.random() < 0.5:
                subprocess.run(["sync", "--file-system", str(disk.path)], check=True)
            disk.cut()
            disk.unmount()
            disk.mount()
        disk.unmount()
        found = subprocess.run(
            ["e2fsck", "-f", "-n", f"/proc/self/fd/{disk.image}"],
            pass_fds=[disk.image],
            text=True,
            stdout=subprocess.PIPE,
        )
        assert found.returncode == 0, found.stdout
    finally:
        disk.close()


@needs_disks
def test_a_full_disk_has_no_room_until_it_is_freed(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    try:
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (disk.path / "one").write_bytes(bytes(1 << 16))
        disk.free()
        (disk.path / "two").write_bytes(bytes(1 << 16))
    finally:
        disk.close()


@needs_disks
@pytest.mark.parametrize("first", ["freed", "cut"])
def test_a_disk_that_was_freed_has_room_after_a_power_cut(tmp_path: Path, first: str) -> None:
    disk = Disk(tmp_path / "disk")
    try:
        disk.fill()
        os.sync()
        if first == "freed":
            disk.free()
        disk.cut()
        disk.free()
        disk.unmount()
        disk.mount()
        (disk.path / "one").write_bytes(bytes(1 << 16))
    finally:
        disk.close()


SYNC = """
import os, sys
for line in sys.stdin:
    with open(sys.argv[1], "w") as file:
        try:
            os.fdatasync(file.fileno())
        except OSError as error:
            print(error.errno, flush=True)
        else:
            print("synced", flush=True)
"""


@pytest.mark.skipif(NO_TRACES is not None, reason=str(NO_TRACES))
def test_a_sync_fails_when_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "log-1"
    command = [sys.executable, "-c", SYNC, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proc:
        trace = Trace(proc.pid, "fdatasync", "EIO", "2", tmp_path / "notes")
        found = [synced(proc) for _ in range(3)]
        assert trace.end()
        found.append(synced(proc))
        assert proc.stdin is not None
        proc.stdin.close()
    assert found == ["synced", "5", "synced", "synced"]
    assert [str(path) in line for line in trace.failed()] == [True]


def synced(proc: subprocess.Popen[str]) -> str:
    assert proc.stdin is not None
    assert proc.stdout is not None
    proc.stdin.write("\n")
    proc.stdin.flush()
    return proc.stdout.readline().strip()


TELL = """
import sys, time
for line in sys.stdin:
    print(time.time(), time.monotonic(), flush=True)
"""


@pytest.mark.skipif(NO_CLOCKS is not None, reason=str(NO_CLOCKS))
def test_a_wall_clock_jumps_and_a_monotonic_one_does_not(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path)
    command = ["env", *clocks.environment("n1"), sys.executable, "-c", TELL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proc:
        for seconds in (HOUR, -HOUR, 0):
            clocks.jump("n1", seconds)

            def wrong(seconds: float = seconds) -> bool:
                wall, monotonic = map(float, synced(proc).split())
                assert abs(monotonic - time.monotonic()) < HOUR / 2
                return abs(wall - time.time() - seconds) < HOUR / 2

            until(wrong, f"its clock is {seconds} s wrong", 10 * LOOK_SECONDS)
        assert proc.stdin is not None
        proc.stdin.close()
