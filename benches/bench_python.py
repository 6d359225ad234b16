"""What Python gets: machines in Python and the peers that Python has, in processes of their own, for `bench.py`."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scale import proc

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

HERE = Path(__file__).parent
Row = dict[str, Any]

HOWS = [("sequential", 1), ("threads", 8), ("asyncio", 64), ("many", 1024)]
"""How, at which depth: as a user calls."""
LIMIT = ("bare", 1024)
"""The interpreter alone."""
THREADS = [("threads", 1), ("threads", 8), ("threads", 64)]
"""What peers get."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which nobody listens."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]


class Process:
    """A child that takes a line and gives one."""

    def __init__(self, *command: str) -> None:
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        """The next that it says."""
        assert self.child.stdout
        line = self.child.stdout.readline()
        assert line, f"{self.child.args!r} ended with {self.child.wait()}"
        return line.strip()

    def ask(self, question: dict[str, Any]) -> Row:
        """What it answers."""
        assert self.child.stdin
        print(json.dumps(question), file=self.child.stdin, flush=True)
        answer: Row = json.loads(self.line())
        return answer

    def end(self) -> None:
        """At once, whatever it does."""
        self.child.kill()
        self.child.communicate()


class Foreign(Process):
    """A program that would outlive us: it is ended when our end of a pipe is closed, whoever closes it."""

    def __init__(self, *command: str) -> None:
        script = '"$@" >/dev/null 2>&1 </dev/null & echo $!; cat >/dev/null; kill -9 $!'
        super().__init__("sh", "-c", script, "sh", *command)
        self.pid = int(self.line())

    def end(self) -> None:
        """At once."""
        self.child.communicate()


@contextmanager
def processes(commands: list[list[str]]) -> Generator[list[Process]]:
    """Children that are gone in the end."""
    with ExitStack() as stack:
        started: list[Process] = []
        for command in commands:
            started.append(Process(*command))
            stack.callback(started[-1].end)
        yield started


def used(pids: list[int]) -> dict[str, float]:
    """Processor time until now, that of threads which have ended as well."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    ticks = sum(int(field) for each in fields for field in each[11:13])
    return {"cpu_us": ticks * 1e6 / os.sysconf("SC_CLK_TCK")}


def measured(caller: Process, load: dict[str, Any], pids: list[int], counts: Callable[[], dict[str, float]]) -> Row:
    """What a load gave, and what it took of these processes for each call."""
    caller.ask({**load, "seconds": min(0.1, load["seconds"])})
    before = {**used(pids), **counts()}
    row = caller.ask(load)
    after = {**used(pids), **counts()}
    taken = {name: (value - before[name]) / row["calls"] for name, value in after.items()}
    return {**row, **taken, "rss_mib": sum(map(proc.resident, pids))}


def members(machine: str, home: Path, seconds: float, number: int, *, tls: bool = False) -> list[Row]:
    """Three members with that machine, called in the leader's process; and what the interpreter takes for it alone."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(dir=home))
        if tls:
            from graft.tls import CertificateAuthority

            CertificateAuthority.create(f"{directory}/tls", "bench")
        named = [f"n{n + 1}=127.0.0.1:{port}" for n, port in enumerate(free_ports(3))]
        program = [sys.executable, str(HERE / "python_member.py"), machine]
        commands = [[*program, f"n{n + 1}", directory, *named] for n in range(3)]
        started = stack.enter_context(processes(commands))
        leader = started[[process.line() for process in started].index("leader")]
        pids = [process.child.pid for process in started]

        def counts() -> dict[str, float]:
            return {"syncs": sum(process.ask({"how": "counts"})["syncs"] for process in started)}

        rows: list[Row] = []
        for how, depth in [*HOWS, *([] if tls else [LIMIT])]:
            load = {"how": how, "depth": depth, "seconds": seconds}
            row = {"machine": machine, "tls": tls, "how": how, "depth": depth, "round": number}
            rows.append({**row, **measured(leader, load, pids, counts)})
        return rows


