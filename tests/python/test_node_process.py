# ruff: noqa: E501 - tables and programs read best unbroken
"""A node and its process: signals, forks, exits. Each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PRELUDE = """
import contextlib, os, signal, sys, threading, time, warnings
warnings.simplefilter("error")
import graft
from machines import Bank, Everything
def node(machine=None, **settings):
    settings = {"id": "n1", "address": "127.0.0.1:0", "data_dir": None, **settings}
    return graft.Node(machine or Bank(), **settings)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]),
        "GRAFT_ALLOW_DEBUG": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-u", "-c", PRELUDE + code, *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"it hangs\n{out}\n{err}")
    return process.returncode, out, err


def clean(code: str) -> str:
    returncode, out, err = finish(start(code))
    assert (returncode, err) == (0, ""), err
    return out


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


BLOCKING = {
    "execute": "n.options(timeout=50).execute(Everything.wait)",
    "query": "n.submit(Everything.wait); n.machine._entered.wait(); n.options(timeout=50, consistency='stale').query(Everything.count)",
    "execute_many": "n.options(timeout=50).execute_many([(Everything.wait,)])",
    "wait_ready": "m.wait_ready(50)",
}


@pytest.mark.parametrize("verb", BLOCKING)
def test_ctrl_c_ends_a_blocking_call_at_once(verb):
    code = f"""
n = node(Everything()).start().wait_ready()
m = node(id="m1", address="127.0.0.1:59999", members={{"m1": "127.0.0.1:59999", "m2": "127.0.0.1:1", "m3": "127.0.0.1:2"}}).start()
main = threading.main_thread().ident
def watch():
    def names(frame):
        while frame is not None:
            yield frame.f_code.co_name, os.path.basename(frame.f_code.co_filename)
            frame = frame.f_back
    while not {{("{verb}", "_verbs.py"), ("{verb}", "_node.py")}} & set(names(sys._current_frames()[main])):
        time.sleep(0.002)
    print("ready", flush=True)
threading.Thread(target=watch, daemon=True).start()
try:
    {BLOCKING[verb]}
except KeyboardInterrupt:
    print(time.time(), flush=True)
n.machine._gate.set()
n.stop(); m.stop()
"""
    process = start(code)
    assert line(process) == "ready"
    sent = time.time()
    process.send_signal(signal.SIGINT)
    returncode, out, err = finish(process)
    assert (returncode, err) == (0, ""), err
    assert float(out) - sent < 0.1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_forever_ends_well(number):
    code = """
before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
n = node()
def say():
    while signal.getsignal(signal.SIGTERM) is before[0]:
        time.sleep(0.005)
    print("serving", flush=True)
threading.Thread(target=say).start()
n.serve_forever()
assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
print(n.status().role)
"""
    process = start(code)
    assert line(process) == "serving"
    process.send_signal(number)
    assert finish(process, 20) == (0, "stopped\n", "")


def test_serve_forever_ends_when_the_node_is_stopped():
    code = """
n = node()
before = signal.getsignal(signal.SIGTERM)
def stop():
    while signal.getsignal(signal.SIGTERM) is before:
        time.sleep(0.005)
    n.stop()
threading.Thread(target=stop).start()
n.serve_forever()
print("done")
"""
    assert clean(code) == "done\n"


def test_serve_forever_raises_when_the_replica_halts():
    code = """
n = node(Everything()).start().wait_ready()
n.submit(Everything.raise_this, "OSError")
try:
    n.serve_forever()
except graft.Halted as error:
    print("told so" in str(error), n.status().role)
"""
    assert clean(code) == "True stopped\n"


def test_start_installs_no_signal_handler():
    code = """
before = [signal.getsignal(s) for s in range(1, 30)]
with node() as n:
    n.wait_ready()
    assert [signal.getsignal(s) for s in range(1, 30)] == before
"""
    clean(code)


FORK = """
warnings.simplefilter("ignore", DeprecationWarning)
n = node().start().wait_ready()
n.execute(Bank.deposit, "ann", 1)
n.submit(Bank.deposit, "ann", 1).result()
child = os.fork()
if child == 0:
    for call in (lambda: n.execute(Bank.deposit, "ann", 1), lambda: n.query(Bank.balance, "ann"), lambda: n.submit(Bank.deposit, "ann", 1),
                 n.status, n.stop, n.start, n.wait_ready):
        try:
            call()
        except graft.Stopped as error:
            assert "forked from" in str(error) and "spawn" in error.fix, error
        else:
            os._exit(3)
    repr(n)
    if len(sys.argv) > 1:
        sys.exit(0)
    del n
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert n.execute(Bank.deposit, "ann", 1) == 3
assert os.path.isdir(n._temporary)
n.stop()
print(status)
"""


@pytest.mark.parametrize("arguments", [(), ("exit",)])
def test_a_fork_is_told_what_to_do_and_harms_nobody(arguments):
    assert finish(start(FORK, *arguments)) == (0, "0\n", "")


FORK_READERS = """
warnings.simplefilter("ignore", DeprecationWarning)
class Talk(graft.StateMachine):
    @graft.command
    def say(self) -> None:
        for n in range(50):
            self.context.emit("words", n)
with node(Talk()) as n:
    n.wait_ready()
    watches, events, ended = [n.watch("words") for _ in range(20)], n.events(), threading.Event()
    def talk():
        while not ended.is_set():
            n.execute_many([(Talk.say,)] * 50)
    talking = [threading.Thread(target=talk) for _ in range(2)]
    for thread in talking:
        thread.start()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            with contextlib.suppress(graft.Stopped):
                next(watches[0])
                os._exit(3)
            watches.pop().close()
            del watches, events
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    ended.set()
    for thread in talking:
        thread.join()
    assert next(watches[0])
"""


def test_a_fork_lets_go_of_watches_that_others_are_at():
    assert finish(start(FORK_READERS)) == (0, "0\n" * 20, "")


def test_exit_with_live_nodes_is_clean_and_quick():
    code = """
import random
n = node().start()
if random.random() < 0.5:
    n.wait_ready()
    n.submit(Bank.deposit, "ann", 1)
    def busy():
        with contextlib.suppress(graft.GraftError):
            for _ in range(1000):
                n.submit(Bank.deposit, "ann", 1)
    threading.Thread(target=busy, daemon=True).start()
"""

    def one(_: int) -> tuple[int, str, str]:
        begun = time.monotonic()
        done = finish(start(code), 60)
        assert time.monotonic() - begun < 30
        return done

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, range(100)))
    assert results == [(0, "", "")] * 100


def test_exit_in_the_middle_of_a_command():
    code = """
n = node(Everything()).start().wait_ready()
n.submit(Everything.wait)
threading.Timer(0.5, n.machine._gate.set).start()
"""
    assert clean(code) == ""


def test_exit_after_an_exception():
    returncode, _, err = finish(start("n = node().start().wait_ready()\nraise ValueError('mine')"))
    assert returncode == 1
    assert err.strip().endswith("ValueError: mine")


def test_the_engines_log_comes_under_graft():
    code = """
import logging
seen = []
class Keep(logging.Handler):
    def emit(self, record): seen.append(record)
logging.getLogger("graft").addHandler(Keep())
logging.getLogger("graft").setLevel(logging.DEBUG)
with node() as n:
    n.wait_ready()
deadline = time.monotonic() + 20
while not seen and time.monotonic() < deadline:
    time.sleep(0.01)
print(bool(seen), all(r.name.split(".")[0] == "graft" for r in seen), all(abs(r.created - time.time()) < 60 for r in seen))
"""
    assert clean(code) == "True True True\n"
