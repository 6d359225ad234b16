"""Calls from Python on other systems, each from a process of its own, for `benches/bench.py`.

`python python_peers.py etcd ADDRESS` puts by grpcio. `python python_peers.py pysyncobj|tuned DIRECTORY OWN OTHER…` is a
member of PySyncObj, with its defaults, or as fast as it gets and with a journal; its calls are made there. Both
say what they are when they are ready, and take loads as `python_load.serve` has them.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import python_load

if TYPE_CHECKING:
    from collections.abc import Callable

BYTES = 128


def field(number: int, data: bytes) -> bytes:
    """Bytes as a field of a protobuf message; no longer than 16383."""
    size = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return bytes([number << 3 | 2]) + size + data


def etcd(address: str) -> None:
    """Puts to the member there."""
    import grpc

    with grpc.insecure_channel(address) as channel:
        put = channel.unary_unary("/etcdserverpb.KV/Put", request_serializer=None, response_deserializer=None)
        value = field(2, b"x" * BYTES)
        put(field(1, b"first") + value, timeout=30, wait_for_ready=True)
        serve(lambda number: put(field(1, b"key-%04d" % (number % 1024)) + value, timeout=30))


def pysyncobj(directory: str, own: str, others: list[str], *, tuned: bool) -> None:
    """A dictionary, replicated by PySyncObj. Nothing that it writes is synced."""
    pysyncobj: Any = importlib.import_module("pysyncobj")
    base: Any = pysyncobj.SyncObj

    class Words(base):  # type: ignore[misc]
        def __init__(self) -> None:
            told: dict[str, Any] = {"autoTickPeriod": 0.001, "appendEntriesUseBatch": False} if tuned else {}
            if tuned:
                told["journalFile"] = f"{directory}/{own.rpartition(':')[2]}"
            super().__init__(own, others, pysyncobj.SyncObjConf(**told))
            self.words: dict[str, str] = {}

        def put(self, key: str, value: str) -> int:
            self.words[key] = value
            return len(self.words)

        put = pysyncobj.replicated(put)

    # Without batches it warns, many times a second, that its members may have diverged.
    logging.disable()
    words: Any = Words()
    words.waitReady()
    while words._getLeader() is None:
        time.sleep(0.01)
    value = "x" * BYTES
    role = "leader" if words._isLeader() else "follower"
    serve(lambda number: words.put(f"key-{number % 1024:04}", value, sync=True), role)


def serve(call: Callable[[int], object], role: str = "client") -> None:
    """On threads, one for each call in flight."""
    print(role, flush=True)
    python_load.serve(lambda load: python_load.threads(call, load["depth"], load["seconds"]))


def main() -> None:
    """Lives until its input ends."""
    kind, *words = sys.argv[1:]
    if kind == "etcd":
        etcd(*words)
    else:
        pysyncobj(words[0], words[1], words[2:], tuned=kind == "tuned")


if __name__ == "__main__":
    main()
