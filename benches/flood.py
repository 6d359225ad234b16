"""What strangers cost a cluster: writes through a client, alone and while others knock at every port.

Three members in processes of their own, with TLS; one client in this process, 64 commands in flight. Rounds are
interleaved: what counts are the ratios within a round. Floods come from processes of their own, as many as there are
cores: `silent` connects and says nothing, `garbage` sends bytes that are no handshake, `stranger` makes handshakes with
a certificate of another authority, as fast as it can.

    python benches/flood.py --seconds 5 --rounds 3
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import graft
from graft.tls import CertificateAuthority

MEMBER = """
import sys, graft, graft.tls

class Nothing(graft.StateMachine):
    def __init__(self):
        self.count = 0
    @graft.command
    def go(self, text: str) -> int:
        self.count += 1
        return self.count

if __name__ == "__main__":
    id_, directory, cert, key, ca, *members = sys.argv[1:]
    members = dict(member.split("=") for member in members)
    with graft.Node(Nothing(), id=id_, address=members[id_], data_dir=f"{directory}/{id_}", members=members,
                    tls=graft.TLS(ca=ca, cert=cert, key=key)) as node:
        node.wait_ready(30)
        print("ready", flush=True)
        sys.stdin.read()
"""
INFLIGHT = 64
FLOODS = ("silent", "garbage", "stranger")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in sockets]


def flood(kind: str, ports: list[int], files: tuple[str, str] | None, until: float) -> int:
    """Knocks until then; how often."""
    count, open_ = 0, []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if files is not None:
        context.load_cert_chain(*files)
    while time.monotonic() < until:
        for port in ports:
            with contextlib.suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", port), timeout=5)
                count += 1
                if kind == "silent":
                    open_.append(connection)
                    if len(open_) > 500:
                        open_.pop(0).close()
                    continue
                with connection:
                    if kind == "garbage":
                        connection.sendall(os.urandom(512))
                        connection.recv(64)
                    else:
                        with context.wrap_socket(connection) as secured:
                            secured.recv(64)
    return count


async def writes(client: graft.AsyncClient[Any], command: Any, seconds: float) -> tuple[float, float, int]:
    """Commands a second, the 99th percentile of their time in milliseconds, and how many failed."""
    times: list[float] = []
    failed, until = 0, time.monotonic() + seconds

    async def lane() -> None:
        nonlocal failed
        while (begun := time.monotonic()) < until:
            try:
                await client.execute(command, "x" * 128)
                times.append(time.monotonic() - begun)
            except graft.GraftError:
                failed += 1

    await asyncio.gather(*(lane() for _ in range(INFLIGHT)))
    return len(times) / seconds, sorted(times)[len(times) * 99 // 100] * 1e3, failed


def start_members(stack: ExitStack, authority: CertificateAuthority, place: Path, members: list[str]) -> None:
    """Three processes, ready when this returns."""
    for n in range(3):
        ca, cert, key = map(str, authority.node(f"n{n + 1}")._material)
        words = [sys.executable, str(place / "flood_member.py"), f"n{n + 1}", str(place), cert, key, ca, *members]
        node = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        stack.callback(node.wait)
        stack.callback(node.kill)
        if n == 2:
            assert node.stdout
            node.stdout.readline()


async def measure(options: argparse.Namespace, place: Path) -> list[dict[str, Any]]:
    """Every round, quiet and under each flood."""
    authority = CertificateAuthority.create(place / "tls", "bench")
    other = CertificateAuthority.create(place / "other", "bench").client("stranger")._material
    ports = free_ports(3)
    members = [f"n{n + 1}=127.0.0.1:{port}" for n, port in enumerate(ports)]
    (place / "flood_member.py").write_text(MEMBER)
    sys.path.insert(0, str(place))
    from flood_member import Nothing  # type: ignore[import-not-found]

    rows = []
    with ExitStack() as stack:
        start_members(stack, authority, place, members)
        pool = stack.enter_context(get_context("spawn").Pool(options.processes))
        addresses = [f"127.0.0.1:{port}" for port in ports]
        async with graft.AsyncClient(addresses, Nothing, tls=authority.client("bench", "operator")) as client:
            await writes(client, Nothing.go, 1)
            for number in range(options.rounds):
                for kind in ("quiet", *FLOODS):
                    term = (await client.status()).term
                    until = time.monotonic() + options.seconds + 0.5
                    files = (str(other[1]), str(other[2])) if kind == "stranger" else None
                    knocking = [
                        pool.apply_async(flood, (kind, ports, files, until)) for _ in range(options.processes)
                    ] if kind != "quiet" else []  # fmt: skip
                    rate, slow, failed = await writes(client, Nothing.go, options.seconds)
                    knocks = sum(job.get() for job in knocking) / options.seconds
                    terms = (await client.status()).term - term
                    rows.append({"round": number, "kind": kind, "per_second": rate, "p99_ms": slow, "failed": failed,
                                 "elections": terms, "knocks_per_second": knocks})  # fmt: skip
    return rows


def main() -> None:
    """Measures, and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="graft-flood-") as directory:
        rows = asyncio.run(measure(options, Path(directory)))
    if options.json:
        options.json.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quiet = {row["round"]: row["per_second"] for row in rows if row["kind"] == "quiet"}
    print(f"{'':10}{'commands/s':>12}{'of quiet':>10}{'p99 ms':>9}{'knocks/s':>10}{'failed':>8}{'elections':>10}")
    for kind in ("quiet", *FLOODS):
        own = [row for row in rows if row["kind"] == kind]
        ratio = statistics.median(row["per_second"] / quiet[row["round"]] for row in own)
        middle = {
            name: statistics.median(row[name] for row in own) for name in ("per_second", "p99_ms", "knocks_per_second")
        }
        failed, elections = sum(row["failed"] for row in own), sum(row["elections"] for row in own)
        print(f"{kind:10}{middle['per_second']:12.0f}{ratio:10.2f}{middle['p99_ms']:9.1f}"
              f"{middle['knocks_per_second']:10.0f}{failed:8}{elections:10}")  # fmt: skip


if __name__ == "__main__":
    main()
