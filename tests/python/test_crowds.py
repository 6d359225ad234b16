"""A crowd at the door of three real processes: thousands who say nothing, and some who say it very slowly."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Cluster, until

CROWD = 10_000
SLOW = 200
# What a connection costs the node that takes it, at the most, and what else may happen to grow meanwhile.
CONNECTION_BYTES_MAX = 16 << 10
OTHER_BYTES_MAX = 32 << 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc"),
    pytest.mark.timeout(300),
]


@contextlib.contextmanager
def many_files(wanted: int) -> Iterator[int]:
    """Raises this process's own limit; gives how many of the wanted it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted + 500 if hard == resource.RLIM_INFINITY else min(wanted + 500, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        yield min(wanted, most - 500)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident(pid: int) -> int:
    """Bytes of memory that a process has in use."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def place(address: str) -> tuple[str, int]:
    host, port = address.rsplit(":", 1)
    return host, int(port)


def test_thousands_who_say_nothing_cost_little_and_keep_nobody_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Cluster(tmp_path) as cluster, contextlib.ExitStack() as crowd, many_files(CROWD) as count:
        cluster.ready()
        leader = cluster.leader()
        term, pid = cluster[leader].status()["term"], cluster[leader].pid
        cluster[leader].execute("append", "before")
        before, held = resident(pid), files(pid)
        most = 0
        for number in range(count):
            crowd.enter_context(socket.create_connection(place(cluster.members[leader]), timeout=30))
            if number % 500 == 499:
                # While they come in, clients are served and nobody else is elected.
                assert cluster[leader].execute("append", f"at {number}", seconds=5.0)
                most = max(most, resident(pid) - before)
        assert most < count * CONNECTION_BYTES_MAX + OTHER_BYTES_MAX
        assert files(pid) - held < 1000, "those who say nothing are few at any time"
        follower = next(id_ for id_ in cluster.ids if id_ != leader)
        assert cluster[follower].query("count")
        status = cluster[leader].status()
        assert (status["role"], status["term"]) == ("leader", term)
        with capsys.disabled():
            print(f"\n{count} silent connections: at most {most / (1 << 20):.1f} MiB more in the leader")


def test_those_who_introduce_themselves_a_byte_at_a_time_are_not_waited_for(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster, contextlib.ExitStack() as held:
        cluster.ready()
        leader = cluster.leader()
        term = cluster[leader].status()["term"]
        slow = [
            held.enter_context(socket.create_connection(place(cluster.members[leader]), timeout=30))
            for _ in range(SLOW)
        ]
        left, said = set(slow), 0

        def all_are_gone() -> bool:
            nonlocal said
            # A byte of the preface for each, and frames that never end after that.
            byte = PREFACE[said : said + 1] or b"\0"
            said += 1
            for one in list(left):
                try:
                    one.sendall(byte)
                    readable, _, _ = select.select([one], [], [], 0)
                    if readable and one.recv(1 << 16) == b"":
                        left.discard(one)
                except OSError:
                    left.discard(one)
            assert cluster[leader].execute("append", f"byte {said}", seconds=5.0)
            time.sleep(0.1)
            return not left

        until(all_are_gone, "slow ones are let go")
        status = cluster[leader].status()
        assert (status["role"], status["term"]) == ("leader", term)
