"""The same load from Python on other systems, for `benches/bench.py`: etcd by grpcio, and PySyncObj, where they are."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which nobody listens."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]


def rate(call: Callable[[int], None], depth: int, seconds: float) -> float:
    """Calls per second of so many threads that each wait for their answer."""
    counts = [0] * depth
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < end:
            call(number)
            counts[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(depth)]
    begun = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - begun)


def field(number: int, data: bytes) -> bytes:
    """Bytes as a field of a protobuf message; no longer than 16383."""
    size = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return bytes([number << 3 | 2]) + size + data


def etcd(depths: list[int], seconds: float, size: int) -> dict[int, float]:
    """Puts per second through the leader's clients of etcd, three members, by depth."""
    if not shutil.which("etcd"):
        return {}
    import grpc

    peers, clients = free_ports(3), free_ports(3)
    cluster = ",".join(f"e{n}=http://127.0.0.1:{peers[n]}" for n in range(3))
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(dir="target"))
        for n in range(3):
            peer, client = f"http://127.0.0.1:{peers[n]}", f"http://127.0.0.1:{clients[n]}"
            words = f"""etcd --data-dir {directory}/e{n} --name e{n} --initial-cluster {cluster}
                --listen-peer-urls {peer} --initial-advertise-peer-urls {peer}
                --listen-client-urls {client} --advertise-client-urls {client}"""
            quiet = subprocess.DEVNULL
            member = subprocess.Popen(words.split(), stdout=quiet, stderr=quiet)
            stack.callback(member.wait)
            stack.callback(member.kill)
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{clients[0]}"))
        put = channel.unary_unary("/etcdserverpb.KV/Put", request_serializer=None, response_deserializer=None)
        value = field(2, b"x" * size)
        put(field(1, b"first") + value, timeout=30, wait_for_ready=True)
        return {
            depth: rate(lambda number: put(field(1, b"key-%d" % number) + value, timeout=30), depth, seconds)
            for depth in depths
        }


SYNCOBJ = """
    import sys
    from pysyncobj import SyncObj, replicated
    class Words(SyncObj):
        def __init__(self, own, others):
            super().__init__(own, others)
            self.words = {}
        @replicated
        def put(self, key, value):
            self.words[key] = value
            return len(self.words)
"""


def pysyncobj(depths: list[int], seconds: float, size: int) -> dict[int, float]:
    """Replicated calls per second of PySyncObj with its defaults (which put nothing on a disk), by depth."""
    if importlib.util.find_spec("pysyncobj") is None:
        return {}
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    body = textwrap.dedent(SYNCOBJ)
    names: dict[str, type] = {}
    with ExitStack() as stack:
        for n in (1, 2):
            own, others = addresses[n], [address for address in addresses if address != addresses[n]]
            member = subprocess.Popen([sys.executable, "-c", f"{body}\nWords({own!r}, {others!r})\nsys.stdin.read()"],
                                      stdin=subprocess.PIPE)  # fmt: skip
            stack.callback(member.wait)
            stack.callback(member.kill)
        exec(body, names)
        words = names["Words"](addresses[0], addresses[1:])
        words.waitReady()
        value = "x" * size
        found = {
            depth: rate(lambda number: words.put(f"key-{number}", value, sync=True), depth, seconds) for depth in depths
        }
        words.destroy()
        return found
