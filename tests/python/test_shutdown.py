"""A node that is told over the network to stop."""

from __future__ import annotations

import subprocess
import sys
import threading

import graft
import grpc
import pytest
from machines import Bank
from nodes import DEADLINE_SECONDS, free_addresses, until


def shut_down(address):
    """What an operator's program sends: an empty ShutdownRequest."""

    def as_it_is(body):
        return body

    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/graft.v1.Admin/Shutdown", as_it_is, as_it_is)
        call(b"", timeout=DEADLINE_SECONDS)


def test_serving_ends(tmp_path):
    (address,) = free_addresses(1)
    program = f"""
import graft
class Counter(graft.StateMachine):
    @graft.command
    def go(self) -> None: ...
node = graft.Node(Counter(), id="n1", address={address!r}, data_dir={str(tmp_path)!r}).start().wait_ready()
print("ready", flush=True)
node.serve_forever()
print(node.status().role)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        shut_down(address)
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_a_node_that_was_stopped_so_shows_it_and_is_stopped_again(trio):
    node = trio.followers()[0]
    watch = node.watch()
    ended = []

    def wait():
        with pytest.raises(graft.Stopped):
            next(watch)
        ended.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    shut_down(node.address)
    until(lambda: node.status().role == "stopped", "it shows that it is stopped")
    thread.join(DEADLINE_SECONDS)
    assert ended
    with pytest.raises(graft.Stopped):
        node.execute(Bank.deposit, "ann", 1)
    with pytest.raises(graft.Stopped):
        node.wait_ready()
    assert next(iter(node.events(since=0, timeout=0))).sequence == 1
    node.stop()
    node.stop()
    assert trio.leader().execute(Bank.deposit, "ann", 1) == 1, "the others go on"
