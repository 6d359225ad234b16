"""What it costs to bring a new member up to a large state: `python benches/snapshots.py [MiB]`.

Two processes, the founder and the newcomer, on this machine's disk. The founder holds a state of so many MiB (1024
unless told otherwise) and takes writes from eight threads of its own the whole time. Printed: the rate of writes alone,
while a snapshot is written, and while the newcomer gets it, the last two as ratios to the first; and by how much the
resident memory of both exceeds the state. Times are of this machine at this moment; ratios are what counts.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import graft

MIB = 1 << 20
WRITERS = 8
BASELINE_SECONDS = 8.0


class Blocks(graft.StateMachine):
    """A large state that is written and read piece by piece."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._count = 0

    @graft.command
    def fill(self, number: int) -> int:
        generator = self.context.random
        self._blocks.extend(generator.randbytes(MIB) for _ in range(number))
        return len(self._blocks)

    @graft.command
    def note(self, text: str) -> int:  # noqa: ARG002 - only its bytes matter
        self._count += 1
        return self._count

    def snapshot(self) -> Any:
        blocks, count = list(self._blocks), self._count

        def write(file: BinaryIO) -> None:
            file.write(count.to_bytes(8, "little"))
            file.writelines(blocks)

        return write

    def restore(self, file: BinaryIO) -> None:
        self._count = int.from_bytes(file.read(8), "little")
        self._blocks = []
        while block := file.read(MIB):
            self._blocks.append(block)


def resident(pid: int) -> int:
    """MiB of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // MIB


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Load:
    """Writers that go on until they are told to stop."""

    def __init__(self, node: graft.Node[Blocks]) -> None:
        self.done = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(node,)) for _ in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def _write(self, node: graft.Node[Blocks]) -> None:
        text = "x" * 100
        while not self._stop.is_set():
            node.execute_many([(Blocks.note, text)] * 8)
            self.done += 8

    def rate(self, until: Any) -> float:
        begun, before = time.monotonic(), self.done
        until()
        return (self.done - before) / (time.monotonic() - begun)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def newcomer(directory: str, address: str, founder: str) -> None:
    node = graft.Node(Blocks(), id="n2", address=address, data_dir=directory, join=founder)
    with node:
        sys.stdin.read()


def watch(node: graft.Node[Blocks], pids: dict[str, int], peaks: dict[str, int]) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        for name, pid in pids.items():
            peaks[name] = max(peaks[name], resident(pid))
        if any(member.id == "n2" and member.voter for member in node.members):
            return
        time.sleep(0.1)
    raise SystemExit("the newcomer did not catch up within ten minutes")


def main(size: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        founder = f"127.0.0.1:{free_port()}"
        with graft.Node(Blocks(), id="n1", address=founder, data_dir=f"{directory}/n1") as node:
            node.wait_ready()
            for _ in range(0, size, 16):
                node.options(timeout=60).execute(Blocks.fill, 16)
            load = Load(node)
            alone = load.rate(lambda: time.sleep(BASELINE_SECONDS))
            snapshot = load.rate(lambda: node.snapshot(timeout=300))
            peaks = {"sender": 0, "receiver": 0}
            argv = [sys.executable, __file__, "newcomer", f"{directory}/n2", f"127.0.0.1:{free_port()}", founder]
            child = subprocess.Popen(argv, stdin=subprocess.PIPE)
            begun = time.monotonic()
            catching_up = load.rate(lambda: watch(node, {"sender": os.getpid(), "receiver": child.pid}, peaks))
            took = time.monotonic() - begun
            load.stop()
            child.communicate()
    print(
        json.dumps(
            {
                "state_mib": size,
                "writes_per_second_alone": round(alone),
                "ratio_while_a_snapshot_is_written": round(snapshot / alone, 2),
                "ratio_while_the_newcomer_catches_up": round(catching_up / alone, 2),
                "catch_up_seconds": round(took, 1),
                "sender_mib_above_state": peaks["sender"] - size,
                "receiver_mib_above_state": peaks["receiver"] - size,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["newcomer"]:
        newcomer(*sys.argv[2:5])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
