"""How fresh an answer is, and that the options for it are checked."""

from __future__ import annotations

import asyncio

import graft
import pytest
from graft._reading import Reading
from machines import Bank
from nodes import until


def idle():
    return graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"consistency": "eventual"}, "must be one of 'linearizable', 'lease', 'stale'"),
        ({"consistency": ["stale"]}, "must be one of"),
        ({"consistency": 7}, "must be one of"),
        ({"max_age": 1}, 'max_age=1 goes with consistency="stale": a linearizable answer'),
        ({"max_age": "1s", "consistency": "lease"}, "a lease answer is never older"),
        ({"max_age": 0, "consistency": "stale"}, "max_age=0 must be a finite time above 0"),
        ({"max_age": "soon", "consistency": "stale"}, "max_age='soon' is not a number with a unit"),
        ({"at_least": -1}, "at_least=-1 must be an index of the log"),
        ({"at_least": True}, "at_least=True must be an index"),
        ({"at_least": "7"}, "at_least='7' must be an index"),
        ({"at_least": 1 << 64}, "must be an index"),
    ],
)
def test_options_that_make_no_sense(options, words):
    for calls in (idle(), idle().aio):
        with pytest.raises(graft.ConfigError) as caught:
            calls.options(**options)
        assert words in str(caught.value)


def test_options_add_up():
    stale = idle().options(consistency="stale", max_age="500ms")
    assert stale._reading == Reading("stale", 0.5, 0)
    assert "consistency='stale', max_age=0.5" in repr(stale)
    assert idle().options(consistency="stale").options(at_least=7)._reading == Reading("stale", None, 7)
    assert idle()._reading == Reading("linearizable", None, 0)
    assert stale.options(consistency="lease")._reading == Reading("lease", None, 0), "an age goes with stale alone"
    assert stale.options(timeout=1)._reading == stale._reading


@pytest.mark.parametrize("options", [{"consistency": "lease"}, {"consistency": "stale", "max_age": "5s"}, {}])
def test_from_every_member_what_was_written_is_seen(trio, options):
    nodes = list(trio.nodes.values())
    for number, node in enumerate(nodes * 3, 1):
        written = node.submit(Bank.deposit, "ann", 1).result()
        for reader in nodes:
            assert reader.options(**options, at_least=written.index).query(Bank.balance, "ann") == number


def test_a_stale_answer_may_be_old_and_at_least_is_not(trio):
    follower = trio.followers()[0]
    written = trio.leader().submit(Bank.deposit, "ann", 5).result()
    until(lambda: follower.options(consistency="stale").query(Bank.balance, "ann") == 5)
    assert follower.options(consistency="stale", at_least=written.index).query(Bank.balance, "ann") == 5
    result = follower.options(consistency="stale", at_least=written.index).submit(Bank.balance, "ann").result()
    assert result.index >= written.index


def test_an_index_that_is_not_there_yet_is_waited_for(trio):
    follower = trio.followers()[0]
    index = trio.leader().submit(Bank.deposit, "ann", 1).result().index
    waiting = follower.options(consistency="stale", at_least=index + 1).submit(Bank.balance, "ann")
    with pytest.raises(graft.Timeout):
        follower.options(consistency="stale", at_least=index + 1000, timeout="200ms").query(Bank.balance, "ann")
    trio.leader().execute(Bank.deposit, "ann", 1)
    assert waiting.result(20).value == 2


def test_without_a_majority_only_what_may_be_old_is_answered(trio):
    leader = trio.leader()
    leader.execute(Bank.deposit, "ann", 5)
    follower = trio.followers()[0]
    until(lambda: follower.options(consistency="stale").query(Bank.balance, "ann") == 5)
    trio.stop(*(node.id for node in trio.running() if node is not follower))
    assert follower.options(consistency="stale").query(Bank.balance, "ann") == 5
    for options in ({}, {"consistency": "lease"}, {"consistency": "stale", "max_age": "1ms"}):
        with pytest.raises((graft.NoLeader, graft.NoQuorum, graft.Timeout, graft.NotLeader)):
            follower.options(timeout="300ms", **options).query(Bank.balance, "ann")


def test_the_same_for_await(trio):
    follower = trio.followers()[0]

    async def main():
        await follower.aio.execute(Bank.deposit, "ann", 5)
        lease = await follower.aio.options(consistency="lease").query(Bank.balance, "ann")
        stale = await follower.aio.options(consistency="stale", max_age=5).query(Bank.balance, "ann")
        return lease, stale

    assert asyncio.run(main()) == (5, 5)
