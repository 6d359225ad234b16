"""One node: its verbs and its life."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

import graft
import pytest
from graft._plan import COMMAND, QUERY
from machines import Bank, Everything, Lines, Point, SavingsBank
from nodes import DEADLINE_SECONDS, until


def alone(machine, directory=None, **settings):
    return graft.Node(machine, id="n1", address="127.0.0.1:0", data_dir=directory, **settings)


def test_execute_and_query(node):
    assert node.execute(Bank.deposit, "ann", 5) == 5
    assert node.execute("deposit", "ann", amount=2) == 7
    assert node.query(Bank.balance, "ann") == 7
    assert node.query("balance", "bob") == 0
    assert node.options(consistency="stale", timeout=5).query(Bank.balance, "ann") == 7


def test_the_proxy_looks_like_the_machine(node):
    assert node.proxy.deposit("ann", 5) == 5
    assert node.proxy.balance(who="ann") == 5
    with pytest.raises(AttributeError, match="no command or query 'withdraw'"):
        _ = node.proxy.withdraw
    with pytest.raises(AttributeError, match="only through commands"):
        node.proxy.accounts = {}


def test_the_proxy_tells_what_can_be_called(node):
    for calls in (node, node.aio, node.options(timeout=3)):
        assert dir(calls.proxy) == ["balance", "deposit", "total", "transfer"]
        assert all(callable(getattr(calls.proxy, name)) for name in dir(calls.proxy))
        assert repr(calls.proxy) == f"<proxy of Bank by {calls!r}: balance, deposit, total, transfer>"
    assert repr(node.options(timeout=3).aio).startswith("<awaitable calls of <graft.Node n1 at 127.0.0.1:")
    assert repr(node.options(timeout=3).aio).endswith(">, timeout=3, consistency='linearizable'>")
    raw = graft.Node(Lines(), id="n1", address="127.0.0.1:0", data_dir=None)
    assert dir(raw.proxy) == []
    assert "Lines by <graft.Node n1" in repr(raw.proxy)


def test_an_exception_comes_back(node):
    with pytest.raises(graft.ApplyError) as caught:
        node.execute(Bank.deposit, "ann", -1)
    error = caught.value
    assert (error.type_name, error.message) == ("ValueError", "amount must be positive")
    assert error.index > 0
    assert any("machines.py" in note and "ValueError" in note for note in error.__notes__)
    assert node.execute(Bank.deposit, "ann", 1) == 1


def test_wrong_calls_are_refused_here(node):
    last = node.status().last_index
    with pytest.raises(TypeError, match=r"node.query\(Bank.balance"):
        node.execute(Bank.balance, "ann")
    with pytest.raises(TypeError, match=r"node.execute\(Bank.deposit"):
        node.query(Bank.deposit, "ann", 1)
    with pytest.raises(TypeError, match="'amount': expected int, got str"):
        node.execute(Bank.deposit, "ann", "5")
    with pytest.raises(graft.ConfigError, match="timeout"):
        node.options(timeout=-1)
    with pytest.raises(graft.ConfigError, match="'linearizable', 'lease', 'stale'"):
        node.options(consistency="strong")
    assert node.status().last_index == last


def test_submit(node):
    futures = [node.submit(Bank.deposit, "ann", 1) for _ in range(200)]
    results = [future.result(DEADLINE_SECONDS) for future in futures]
    assert sorted(result.value for result in results) == list(range(1, 201))
    assert len({result.index for result in results}) == 200
    assert all(result.term >= 1 for result in results)
    assert node.submit(Bank.balance, "ann").result(DEADLINE_SECONDS).value == 200
    with pytest.raises(graft.ApplyError, match="positive"):
        node.submit("deposit", "ann", 0).result(DEADLINE_SECONDS)


def test_what_is_submitted_while_the_node_closes_is_answered(node):
    # As by a thread that is held up between asking for the way to the engine and using it.
    plans = [node._catalog.plan(COMMAND, Bank.deposit, ("ann", 1), {}), node._catalog.plan(QUERY, Bank.total, (), {})]
    native, notifier = node._engine("submit"), node._notifier()
    node.stop()
    for plan in plans:
        future = notifier.submit(native, plan, 5.0, node._reading)
        assert isinstance(future.exception(DEADLINE_SECONDS), graft.GraftError)


def test_what_was_sent_is_running_and_cannot_be_cancelled(node):
    futures = [node.submit(Bank.deposit, "ann", 1) for _ in range(100)]
    for future in futures:
        assert not future.cancel()
        assert not future.cancelled()
    assert sorted(future.result(DEADLINE_SECONDS).value for future in futures) == list(range(1, 101))
    assert node.execute(Bank.deposit, "ann", 1) == 101

    async def left():
        # Nobody waits any more, which is no matter of the call.
        future = node.submit(Bank.deposit, "ann", 1)
        waiting = asyncio.ensure_future(asyncio.wrap_future(future))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return future

    assert asyncio.run(left()).result(DEADLINE_SECONDS).value == 102


def test_execute_many(node):
    assert node.execute_many([(Bank.deposit, "ann", 1)] * 50) == list(range(1, 51))
    assert node.execute_many([]) == []
    calls = [(Bank.deposit, "ann", 1), ("deposit", "ann", -1), (Bank.transfer, "bob", "ann")]
    with pytest.raises(graft.ApplyError, match="positive") as caught:
        node.execute_many(calls)
    *_, note = caught.value.__notes__
    assert "2 of 3 commands failed, this one first, and none of them with an unknown outcome" in note
    results = node.execute_many(calls, return_errors=True)
    assert results[0] == 52
    assert [type(result) for result in results[1:]] == [graft.ApplyError] * 2
    with pytest.raises(TypeError, match="empty"):
        node.execute_many([()])


def test_a_raw_machine():
    with alone(Lines()) as node:
        node.wait_ready()
        assert node.execute(b"a") == 1
        assert node.execute(bytearray(b"b")) == 2
        assert node.query(b"0") == b"a"
        with pytest.raises(graft.ApplyError, match="boom it is"):
            node.execute(b"boom")
        assert node.submit(b"c").result(DEADLINE_SECONDS).value == 3


def test_types_arrive_as_annotated():
    from decimal import Decimal

    from machines import Colour, Money, Order

    with alone(Everything()) as node:
        node.wait_ready()
        money = Money(Decimal("1.5"))
        assert node.execute(Everything.rich, Point(1), money, Order(1, ["x"]), Colour.RED, {1, 2}) == Point(
            3, 1.5, ["RED", "x"]
        )


def test_a_subclass_takes_the_commands_of_its_base():
    with alone(SavingsBank()) as node:
        node.wait_ready()
        assert node.execute(Bank.deposit, "ann", 100) == 100
        assert node.execute(SavingsBank.interest, 5) == 105


def test_the_context_is_of_the_entry():
    with alone(Everything()) as node:
        node.wait_ready()
        index, term, time_, luck, _ = node.execute(Everything.lucky)
        result = node.submit(Everything.lucky).result(DEADLINE_SECONDS)
        assert result.value[0] == result.index > index
        assert result.value[1] == result.term == term
        assert result.value[2] >= time_
        assert result.value[3] != luck


def test_status(node):
    node.execute(Bank.deposit, "ann", 1)
    status = node.status()
    assert (status.id, status.role, status.leader, status.has_quorum, status.error) == (
        "n1",
        "leader",
        "n1",
        True,
        None,
    )
    assert status.address == node.address == status.leader_address
    assert not node.address.endswith(":0")
    assert status.last_index >= status.commit_index >= 1
    assert [(member.id, member.role, member.voter) for member in status.members] == [("n1", "leader", True)]
    assert "n1" in repr(node)
    assert "leader" in repr(node)


def test_restart_keeps_everything(tmp_path):
    for round_ in range(3):
        with alone(Bank(), tmp_path / "n1") as node:
            node.wait_ready()
            assert node.query(Bank.balance, "ann") == round_
            node.execute(Bank.deposit, "ann", 1)


def test_no_data_dir_is_a_temporary_one(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with alone(Bank()) as node:
        node.wait_ready()
        assert [path.name.startswith("graft-n1-") for path in tmp_path.iterdir()] == [True]
    assert list(tmp_path.iterdir()) == []


def test_before_start_and_after_stop():
    node = alone(Bank())
    assert node.status().role == "stopped"
    with pytest.raises(graft.Stopped, match="is not started") as caught:
        node.execute(Bank.deposit, "ann", 1)
    assert "start()" in caught.value.fix
    node.stop()
    assert node.start() is node
    assert node.start() is node
    node.wait_ready()
    future = node.submit(Bank.deposit, "ann", 1)
    future.result(DEADLINE_SECONDS)
    node.stop()
    node.stop()
    status = node.status()
    assert (status.role, status.leader) == ("stopped", None)
    for call in (
        lambda: node.execute(Bank.deposit, "a", 1),
        lambda: node.submit(Bank.deposit, "a", 1),
        node.wait_ready,
    ):
        with pytest.raises(graft.Stopped, match="is stopped"):
            call()
    with pytest.raises(graft.Stopped, match="cannot start again"):
        node.start()


def test_a_machine_belongs_to_one_node():
    bank = Bank()
    with alone(bank), pytest.raises(graft.ConfigError, match="already has the state of node n1"):
        alone(bank).start()


def test_the_machine_can_be_looked_at(node):
    node.execute(Bank.deposit, "ann", 5)
    assert node.machine.accounts == {"ann": 5}


def test_stopping_ends_calls_in_flight():
    machine = Everything()
    node = alone(machine).start().wait_ready()
    outcomes = []

    def call():
        try:
            outcomes.append(node.options(timeout=30).execute(Everything.wait))
        except graft.GraftError as error:
            outcomes.append(error)

    last = node.status().last_index
    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: node.status().last_index > last, "the command is in the log")
    future = node.submit(Everything.count)
    stopper = threading.Thread(target=node.stop)
    stopper.start()
    machine._gate.set()
    stopper.join(DEADLINE_SECONDS)
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert not stopper.is_alive()
    assert isinstance(outcomes[0], (int, graft.UnknownOutcome, graft.Stopped))
    assert future.exception(DEADLINE_SECONDS) is None or isinstance(future.exception(), graft.GraftError)


def test_a_command_that_calls_its_node_is_told_so():
    class Inward(graft.StateMachine):
        node: graft.Node[Inward]

        @graft.command
        def go(self, verb: str) -> None:
            getattr(NODES[0], verb)(Inward.go, verb) if verb != "stop" else NODES[0].stop()

    NODES: list[graft.Node[Inward]] = []
    with alone(Inward()) as node:
        NODES.append(node)
        node.wait_ready()
        for verb in ("execute", "query", "submit", "stop"):
            with pytest.raises(graft.ApplyError, match=r"RuntimeError|TypeError"):
                node.execute(Inward.go, verb)


@pytest.mark.parametrize("what", ["OSError", "MemoryError", "SystemExit", "Halt"])
def test_trouble_of_the_replica_halts_it(what):
    with alone(Everything()) as node:
        node.wait_ready()
        with pytest.raises(graft.GraftError) as caught:
            node.options(timeout=5).execute(Everything.raise_this, what)
        assert not isinstance(caught.value, graft.ApplyError)
        error = until(lambda: node.status().error, "the halt shows in the status")
        assert f"raised {what}: told so" in error
        assert "Traceback" in error
        with pytest.raises(graft.Halted, match="told so"):
            node.wait_ready()


def test_a_node_that_is_collected_warns_and_stops(tmp_path):
    node = alone(Bank(), tmp_path / "n1").start().wait_ready()
    with pytest.warns(ResourceWarning, match="node n1 was running when it was collected"):  # noqa: PT031
        del node
        gc.collect()
    with alone(Bank(), tmp_path / "n1") as again:
        again.wait_ready()


def test_a_debug_build_warns_once(monkeypatch):
    from graft import _engine

    class Debug:
        @staticmethod
        def build_info() -> dict[str, object]:
            return {"version": "0", "debug": True}

    monkeypatch.setattr(_engine, "load", Debug)
    monkeypatch.setattr(_engine, "_warned", False)
    monkeypatch.delenv("GRAFT_ALLOW_DEBUG", raising=False)
    with pytest.warns(RuntimeWarning, match="debug build") as caught:  # noqa: PT031
        alone(Bank())
        alone(Bank())
    assert len(caught) == 1
    assert Path(caught[0].filename).name == "test_node.py"
    monkeypatch.setattr(_engine, "_warned", False)
    monkeypatch.setenv("GRAFT_ALLOW_DEBUG", "1")
    alone(Bank())
