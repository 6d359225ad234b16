"""What a client may be made of, and its beginning and end without a cluster."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
import warnings

import graft
import pytest
from machines import Bank, Lines, SavingsBank

NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("endpoints", "words"),
    [
        ("", "endpoints='' must have the form \"host:port\""),
        ("localhost", 'must have the form "host:port"'),
        ("127.0.0.1:7001,127.0.0.1:7002", 'must have the form "host:port"'),
        ("127.0.0.1:0", "cannot be 0"),
        ("127.0.0.1:70000", "at most 65535"),
        ("0.0.0.0:7001", "nobody can dial 0.0.0.0"),
        ("http://127.0.0.1:7001", 'must have the form "host:port"'),
        ([], "endpoints is empty"),
        ((), "endpoints is empty"),
        ([7001], "must be a str"),
        (["127.0.0.1:7001", None], "must be a str"),
        (7001, "endpoints=7001 must be an address"),
        (None, "endpoints=None must be an address"),
        (b"127.0.0.1:7001", "must be an address"),
        ({"n1": "127.0.0.1:7001"}, "must be an address"),
        ([f"127.0.0.1:{port}" for port in range(1, 100)], "endpoints names 99 addresses, and 64 at the most"),
    ],
)
def test_endpoints_that_will_not_do(endpoints, words):
    for kind in (graft.Client, graft.AsyncClient):
        with pytest.raises(graft.ConfigError) as caught:
            kind(endpoints, Bank)
        assert words in str(caught.value)


def test_endpoints_in_every_form():
    for endpoints in (NOBODY, [NOBODY], (NOBODY, NOBODY), {NOBODY}, (one for one in [NOBODY])):
        with graft.Client(endpoints, Bank) as client:
            assert client.endpoints == (NOBODY,)
    with graft.Client(["[::1]:7001", "example.org:7001"], Bank) as client:
        assert repr(client) == "<graft.Client of [::1]:7001, example.org:7001>"


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Bank(), "pass the class Bank, not an instance"),
        (Lines(), "pass the class Lines, not an instance"),
        (int, "must be a subclass of graft.StateMachine, not <class 'int'>"),
        (graft.StateMachine, "must be a subclass of graft.StateMachine"),
        (None, "must be a subclass of graft.StateMachine, not None"),
        (type("Empty", (graft.StateMachine,), {}), "Empty has no command"),
    ],
)
def test_what_is_no_machine(machine, words):
    for kind in (graft.Client, graft.AsyncClient):
        with pytest.raises(TypeError) as caught:
            kind(NOBODY, machine)
        assert words in str(caught.value)


def test_the_machine_is_never_made():
    class Refusing(Bank):
        def __init__(self) -> None:
            raise AssertionError("never")

    with graft.Client(NOBODY, Refusing) as client, pytest.raises(TypeError, match="argument 'amount'"):
        client.execute(Refusing.deposit, "ann", "5")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tls": object()}, "tls must be a graft.TLS"),
        ({"tls": True}, "not a bool"),
        ({"timeout": 0}, "timeout=0 must be a finite time"),
        ({"timeout": "soon"}, "timeout='soon'"),
        ({"session_ttl": "100ms"}, "session_ttl='100ms' is below 1 s"),
        ({"session_ttl": True}, "session_ttl=True"),
        ({"cluster": 7}, "cluster must be the id of a cluster, a str, not 7"),
        ({"cluster": "bank"}, "cluster='bank' is not the id of a cluster: it has 32 hexadecimal digits"),
        ({"cluster": "0" * 32}, "is not the id of a cluster"),
    ],
)
def test_options_that_will_not_do(options, words):
    for kind in (graft.Client, graft.AsyncClient):
        with pytest.raises(graft.ConfigError) as caught:
            kind(NOBODY, Bank, **options)
        assert words in str(caught.value)


def test_calls_that_do_not_fit_are_refused_before_anything_is_sent():
    with graft.Client(NOBODY, Bank) as client:
        for call, words in [
            (lambda: client.execute(Bank.balance, "ann"), "is a query"),
            (lambda: client.execute("deposti", "ann"), "no command or query 'deposti'"),
            (lambda: client.execute(SavingsBank.interest, 5), "not of this"),
            (lambda: client.submit(Bank.deposit, 7, 5), "argument 'who'"),
            (lambda: client.execute_many([(Bank.deposit, "ann", "5")]), "argument 'amount'"),
            (lambda: client.execute(b"raw"), "takes no bytes"),
        ]:
            with pytest.raises(TypeError, match=words):
                call()
        assert client._running is None, "nothing was opened for it"


def test_nobody_is_there():
    with graft.Client(["127.0.0.1:1", "127.0.0.1:2"], Bank, timeout="500ms") as client:
        for call in (
            lambda: client.execute(Bank.deposit, "ann", 5),
            lambda: client.query(Bank.balance, "ann"),
            lambda: client.options(consistency="stale").query(Bank.balance, "ann"),
            client.status,
            lambda: client.verify(timeout=0.5),
            lambda: client.snapshot(timeout=0.5),
            lambda: client.what_if(remove="n1"),
            lambda: list(client.members),
        ):
            begun = time.monotonic()
            with pytest.raises((graft.NoLeader, graft.NoQuorum, graft.Timeout)) as caught:
                call()
            assert time.monotonic() - begun < 5
            assert not isinstance(caught.value, graft.UnknownOutcome)
        assert "127.0.0.1:1" in client.why()
        assert "127.0.0.1:1" in repr(client.members)


def test_use_after_close():
    client = graft.Client(NOBODY, Bank)
    client.close()
    client.close()
    assert repr(client) == "<graft.Client of 127.0.0.1:1, closed>"
    for call in (
        lambda: client.execute(Bank.deposit, "ann", 5),
        lambda: client.submit(Bank.deposit, "ann", 5),
        client.status,
        client.watch,
        client.events,
        lambda: asyncio.run(client.aio.execute(Bank.deposit, "ann", 5)),
    ):
        with pytest.raises(graft.Stopped, match=r"the client of 127\.0\.0\.1:1 is closed"):
            call()


def test_closing_ends_the_calls_in_flight():
    client = graft.Client(NOBODY, Bank, timeout=30)
    futures = [client.submit(Bank.deposit, "ann", 1) for _ in range(100)]
    client.close()
    for future in futures:
        assert isinstance(future.exception(5), graft.GraftError)


@pytest.mark.parametrize("used", [False, True])
def test_a_client_that_is_forgotten_warns_and_closes(used):
    client = graft.Client(NOBODY, Bank)
    if used:
        client.submit(Bank.deposit, "ann", 1)
    with pytest.warns(ResourceWarning, match=r"the client of 127\.0\.0\.1:1 was open when it was collected"):
        client = gc.collect()


def test_a_client_that_was_closed_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = graft.Client(NOBODY, Bank)
        client.submit(Bank.deposit, "ann", 1)
        client.close()
        del client
        gc.collect()


def test_one_that_could_not_be_made_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for arguments in (("nowhere", Bank), (NOBODY, int), (NOBODY, Bank())):
            with pytest.raises((graft.ConfigError, TypeError)):
                graft.Client(*arguments)
        gc.collect()


def test_blocking_calls_in_an_event_loop_name_their_mirror():
    with graft.Client(NOBODY, Bank) as client:

        async def main():
            for verb, call in {
                "execute": lambda: client.execute(Bank.deposit, "ann", 1),
                "query": lambda: client.query(Bank.balance, "ann"),
                "status": client.status,
                "why": client.why,
                "verify": client.verify,
                "snapshot": client.snapshot,
                "what_if": lambda: client.what_if(remove="n1"),
            }.items():
                with pytest.raises(RuntimeError, match=rf"write `await client\.aio\.{verb}\(\.\.\.\)`"):
                    call()
            assert "client" in repr(client.members), "to look is no call"

        asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_process_is_refused_and_says_so():
    program = f"""
