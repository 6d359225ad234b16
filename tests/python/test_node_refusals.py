"""What a newcomer gets wrong, and what the node says to it."""

from __future__ import annotations

import asyncio
import os
import socket

import graft
import pytest
from machines import Bank, Everything
from nodes import DEADLINE_SECONDS, Trio, free_addresses


def make(machine=None, **changes):
    arguments = {"id": "n1", "address": "127.0.0.1:0", "data_dir": None, **changes}
    return graft.Node(machine or Bank(), **arguments)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"election_timeot": "1s"}, "there is no argument 'election_timeot'; did you mean 'election_timeout'?"),
        ({"adress": "h:1"}, "did you mean 'address'?"),
        ({"id": 1}, "id=1 must be a str"),
        ({"id": "n 1"}, "must be 1 to 63 letters"),
        ({"address": "localhost"}, 'must have the form "host:port"'),
        ({"address": 7001}, "must be a str"),
        ({"bind": "0.0.0.0"}, "bind='0.0.0.0' must have the form"),
        ({"data_dir": 7}, "data_dir=7 must be a path"),
        ({"data_dir": b"x"}, "data_dir=b'x' must be a path"),
        ({"data_dir": ""}, "data_dir='' must be a path"),
        ({"members": {"n2": "h:1"}}, "members has no 'n1'"),
        ({"members": {"n1": "127.0.0.1:0", "n2": "h:1"}}, "the port, so it cannot be 0"),
        ({"config": {"heartbeat": 1}}, "must be a graft.Config"),
        ({"heartbeat": "1s"}, "more than a third of election_timeout"),
    ],
)
def test_settings(changes, words):
    with pytest.raises(graft.ConfigError) as caught:
        make(**changes)
    assert words in str(caught.value)


def test_settings_win_over_a_config():
    config = graft.Config(heartbeat="10ms", election_timeout="100ms")
    node = make(config=config, election_timeout="200ms")
    assert (node.config.heartbeat, node.config.election_timeout) == (0.01, 0.2)


def test_the_class_instead_of_a_machine():
    with pytest.raises(TypeError, match=r"pass an instance, Bank\(\), not the class"):
        make(Bank)


def test_a_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = make(address=f"127.0.0.1:{port}", data_dir=tmp_path / "n1")
        with pytest.raises(graft.AddressInUse, match=str(port)) as caught:
            node.start()
    assert isinstance(caught.value, (graft.ConfigError, OSError))
    assert node.status().role == "stopped"
    with node:
        node.wait_ready(DEADLINE_SECONDS)


def test_an_address_that_does_not_resolve(tmp_path):
    node = make(address="no-such-host.invalid:7001", data_dir=tmp_path / "n1")
    with pytest.raises(graft.ConfigError, match=r"no-such-host\.invalid"):
        node.start()


def test_the_directory_of_another_node(tmp_path):
    with make(data_dir=tmp_path / "d"):
        pass
    with pytest.raises(graft.IdentityMismatch, match="n1"):
        make(id="n2", data_dir=tmp_path / "d").start()


def test_the_directory_of_another_cluster(tmp_path):
    with make(data_dir=tmp_path / "n1", address=free_addresses(1)[0]) as node:
        node.wait_ready(DEADLINE_SECONDS)
        node.execute(Bank.deposit, "ann", 1)
    trio = Trio(tmp_path / "trio")
    trio.start("n2", "n3").ready()
    try:
        before = trio.leader().status()
        os.rename(tmp_path / "n1", tmp_path / "trio" / "n1")
        stranger = make(address=trio.members["n1"], data_dir=tmp_path / "trio" / "n1", members=trio.members)
        try:
            with pytest.warns(RuntimeWarning, match="the directory decides"):
                stranger.start()
            stranger.wait_ready(5)
            # It may go on as the cluster it always was, but never as a part of this one.
            assert stranger.status().cluster != before.cluster
            assert stranger.query(Bank.balance, "ann") == 1
        except (graft.ClusterMismatch, graft.ConfigError) as error:
            assert "cluster" in str(error) or "members" in str(error)  # noqa: PT017 - it need not raise
        finally:
            stranger.stop()
        assert trio["n2"].execute(Bank.deposit, "ann", 7) == 7
        assert trio.leader().status().term == before.term
    finally:
        trio.stop()