def counts_of_etcd(addresses: list[str]) -> dict[str, float]:
    """Syncs of all members, of their logs and of their trees."""
    return {"syncs": sum(value for address in addresses for name, value in metrics(address)
                         if name.startswith("etcd_disk_") and name.endswith("_duration_seconds_count")
                         and ("wal_fsync" in name or "backend_commit_duration" in name))}  # fmt: skip


def metrics(address: str) -> list[tuple[str, float]]:
    """What a member of etcd tells of itself."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        lines: list[str] = page.read().decode().splitlines()
    words = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
    return [(name, float(value)) for name, value in words]


def leader_of(addresses: list[str]) -> str:
    """The member that leads, as soon as one does."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for address in addresses:
            try:
                if ("etcd_server_is_leader", 1.0) in metrics(address):
                    return address
            except OSError:
                continue
        time.sleep(0.05)
    msg = "etcd has no leader after 30 s"
    raise TimeoutError(msg)


def etcd(home: Path, seconds: float, number: int) -> list[Row]:
    """Puts to the leader of three members of etcd, by grpcio."""
    if not shutil.which("etcd") or importlib.util.find_spec("grpc") is None:
        return []
    peers, clients = ([f"127.0.0.1:{port}" for port in free_ports(3)] for _ in range(2))
    cluster = ",".join(f"e{n}=http://{peer}" for n, peer in enumerate(peers))
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(dir=home))
        pids: list[int] = []
        for n, (peer, client) in enumerate(zip(peers, clients, strict=True)):
            words = f"""etcd --data-dir {directory}/e{n} --name e{n} --initial-cluster {cluster}
                --listen-peer-urls http://{peer} --initial-advertise-peer-urls http://{peer}
                --listen-client-urls http://{client} --advertise-client-urls http://{client}"""
            member = Foreign(*words.split())
            stack.callback(member.end)
            pids.append(member.pid)
        program = [sys.executable, str(HERE / "python_peers.py"), "etcd", leader_of(clients)]
        (caller,) = stack.enter_context(processes([program]))
        caller.line()
        row = {"peer": "etcd", "round": number}
        return of_peer(row, caller, pids, seconds, lambda: counts_of_etcd(clients))


def pysyncobj(home: Path, seconds: float, number: int, *, tuned: bool = False) -> list[Row]:
    """Calls on one of three members of PySyncObj."""
    if importlib.util.find_spec("pysyncobj") is None:
        return []
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    kind = "tuned" if tuned else "pysyncobj"
    with tempfile.TemporaryDirectory(dir=home) as directory:
        others = [[one, *(other for other in addresses if other != one)] for one in addresses]
        program = [sys.executable, str(HERE / "python_peers.py"), kind, directory]
        with processes([[*program, *words] for words in others]) as started:
            roles = [process.line() for process in started]
            caller = started[roles.index("leader") if "leader" in roles else 0]
            pids = [process.child.pid for process in started]
            row = {"peer": "PySyncObj, tuned" if tuned else "PySyncObj", "round": number}
            # By default it looks every 50 ms whether there is something to do.
            return of_peer(row, caller, pids, seconds if tuned else max(seconds, 1.0), dict)


def of_peer(
    row: Row, caller: Process, pids: list[int], seconds: float, counts: Callable[[], dict[str, float]]
) -> list[Row]:
    """A row like that for each number of threads."""
    rows: list[Row] = []
    for how, depth in THREADS:
        load = {"how": how, "depth": depth, "seconds": seconds}
        rows.append({**row, "how": how, "depth": depth, **measured(caller, load, pids, counts)})
    return rows


def one_round(home: Path, seconds: float, number: int) -> list[Row]:
    """All of it, once."""
    rows = members("nothing", home, seconds, number) + members("words", home, seconds, number)
    rows += etcd(home, seconds, number)
    return rows + pysyncobj(home, seconds, number) + pysyncobj(home, seconds, number, tuned=True)