import gc, os, sys, warnings
warnings.simplefilter("ignore")
import graft
class Bank(graft.StateMachine):
    @graft.command
    def deposit(self) -> None: ...
client = graft.Client({NOBODY!r}, Bank)
client.submit(Bank.deposit)
child = os.fork()
if child == 0:
    try:
        client.execute(Bank.deposit)
    except graft.Stopped as error:
        if "forked" not in str(error) or "another process" not in repr(client):
            os._exit(2)
        del error, client
        gc.collect()
        os._exit(0)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
client.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_the_interpreter_exits_cleanly_with_a_client_open(kind):
    program = f"""
import graft
class Bank(graft.StateMachine):
    @graft.command
    def deposit(self) -> None: ...
client = graft.Client({NOBODY!r}, Bank)
client.submit(Bank.deposit)
other = graft.{kind}({NOBODY!r}, Bank)
"""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begun < 10


def test_a_client_loads_neither_grpc_nor_protobuf():
    program = f"""
import sys, graft
class Bank(graft.StateMachine):
    @graft.command
    def deposit(self) -> None: ...
with graft.Client({NOBODY!r}, Bank) as client:
    client.submit(Bank.deposit)
print([name for name in sys.modules if name.split(".")[0] in ("grpc", "google", "asyncio")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[]", done.stderr
