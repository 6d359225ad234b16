"""Mutual TLS from Python: who may come in, and what he may do there."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import ExitStack

import graft
import pytest
from graft.tls import CertificateAuthority
from machines import Bank
from nodes import DEADLINE_SECONDS, free_addresses, until


@pytest.fixture(scope="module")
def authority():
    return CertificateAuthority.ephemeral("bank")


@pytest.fixture
def members(authority, tmp_path):
    """A cluster of three that speaks TLS."""
    ids = ("n1", "n2", "n3")
    addresses = dict(zip(ids, free_addresses(3), strict=True))
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                graft.Node(
                    Bank(),
                    id=id_,
                    address=addresses[id_],
                    data_dir=tmp_path / id_,
                    members=addresses,
                    tls=authority.node(id_),
                )
            )
            for id_ in ids
        ]
        for node in nodes:
            node.wait_ready(DEADLINE_SECONDS)
        yield nodes


def client(members, tls, timeout=DEADLINE_SECONDS):
    return graft.Client([node.address for node in members], Bank, tls=tls, timeout=timeout)


def test_members_and_clients_that_show_who_they_are_work_together(members, authority, tmp_path):
    assert members[1].execute(Bank.deposit, "ann", 5) == 5
    with client(members, authority.client("till")) as till:
        assert till.execute(Bank.deposit, "ann", 5) == 10
        assert till.query(Bank.balance, "ann") == 10

    async def main():
        addresses = [node.address for node in members]
        async with graft.AsyncClient(addresses, Bank, tls=authority.client("till"), timeout=DEADLINE_SECONDS) as till:
            return await till.execute(Bank.deposit, "ann", 5)

    assert asyncio.run(main()) == 15
    (address,) = free_addresses(1)
    join = [node.address for node in members]
    with graft.Node(
        Bank(), id="n4", address=address, data_dir=tmp_path / "n4", join=join, tls=authority.node("n4")
    ) as joiner:
        joiner.wait_ready(DEADLINE_SECONDS)
        assert joiner.query(Bank.balance, "ann") == 15
        assert len(joiner.members) == 4


def test_roles_are_kept(members, authority):
    with client(members, authority.client("auditor", "reader")) as reader:
        assert reader.query(Bank.balance, "ann") == 0
        with pytest.raises(graft.TlsError, match="takes the role writer, and its role is reader") as refused:
            reader.execute(Bank.deposit, "ann", 5)
        assert "--role ROLE" in refused.value.fix
        assert "authority" not in refused.value.fix
        with pytest.raises(graft.TlsError, match="may not change the membership"):
            reader.members.remove("n3")
        with pytest.raises(graft.TlsError, match="may not have a snapshot or a backup taken"):
            reader.snapshot()
    with client(members, authority.client("till", "writer")) as writer:
        assert writer.execute(Bank.deposit, "ann", 5) == 5
        with pytest.raises(graft.TlsError, match="writer"):
            writer.members.remove("n3")
    with client(members, authority.client("admin", "operator")) as operator:
        assert [member.id for member in operator.members] == ["n1", "n2", "n3"]
        operator.members.demote("n3")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("another authority", ("authority", "authority")),
        ("another cluster", ("authority", "authority")),
        ("plain text", ("give `tls=` here", "does not speak TLS")),
        ("no member", ("no member of this cluster", "no member of this cluster")),
    ],
)
def test_strangers_change_nothing_and_both_sides_say_why(members, authority, caplog, kind, words):
    here, there = words
    stranger = {
        "another authority": CertificateAuthority.ephemeral("bank").client("till"),
        "another cluster": CertificateAuthority.ephemeral("shop").client("till"),
        "plain text": None,
        "no member": authority.node("n9"),
    }[kind]
    begun = time.monotonic()
    with (
        caplog.at_level(logging.WARNING, "graft"),
        client(members, stranger) as refused,
        pytest.raises(graft.TlsError, match=here),
    ):
        refused.execute(Bank.deposit, "ann", 5)
    assert time.monotonic() - begun < DEADLINE_SECONDS / 2, "it is told at once, not at the deadline"
    until(lambda: [r for r in caplog.records if "refused" in r.getMessage() and there in r.getMessage()], "a warning")
    assert members[0].query(Bank.balance, "ann") == 0


def test_a_client_with_a_certificate_at_members_without(authority, caplog):
    with (
        graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=None) as node,
        caplog.at_level(logging.WARNING, "graft"),
    ):
        node.wait_ready(DEADLINE_SECONDS)
        with (
            graft.Client([node.address], Bank, tls=authority.client("till"), timeout=DEADLINE_SECONDS) as refused,
            pytest.raises(graft.TlsError, match="does not speak TLS"),
        ):
            refused.execute(Bank.deposit, "ann", 5)
        until(lambda: [r for r in caplog.records if "the other side speaks TLS" in r.getMessage()], "a warning")


def test_bytes_that_are_no_handshake_harm_nobody(members):
    host, port = members[0].address.split(":")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 64, b"\x16\x03\x01\xff\xff" + b"\0" * 100):
        with socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS) as connection:
            connection.sendall(garbage)
            try:
                while connection.recv(4096):
                    pass
            except ConnectionResetError:
                pass
    assert members[0].execute(Bank.deposit, "ann", 5) == 5


def test_who_is_not_believed_hears_it_from_why_and_health_in_words(members):
    stranger = CertificateAuthority.ephemeral("bank").client("stranger")
    with client(members, stranger, 5) as other:
        assert "authority" in other.why()
        health = other.health()
        assert not health
        assert "authority" in str(health)

    async def main():
        async with graft.AsyncClient([members[0].address], Bank, tls=stranger, timeout=5) as other:
            return await other.why(), await other.health()

    why, health = asyncio.run(main())
    assert "authority" in why
    assert not health


def test_a_node_shows_its_own_certificate_or_does_not_start(authority, tmp_path):
    for wrong in (authority.node("n2"), authority.client("n1", "operator")):
        node = graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path / "n1", tls=wrong)
        with pytest.raises(graft.TlsError, match="n1"):
            node.start()


def test_files_are_read_and_their_faults_named(authority, tmp_path):
    ca, cert, key = authority.node("n1")._material
    paths = {name: tmp_path / name for name in ("ca", "cert", "key")}
    for path, pem in zip(paths.values(), (ca, cert, key), strict=True):
        path.write_bytes(pem)
        path.chmod(0o600)
    given = graft.TLS(**paths)
    assert "PRIVATE" not in repr(given)

    def node():
        return graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path / "n1", tls=given)

    with node() as started:
        started.wait_ready(DEADLINE_SECONDS)
    paths["key"].chmod(0o644)
    with pytest.raises(graft.TlsError, match="key"):
        node().start()
    paths["key"].unlink()
    with pytest.raises(graft.TlsError, match="no such file"):
        node().start()


@pytest.mark.parametrize("cluster", ["", "Bank", "a b", "x" * 64])
def test_names_of_clusters_are_checked(cluster):
    with pytest.raises(graft.ConfigError):
        CertificateAuthority.ephemeral(cluster)