def test_members_that_the_directory_does_not_have(tmp_path):
    with make(data_dir=tmp_path / "d") as node:
        node.wait_ready(DEADLINE_SECONDS)
        node.execute(Bank.deposit, "ann", 1)
    home, other = free_addresses(2)
    given = {"data_dir": tmp_path / "d", "address": home, "members": {"n1": home, "n2": other}}
    node = make(**given)
    with pytest.warns(RuntimeWarning) as warned:
        node.start()
    try:
        assert len(warned) == 1
        words = str(warned[0].message)
        assert f"given the members n1, n2, but {tmp_path / 'd'} has n1, and the directory decides" in words
        assert "another data_dir" in words
        assert node.wait_ready(DEADLINE_SECONDS).query(Bank.balance, "ann") == 1
    finally:
        node.stop()
    refused = make(**given)
    with pytest.raises(RuntimeWarning):  # a warning is an error here
        refused.start()
    assert refused.status().role == "stopped"


def test_the_line_of_a_founder_need_not_list_who_came_later(tmp_path):
    trio = Trio(tmp_path)
    try:
        trio.start().ready()
        trio["n1"].execute(Bank.deposit, "ann", 1)
    finally:
        trio.stop()
    # A warning is an error here.
    with make(data_dir=tmp_path / "n1", address=trio.members["n1"]) as node:
        assert {member.id for member in node.members} == {"n1", "n2", "n3"}


def test_commands_on_the_machine_of_a_running_node():
    bank = Bank()
    node = make(bank)
    with node:
        node.wait_ready(DEADLINE_SECONDS)
        assert node.execute(Bank.deposit, "ann", 5) == 5
        with pytest.raises(RuntimeError, match=r"one replica only: call node\.execute\(Bank\.deposit, \.\.\.\)"):
            bank.deposit("ann", 1)
        assert node.execute(Bank.transfer, "ann", "bob", 2), "a command calls another one as ever"
        assert node.machine.balance("ann") == 3
    assert bank.deposit("ann", 1) == 4
    with pytest.raises(graft.ConfigError, match="already has the state of node n1"):
        make(bank).start()


def test_serving_in_an_event_loop():
    async def serve() -> None:
        make().serve_forever()

    with pytest.raises(RuntimeError, match=r"`async with node\.aio:`, or call it where no loop runs"):
        asyncio.run(serve())


def test_a_directory_in_use(tmp_path):
    with make(data_dir=tmp_path / "d"), pytest.raises(graft.StorageError, match=str(os.getpid())):
        make(data_dir=tmp_path / "d").start()


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(graft.StorageError, match="file"):
            make(data_dir=path).start()


def test_state_that_cannot_be_kept():
    class Bad(Bank):
        def __init__(self) -> None:
            super().__init__()
            self.connections = {"a": open}

    with pytest.raises(TypeError, match=r"Bad.connections\['a'\] is a"):
        make(Bad()).start()


def test_a_start_that_failed_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    class Bad(Bank):
        def __init__(self) -> None:
            super().__init__()
            self.file = open

    node = make(Bad())
    with pytest.raises(TypeError):
        node.start()
    assert list(tmp_path.iterdir()) == []


def test_results_that_cannot_be_encoded():
    with make(Everything()) as node:
        node.wait_ready(DEADLINE_SECONDS)
        with pytest.raises(graft.ApplyError, match=r"unencodable\(\) ran, but its result, a object") as caught:
            node.execute(Everything.unencodable)
        assert caught.value.type_name == "EncodeError"
        assert node.query(Everything.count) == 1


def test_a_command_that_is_too_large():
    with make(command_bytes_max="64KiB") as node:
        node.wait_ready(DEADLINE_SECONDS)
        assert node.execute(Bank.deposit, "ann", 1) == 1  # its session is open now
        last = node.status().last_index
        with pytest.raises(graft.TooLarge, match=r"65536|64") as caught:
            node.execute(Bank.deposit, "x" * 100_000, 1)
        assert "command_bytes_max" in caught.value.fix
        future = node.submit(Bank.deposit, "ann", 1)
        assert future.result(DEADLINE_SECONDS).value == 2
        assert node.status().last_index == last + 1


def test_garbage_on_the_port():
    with make() as node:
        node.wait_ready(DEADLINE_SECONDS)
        host, port = node.address.rsplit(":", 1)
        for garbage in (
            b"\0" * 4096,
            b"GET / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 4096,
            os.urandom(65536),
        ):
            with socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS) as peer:
                try:
                    peer.sendall(garbage)
                    peer.shutdown(socket.SHUT_WR)
                except OSError:
                    continue  # it has hung up on us already
        half_open = [socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS) for _ in range(32)]
        assert node.execute(Bank.deposit, "ann", 1) == 1
        for peer in half_open:
            peer.close()
        assert node.status().error is None
