"""The awaitable mirror."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import types
import weakref

import graft
import pytest
from graft import _loops
from machines import Bank, Everything
from nodes import DEADLINE_SECONDS


def run(main):
    return asyncio.run(asyncio.wait_for(main, 60))


def test_1000_tasks_at_once(node):
    async def main():
        values = await asyncio.gather(*(node.aio.execute(Bank.deposit, "ann", 1) for _ in range(1000)))
        return sorted(values), await node.aio.query(Bank.balance, "ann")

    assert run(main()) == (list(range(1, 1001)), 1000)


def test_through_every_member(trio):
    async def main():
        nodes = list(trio.nodes.values())
        await asyncio.gather(*(nodes[n % 3].aio.execute(Bank.deposit, "ann", 1) for n in range(90)))
        return [await node.aio.query(Bank.balance, "ann") for node in nodes]

    assert run(main()) == [90, 90, 90]


def test_one_loop_after_another(node):
    for expected in range(1, 6):
        assert run(node.aio.execute(Bank.deposit, "ann", 1)) == expected


def test_several_loops_at_once(node):
    async def main():
        def other():
            return asyncio.run(node.aio.execute(Bank.deposit, "ann", 1))

        return await asyncio.gather(
            *(asyncio.to_thread(other) for _ in range(8)), node.aio.execute(Bank.deposit, "ann", 1)
        )

    assert sorted(run(main())) == list(range(1, 10))


def test_a_loop_is_not_kept_alive(node):
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(node.aio.execute(Bank.deposit, "ann", 1)) == 1
    loop.close()
    gone = weakref.ref(loop)
    del loop
    gc.collect()
    assert gone() is None


def test_exceptions(node):
    async def main():
        with pytest.raises(graft.ApplyError, match="positive"):
            await node.aio.execute(Bank.deposit, "ann", -1)
        with pytest.raises(TypeError, match="expected int, got str"):
            await node.aio.execute(Bank.deposit, "ann", "1")
        with pytest.raises(TypeError, match="is a query"):
            await node.aio.execute(Bank.balance, "ann")
        return await node.aio.execute_many([(Bank.deposit, "ann", 1), ("deposit", "ann", -1)], return_errors=True)

    first, second = run(main())
    assert first == 1
    assert isinstance(second, graft.ApplyError)


def test_cancelling_disturbs_nobody(node):
    async def main():
        tasks = [asyncio.create_task(node.aio.execute(Bank.deposit, "ann", 1)) for _ in range(200)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, (int, asyncio.CancelledError)) for result in results)
        assert all(isinstance(result, int) for result in results[1::2])
        return await node.aio.execute(Bank.deposit, "ann", 1)

    assert 101 <= run(main()) <= 201


def test_a_timeout_of_asyncio(tmp_path):
    machine = Everything()

    async def main():
        async with graft.Node(machine, id="n1", address="127.0.0.1:0", data_dir=None).aio as node:
            await node.aio.wait_ready(DEADLINE_SECONDS)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await node.aio.execute(Everything.wait)
            machine._gate.set()
            assert await node.aio.execute(Everything.echo, 7) == 7

    run(main())


def test_calls_go_on_while_another_thread_is_importing_asyncio(node, monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncio", types.ModuleType("asyncio"))
    assert node.execute(Bank.deposit, "importing", 1) == 1


def test_blocking_calls_are_refused_in_a_loop(node):
    async def main():
        for verb, call in {
            "execute": lambda: node.execute(Bank.deposit, "ann", 1),
            "query": lambda: node.query(Bank.balance, "ann"),
            "execute_many": lambda: node.execute_many([(Bank.deposit, "ann", 1)]),
            "wait_ready": node.wait_ready,
        }.items():
            with pytest.raises(
                RuntimeError, match=rf"would block the running event loop: write `await node.aio.{verb}\("
            ):
                call()
        assert node.status().role == "leader"
        return await asyncio.wrap_future(node.submit(Bank.deposit, "ann", 1))

    assert run(main()).value == 1


def test_they_work_in_a_notebook(node, monkeypatch):
    from types import SimpleNamespace

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(__import__("sys").modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))

    async def main():
        return node.execute(Bank.deposit, "ann", 1)

    assert run(main()) == 1


def test_stopping_ends_what_is_awaited():
    machine = Everything()

    async def main():
        node = await graft.Node(machine, id="n1", address="127.0.0.1:0", data_dir=None).aio.start()
        await node.aio.wait_ready(DEADLINE_SECONDS)
        waiting = asyncio.create_task(node.aio.options(timeout=50).execute(Everything.wait))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(node.aio.stop())
        machine._gate.set()
        await stopping
        result = (await asyncio.gather(waiting, return_exceptions=True))[0]
        assert isinstance(result, (int, graft.GraftError))
        with pytest.raises(graft.Stopped):
            await node.aio.execute(Everything.echo, 1)

    run(main())


class NoReader(asyncio.SelectorEventLoop):
    """A loop as Windows has it."""

    def add_reader(self, *args):
        raise NotImplementedError


def test_a_loop_that_cannot_watch_descriptors(node):
    with asyncio.Runner(loop_factory=NoReader) as runner:

        async def main():
            return await asyncio.gather(*(node.aio.execute(Bank.deposit, "ann", 1) for _ in range(100)))

        assert sorted(runner.run(main())) == list(range(1, 101))


def test_uvloop(node):
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def main():
            return await asyncio.gather(*(node.aio.execute(Bank.deposit, "ann", 1) for _ in range(300)))

        assert sorted(runner.run(main())) == list(range(1, 301))


def test_one_wake_up_delivers_many(node, monkeypatch):
    drains: list[int] = []
    settle = _loops.LoopCalls.settle

    def counting(self, outcomes):
        drains.append(len(outcomes))
        settle(self, outcomes)

    monkeypatch.setattr(_loops.LoopCalls, "settle", counting)

    async def main():
        await asyncio.gather(*(node.aio.execute(Bank.deposit, "ann", 1) for _ in range(1000)))

    run(main())
    assert sum(drains) == 1000
    assert len(drains) < 50


def test_what_is_called_in_one_turn_is_sent_together(node, monkeypatch):
    sent: list[tuple[object, int]] = []
    send = _loops._Batch.send

    def counting(self, queue):
        sent.append((self.reading and self.reading.consistency, len(self.bodies)))
        send(self, queue)

    monkeypatch.setattr(_loops._Batch, "send", counting)

    async def main():
        aio, stale = node.aio, node.options(consistency="stale").aio
        calls = [aio.execute(Bank.deposit, "ann", 1) for _ in range(3)]
        calls += [aio.query(Bank.balance, "ann"), stale.query(Bank.balance, "ann"), stale.query(Bank.balance, "ann")]
        calls += [aio.options(timeout=7).execute(Bank.deposit, "ann", 1), aio.snapshot()]
        return await asyncio.gather(*calls)

    first = run(main())
    assert first[:3] == [1, 2, 3]
    assert first[6] == 4
    assert sent == [(None, 3), ("linearizable", 1), ("stale", 2), (None, 1)]
    sent.clear()

    async def many():
        return await asyncio.gather(*(node.aio.query(Bank.balance, "ann") for _ in range(2500)))

    assert run(many()) == [4] * 2500
    assert sent == [("linearizable", 1024), ("linearizable", 1024), ("linearizable", 452)]


def test_calls_that_cannot_be_sent_end(node, monkeypatch):
    def refusing(_batch, _queue):
        raise graft.Stopped("there is nobody")

    async def main():
        with monkeypatch.context() as patch:
            patch.setattr(_loops._Batch, "send", refusing)
            calls = (node.aio.execute(Bank.deposit, "ann", 1) for _ in range(3))
            errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(error) for error in errors] == [str(graft.Stopped("there is nobody"))] * 3
        return await node.aio.execute(Bank.deposit, "ann", 1)

    assert run(main()) == 1


def test_how_a_call_fails_that_was_cancelled_at_once_is_no_news(node):
    told: list[object] = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
        hasty = node.options(timeout=1e-6).aio
        for _ in range(10):
            hasty.submit(Bank.deposit, "ann", 1).cancel()
        with pytest.raises(graft.GraftError):
            await hasty.execute(Bank.deposit, "ann", 1)
        await node.aio.execute(Bank.deposit, "ann", 1)
        gc.collect()

    run(main())
    assert told == []


def test_a_call_that_is_submitted_last_is_sent(node):
    async def main():
        node.aio.submit(Bank.deposit, "ann", 1)

    asyncio.run(main())
    assert node.execute(Bank.deposit, "ann", 1) == 2


async def _blocking(function, *args, **kwargs):
    """`asyncio.to_thread`, where the thread is done before the loop goes on."""
    thread = threading.Thread(target=lambda: function(*args, **kwargs))
    thread.start()
    thread.join()


def test_what_was_submitted_is_in_flight_when_the_end_begins(trio, tmp_path, monkeypatch):
    monkeypatch.setattr(asyncio, "to_thread", _blocking)
    alone = graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path / "alone")

    async def main():
        async with alone.aio:
            await alone.aio.wait_ready(DEADLINE_SECONDS)
            by_node = alone.aio.submit(Bank.deposit, "ann", 1)
        async with graft.AsyncClient(list(trio.members.values()), Bank) as client:
            await client.execute(Bank.deposit, "ann", 1)
            by_client = client.submit(Bank.deposit, "ann", 1)
        return (await by_node).value, (await by_client).value

    assert run(main()) == (1, 2)


def test_an_interrupt_leaves_no_later_call_behind(node, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    async def main():
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.get_running_loop(), "call_soon", interrupted)
            with pytest.raises(KeyboardInterrupt):
                node.aio.submit(Bank.deposit, "ann", 1)
        return await asyncio.wait_for(node.aio.execute(Bank.deposit, "ann", 1), DEADLINE_SECONDS)

    assert run(main()) == 1
