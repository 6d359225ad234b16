"""A client of a real cluster: everything a node can do, from outside."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import graft
import pytest
from machines import Bank, Everything
from nodes import DEADLINE_SECONDS, until


@pytest.fixture
def client(trio):
    with graft.Client(list(trio.members.values()), Bank, timeout=DEADLINE_SECONDS) as made:
        yield made


def arun(main):
    return asyncio.run(asyncio.wait_for(main, 60))


def test_commands_and_queries(client, trio):
    assert client.execute(Bank.deposit, "ann", 5) == 5
    assert client.execute("deposit", "ann", 5) == 10
    assert client.query(Bank.balance, "ann") == 10
    assert client.proxy.deposit("bob", 1) == 1
    assert client.proxy.balance("bob") == 1
    assert trio["n2"].query(Bank.total) == 11


def test_what_a_command_raises_is_its_answer(client):
    with pytest.raises(graft.ApplyError, match="positive") as caught:
        client.execute(Bank.deposit, "ann", -1)
    assert caught.value.type_name == "ValueError"
    assert "amount must be positive" in caught.value.traceback
    assert client.execute(Bank.deposit, "ann", 1) == 1


def test_many_calls_of_many_threads(client):
    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(lambda _: client.execute(Bank.deposit, "ann", 1), range(400))) == list(range(1, 401))
    futures = [client.submit(Bank.deposit, "ann", 1) for _ in range(400)]
    assert {future.result(DEADLINE_SECONDS).value for future in futures} == set(range(401, 801))
    assert client.execute_many([(Bank.deposit, "bob", 1)] * 400) == list(range(1, 401))
    assert client.submit(Bank.total).result(DEADLINE_SECONDS).value == 1200


def test_a_slow_command_does_not_hold_the_others_back(tmp_path):
    with graft.Node(Everything(), id="n1", address="127.0.0.1:0", data_dir=tmp_path) as node:
        node.wait_ready(DEADLINE_SECONDS)
        with graft.Client(node.address, Everything) as client:
            slow = client.submit(Everything.wait)
            until(node.machine._entered.is_set)
            with pytest.raises(graft.GraftError):
                client.options(timeout="100ms").execute(Everything.echo, 1)
            node.machine._gate.set()
            assert slow.result(DEADLINE_SECONDS).value == 0


@pytest.mark.parametrize(
    "options", [{}, {"consistency": "lease"}, {"consistency": "stale"}, {"consistency": "stale", "max_age": 5}]
)
def test_it_sees_what_it_wrote(client, trio, options):
    calls = client.options(**options)
    for number in range(1, 30):
        client.execute(Bank.deposit, "ann", 1)
        assert calls.query(Bank.balance, "ann") == number


def test_it_follows_the_leader(client, trio):
    for total in range(1, 4):
        client.execute(Bank.deposit, "ann", 1)
        other = trio.followers()[0].id
        client.members.transfer_leadership(other)
        assert client.execute(Bank.deposit, "bob", 1) == total
    assert client.query(Bank.total) == 6


def test_one_endpoint_is_enough(trio):
    with graft.Client(trio.followers()[0].address, Bank, timeout=DEADLINE_SECONDS) as client:
        client.execute(Bank.deposit, "ann", 1)
        trio.followers()[0].stop()
        trio.leader()
        for number in range(2, 10):
            assert client.execute(Bank.deposit, "ann", 1) == number


def test_nothing_is_lost_or_done_twice_when_the_leader_goes(client, trio):
    ended = threading.Event()
    done = []

    def work():
        while not ended.is_set():
            try:
                done.append(client.execute(Bank.deposit, "ann", 1))
            except graft.UnknownOutcome as error:
                done.append(error.resolve(DEADLINE_SECONDS))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(done) > 50)
    trio.leader().stop()
    count = len(done)
    until(lambda: len(done) > count + 200)
    ended.set()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert sorted(done) == list(range(1, len(done) + 1)), "each answer once"
    assert client.query(Bank.balance, "ann") == len(done)


def test_members_from_outside(client, group, trio):
    assert [member.id for member in client.members] == ["n1", "n2", "n3"]
    assert "n2" in client.members
    assert client.members["n1"].address == trio.members["n1"]
    assert "n3" in repr(client.members)
    newcomer = group.waiting("n4")
    steps = []
    added = client.members.add("n4", newcomer.address, progress=lambda step: steps.append(str(step)))
    assert (added.id, added.voter) == ("n4", True)
    assert steps[0] == "adding n4: asked for"
    assert steps[-1] == "adding n4: done"
    assert [member.id for member in client.members.remove("n4")] == ["n1", "n2", "n3"]
    assert client.what_if(remove="n1").needed == 2
    with pytest.raises(graft.MembershipRefused):
        client.members.remove("n9")


def test_the_state_of_things(client, trio):
    status = client.status()
    assert status.id in trio.members
    assert status.leader == trio.leader().id
    assert status.leader_address == trio.leader().address
    assert {member.id for member in status.members} == set(trio.members)
    assert status.cluster == trio["n1"].status().cluster
    assert "all is well" in client.why()
    client.execute(Bank.deposit, "ann", 1)
    assert client.verify().agree
    assert client.snapshot() > 0
    kinds = {event.kind for event in client.events(since=0, timeout=1)}
    assert "leader" in kinds


def test_the_same_for_await(trio):
    async def main():
        async with graft.AsyncClient(list(trio.members.values()), Bank, timeout=DEADLINE_SECONDS) as client:
            assert "AsyncClient" in repr(client)
            values = await asyncio.gather(*(client.execute(Bank.deposit, "ann", 1) for _ in range(500)))
            assert sorted(values) == list(range(1, 501))
            assert await client.execute_many([(Bank.deposit, "bob", 1)] * 100) == list(range(1, 101))
            assert await client.options(consistency="stale").query(Bank.balance, "ann") == 500
            with pytest.raises(graft.ApplyError, match="positive"):
                await client.execute(Bank.deposit, "ann", -1)
            assert (await client.status()).leader == trio.leader().id
            assert [member.id async for member in client.members] == ["n1", "n2", "n3"]
            assert "all is well" in await client.why()
            assert (await client.what_if(demote="n1")).allowed
            assert (await client.verify()).agree
            assert await client.snapshot() > 0
            other = trio.followers()[0].id
            assert (await client.members.transfer_leadership(other)).id == other
            assert await client.query(Bank.total) == 600
        with pytest.raises(graft.Stopped):
            await client.execute(Bank.deposit, "ann", 1)

    arun(main())


def test_awaitable_calls_are_sent_when_they_are_submitted(trio):
    async def main():
        async with graft.AsyncClient(list(trio.members.values()), Bank, timeout=DEADLINE_SECONDS) as client:
            sent = [client.submit(Bank.deposit, "ann", 1) for _ in range(200)]
            # Nobody awaits them, and they are on their way: another call, made later, is answered after some of them.
            while not all(one.done() for one in sent):
                await client.execute(Bank.deposit, "bob", 1)
            results = await asyncio.gather(*sent)
            assert sorted(result.value for result in results) == list(range(1, 201))
            assert len({result.index for result in results}) == 200
            seen = await client.submit(Bank.balance, "ann")
            assert (seen.value, seen.index >= max(result.index for result in results)) == (200, True)
            assert (await client.submit("deposit", "ann", 1)).value == 201
            with pytest.raises(graft.ApplyError, match="positive"):
                await client.submit(Bank.deposit, "ann", -1)
            with pytest.raises(TypeError):
                client.submit(Bank.deposit, "ann", "much")
            cancelled = client.submit(Bank.deposit, "eve", 1)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert await client.proxy.deposit("ann", 1) == 202
            assert await trio["n1"].aio.proxy.balance("ann") == 202
            with pytest.raises(AttributeError, match="no command or query 'rob'"):
                await client.proxy.rob("ann")
        with pytest.raises(graft.Stopped):
            await client.submit(Bank.deposit, "ann", 1)

    arun(main())


def test_submitting_to_no_loop_is_refused(client):
    with pytest.raises(RuntimeError, match="no running event loop"):
        client.aio.submit(Bank.deposit, "ann", 1)


def test_cancelling_disturbs_nobody(trio):
    async def main():
        async with graft.AsyncClient(list(trio.members.values()), Bank, timeout=DEADLINE_SECONDS) as client:
            tasks = [asyncio.create_task(client.execute(Bank.deposit, "ann", 1)) for _ in range(100)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in done[::2])
            assert all(isinstance(one, int) for one in done[1::2])
            balance = await client.query(Bank.balance, "ann")
            assert 50 <= balance <= 100, "a call that was cancelled may be done all the same"

    arun(main())


def test_several_loops_share_a_client(client):
    def one(_):
        return arun(client.aio.execute(Bank.deposit, "ann", 1))

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(one, range(32))) == list(range(1, 33))


class News(graft.StateMachine):
    @graft.command
    def tell(self, value: int) -> None:
        self.context.emit("news", value)


def test_watching_goes_on_at_another_member(tmp_path):
    from nodes import Trio

    trio = Trio(tmp_path, News).start().ready()
    try:
        with graft.Client(list(trio.members.values()), News, timeout=DEADLINE_SECONDS) as client:
            watch = client.watch("news", since=0, timeout=DEADLINE_SECONDS)
            for number in range(20):
                client.execute(News.tell, number)
            seen = [next(watch) for _ in range(20)]
            until(lambda: client.status().id)
            trio.nodes[client.status().id].stop()
            trio.leader()
            for number in range(20, 40):
                client.execute(News.tell, number)
            seen += [next(watch) for _ in range(20)]
        assert [item.value for item in seen] == list(range(40)), "in order, and once"
        with pytest.raises(graft.Stopped):
            next(watch)
    finally:
        trio.stop()


def test_another_schema_is_told(trio):
    class Bankk(graft.StateMachine):
        @graft.command
        def deposti(self, who: str) -> int: ...

        @graft.query
        def balance(self, who: int) -> int: ...

    with graft.Client(list(trio.members.values()), Bankk, timeout=DEADLINE_SECONDS) as client:
        with pytest.raises(graft.InvalidCall, match="Bank has no 'deposti'; it has deposit, transfer"):
            client.execute(Bankk.deposti, "ann")
        with pytest.raises(graft.InvalidCall, match=r"Bank\.balance\(\): .*str"):
            client.query(Bankk.balance, 7)
        outcomes = client.execute_many([(Bankk.deposti, "ann")] * 3, return_errors=True)
        assert all(isinstance(outcome, graft.InvalidCall) for outcome in outcomes)
    assert all(node.status().error is None for node in trio.running()), "nobody has halted"
