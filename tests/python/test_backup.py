"""Backups, and clusters that begin with one or go on without a majority."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import graft
import pytest
from machines import Bank
from nodes import DEADLINE_SECONDS, Group, free_addresses, until

PATIENT = {"timeout": DEADLINE_SECONDS}


def alone(data_dir, id_="n1", machine=Bank):
    return graft.Node(machine(), id=id_, address="127.0.0.1:0", data_dir=data_dir)


def test_a_backup_founds_another_cluster(trio, tmp_path):
    for n in range(10):
        trio[f"n{n % 3 + 1}"].execute(Bank.deposit, "ann", 1)
    path = tmp_path / "bank.backup"
    index = trio["n2"].backup(path)
    found = graft.check_backup(path)
    assert (found.index, found.bytes, found.path) == (index, path.stat().st_size, path)
    assert found.time > 0
    with pytest.raises(graft.StorageError, match="is there already"):
        trio["n1"].backup(path)

    restored = graft.restore(path, tmp_path / "other")
    assert restored == found
    with pytest.raises(graft.StorageError, match="something in it already"):
        graft.restore(path, tmp_path / "other")
    with alone(tmp_path / "other", "x1") as node:
        assert node.wait_ready(DEADLINE_SECONDS).query(Bank.balance, "ann") == 10
        assert node.execute(Bank.deposit, "ann", 1) == 11
        assert node.status().cluster != trio["n1"].status().cluster
        # Whoever joins gets it from there.
        (free,) = free_addresses(1)
        with graft.Node(Bank(), id="x2", address=free, data_dir=tmp_path / "x2", join=node.address) as other:
            assert other.wait_ready(DEADLINE_SECONDS).query(Bank.balance, "ann") == 11
    # The cluster that it was made of goes on by itself.
    assert trio["n3"].execute(Bank.deposit, "ann", 1) == 11


def test_a_client_is_told_which_of_two_clusters_is_its_own(node, tmp_path):
    """After a restore the old cluster may be up still, at an address that everybody knows."""
    node.execute(Bank.deposit, "ann", 5)
    node.backup(tmp_path / "backup")
    graft.restore(tmp_path / "backup", tmp_path / "other")
    with alone(tmp_path / "other", "x1") as other:
        other.wait_ready(DEADLINE_SECONDS).execute(Bank.deposit, "ann", 10)
        both = [node.address, other.address]
        for own, stranger, balance in ((node, other, 5), (other, node, 15)):
            # As people write it, too.
            id_ = own.status().cluster
            for cluster in (id_, f"{id_[:8]}-{id_[8:]}".upper()):
                with graft.Client(both, Bank, cluster=cluster, **PATIENT) as client:
                    assert client.query(Bank.balance, "ann") == balance
                    assert client.status().cluster == id_
            with graft.Client(stranger.address, Bank, cluster=id_, **PATIENT) as client:
                calls = (
                    lambda client=client: client.execute(Bank.deposit, "ann", 1),
                    client.status,
                    lambda client=client: list(client.members),
                )
                for call in calls:
                    begun = time.monotonic()
                    with pytest.raises(graft.ClusterMismatch, match=f"speak with cluster {id_} alone") as caught:
                        call()
                    assert time.monotonic() - begun < DEADLINE_SECONDS / 2, "to wait does not help"
                    assert stranger.status().cluster in str(caught.value)
                    assert "cluster=" in caught.value.fix
                assert "is to speak with cluster" in client.why()
                assert not client.health()

            async def ask(cluster=id_):
                async with graft.AsyncClient(both, Bank, cluster=cluster, **PATIENT) as client:
                    return await client.query(Bank.balance, "ann")

            assert asyncio.run(ask()) == balance
        assert node.query(Bank.balance, "ann") == 5


def test_clients_and_loops_take_backups_too(trio, tmp_path):
    addresses = [trio[id_].address for id_ in ("n1", "n2", "n3")]
    trio["n1"].execute(Bank.deposit, "ann", 5)
    with graft.Client(addresses, Bank, **PATIENT) as client:
        index = client.backup(os.fspath(tmp_path / "by-client"))

    async def main():
        async with graft.AsyncClient(addresses, Bank, **PATIENT) as client:
            return await client.backup(tmp_path / "by-loop"), await trio["n1"].aio.backup(tmp_path / "by-node")

    by_loop, by_node = asyncio.run(main())
    assert index <= by_loop <= by_node
    for name in ("by-client", "by-loop", "by-node"):
        graft.restore(tmp_path / name, tmp_path / f"{name}-data")
        with alone(tmp_path / f"{name}-data") as node:
            assert node.wait_ready(DEADLINE_SECONDS).query(Bank.balance, "ann") == 5


def test_a_backup_has_every_command_that_had_returned(trio, tmp_path):
    """Whoever is asked, and whatever goes on meanwhile."""
    done = [0]
    stop = threading.Event()

    def write():
        while not stop.is_set():
            done[0] = trio["n1"].execute(Bank.deposit, "ann", 1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for n in range(6):
            until(lambda least=n * 5: done[0] > least)
            before = done[0]
            trio[f"n{n % 3 + 1}"].backup(tmp_path / f"{n}.backup")
            graft.restore(tmp_path / f"{n}.backup", tmp_path / f"{n}")
            with alone(tmp_path / f"{n}") as node:
                assert node.wait_ready(DEADLINE_SECONDS).query(Bank.balance, "ann") >= before
    finally:
        stop.set()
        writer.join()


def test_without_a_majority_there_is_no_backup_and_no_file(trio, tmp_path):
    trio["n1"].execute(Bank.deposit, "ann", 5)
    trio["n2"].stop()
    trio["n3"].stop()
    with pytest.raises((graft.NoQuorum, graft.Timeout)):
        trio["n1"].backup(tmp_path / "stale", timeout=1.5)
    assert not list(tmp_path.glob("stale*"))
    assert trio["n1"].snapshot() > 0, "a snapshot needs nobody"


def test_what_is_no_backup_is_refused(node, tmp_path):
    node.execute(Bank.deposit, "ann", 5)
    node.backup(tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    middle = len(good) - 30
    flipped = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    for name, data in (("cut", good[:-1]), ("flipped", flipped), ("header", b"X" + good[1:])):
        path = tmp_path / name
        path.write_bytes(data)
        for look in (lambda path=path: graft.check_backup(path), lambda path=path: graft.restore(path, f"{path}-data")):
            with pytest.raises(graft.Corruption) as damaged:
                look()
            assert str(damaged.value).count(os.fspath(path)) == 1, damaged.value
            assert "member" not in f"{damaged.value} {damaged.value.fix}"
            assert "another backup" in damaged.value.fix
    for name, data in (("empty", b""), ("other", b"hello" * 100)):
        (tmp_path / name).write_bytes(data)
        for look in (graft.check_backup, lambda path: graft.restore(path, f"{path}-data")):
            with pytest.raises(graft.StorageError, match="is no backup of Graft") as foreign:
                look(tmp_path / name)
            assert not isinstance(foreign.value, graft.Corruption)
            assert "give the file of a backup" in foreign.value.fix
    with pytest.raises(graft.StorageError):
        graft.restore(tmp_path / "nowhere", tmp_path / "data")
    with pytest.raises(graft.StorageError):
        node.backup(tmp_path / "no" / "where")
    with pytest.raises(TypeError):
        node.backup(5)


def test_a_restored_directory_does_not_join(trio, tmp_path):
    trio["n1"].backup(tmp_path / "backup", **PATIENT)
    graft.restore(tmp_path / "backup", tmp_path / "n4")
    (free,) = free_addresses(1)
    with pytest.raises(graft.StorageError, match="without `join`"):
        graft.Node(Bank(), id="n4", address=free, data_dir=tmp_path / "n4", join=trio["n1"].address).start()


@pytest.fixture
def lost(tmp_path):
    """Directories of three nodes that have stopped; all have 30 deposits, n1 and n2 ten more."""
    group = Group(tmp_path / "lost")
    group.found("n1", "n2", "n3")
    nodes = [group[id_] for id_ in ("n1", "n2", "n3")]
    for _ in range(30):
        nodes[0].execute(Bank.deposit, "ann", 1)
    until(lambda: len({node.status().applied_index for node in nodes}) == 1)
    nodes[2].stop()
    for _ in range(10):
        nodes[0].execute(Bank.deposit, "ann", 1)
    until(lambda: len({node.status().applied_index for node in nodes[:2]}) == 1)
    group.stop()
    return [tmp_path / "lost" / node.id for node in nodes]


def test_a_cluster_without_a_majority_goes_on_with_what_is_left(lost, tmp_path):
    left = graft.recover(lost[1], lost[2])
    assert [survivor.id for survivor in left.survivors] == ["n2", "n3"]
    assert (left.best.id, left.missing, left.has_quorum, left.complete) == ("n2", ("n1",), True, True)
    assert left.data_dir is None
    with pytest.raises(graft.ConfigError, match="majority of the voters is left"):
        graft.recover(lost[1:], into=tmp_path / "new")
    assert not (tmp_path / "new").exists()

    recovery = graft.recover([lost[1]], into=tmp_path / "new")
    assert (recovery.id, recovery.missing, recovery.has_quorum) == ("n2", ("n1", "n3"), False)
    assert not recovery.complete
    assert recovery.last_index == recovery.best.last_index + 1
    with graft.Node(Bank(), id=recovery.id, address=recovery.address, data_dir=recovery.data_dir) as node:
        node.wait_ready(DEADLINE_SECONDS)
        assert node.query(Bank.balance, "ann") == 40
        assert len(node.members) == 1
        # An id of before may be used again: it is another cluster.
        (free,) = free_addresses(1)
        with graft.Node(Bank(), id="n1", address=free, data_dir=tmp_path / "n1", join=node.address) as other:
            assert other.wait_ready(DEADLINE_SECONDS).query(Bank.balance, "ann") == 40


def test_what_cannot_be_recovered_is_told(lost, tmp_path, node):
    with pytest.raises(graft.ConfigError, match="no data directory"):
        graft.recover()
    with pytest.raises(graft.ConfigError, match="no path"):
        graft.recover(5)
    with pytest.raises(graft.ConfigError, match="force"):
        graft.recover(lost[0], force="yes")
    with pytest.raises(graft.StorageError):
        graft.recover(tmp_path / "nowhere")
    with pytest.raises(graft.StorageError, match="n1"):
        graft.recover(tmp_path / "n1")
    node.stop()
    with pytest.raises(graft.ConfigError, match="not of one cluster"):
        graft.recover(lost[1], tmp_path / "n1")
