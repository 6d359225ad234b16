"""Ctrl-C in a call that nobody can answer, for want of a majority: it ends at once, and the node is still good."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import free_ports

# The promise is 100 ms. A busy machine may keep any one call waiting for longer, so the best of a few counts.
WITHIN_SECONDS = 0.1
TRIES = 5

PROGRAM = """
import json, sys, threading, time
import graft
from process_node import Tokens

told = json.loads(sys.argv[1])
node = graft.Node(Tokens(), id="n1", address=told["address"], data_dir=told["data_dir"], members=told["members"])
calls = {
    "execute": lambda: node.options(timeout=60).execute(Tokens.append, "a"),
    "query": lambda: node.options(timeout=60).query(Tokens.count),
    "execute_many": lambda: node.options(timeout=60).execute_many([(Tokens.append, "a"), (Tokens.append, "b")]),
    "wait_ready": lambda: node.wait_ready(60),
    "result": lambda: node.options(timeout=60).submit(Tokens.append, "a").result(),
}
main = threading.main_thread().ident

def announce():
    # The main thread is in the call once its frame says so; it stays there.
    while not any(name in WAITS for name in names(sys._current_frames()[main])):
        time.sleep(0.001)
    print("waiting", flush=True)

def names(frame):
    while frame is not None:
        yield frame.f_code.co_name
        frame = frame.f_back

WAITS = {"execute", "query", "execute_many", "wait_ready", "result"}
with node:
    for _ in range(told["tries"]):
        threading.Thread(target=announce).start()
        try:
            calls[told["verb"]]()
        except KeyboardInterrupt:
            print(time.monotonic(), flush=True)
    assert node.status().role != "failed"
"""


@pytest.mark.parametrize("verb", ["execute", "query", "execute_many", "wait_ready", "result"])
def test_ctrl_c_without_a_majority(tmp_path: Path, verb: str) -> None:
    ports = free_ports(3)
    members = {f"n{place + 1}": f"127.0.0.1:{port}" for place, port in enumerate(ports)}
    told = {"address": members["n1"], "members": members, "data_dir": str(tmp_path), "verb": verb, "tries": TRIES}
    command = [sys.executable, "-c", PROGRAM, json.dumps(told)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        took: list[float] = []
        for _ in range(TRIES):
            assert process.stdout.readline() == b"waiting\n", process.stderr.read().decode()
            sent = time.monotonic()
            process.send_signal(signal.SIGINT)
            took.append(float(process.stdout.readline()) - sent)
        errors = process.stderr.read().decode()
    assert (process.returncode, errors) == (0, "")
    assert min(took) < WITHIN_SECONDS, took
