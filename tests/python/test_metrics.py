"""What a node counts of its work, and where that is read."""

from __future__ import annotations

import http.client
import logging
import re
import socket
import ssl

import graft
import pytest
from graft.tls import CertificateAuthority
from machines import Bank
from nodes import DEADLINE_SECONDS, free_addresses, until


def values(text):
    """The samples: name and labels to number."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def asked(address, path="/metrics", method="GET"):
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE_SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


@pytest.fixture
def node(tmp_path):
    with graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path, metrics="127.0.0.1:0") as node:
        yield node.wait_ready(DEADLINE_SECONDS)


def test_what_a_node_does_is_counted(node):
    before = values(node.metrics())
    node.execute_many([(Bank.deposit, "ann", 1)] * 20)
    node.query(Bank.balance, "ann")
    with pytest.raises(graft.MembershipRefused):
        node.members.remove("n1")
    after = values(node.metrics())

    def grown(name):
        return after[name] - before.get(name, 0)

    assert grown("graft_applied_commands_total") == 20
    assert grown("graft_queries_total") == 1
    assert grown("graft_calls_total") == 22
    assert after['graft_refused_calls_total{code="MEMBERSHIP_REFUSED"}'] == 1
    assert grown("graft_log_sync_seconds_count") >= 1
    assert grown("graft_log_written_bytes_total") > 20
    assert after['graft_role{role="leader"}'] == 1
    assert after["graft_commit_index"] == after["graft_applied_index"] == node.status().applied_index
    assert after["graft_voters"] == 1


def test_metrics_are_read_over_http_and_nothing_else_is(node):
    assert re.fullmatch(r"127\.0\.0\.1:\d+", node.metrics_address)
    status, headers, text = asked(node.metrics_address)
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    assert values(text)["graft_has_quorum"] == 1
    assert asked(node.metrics_address, "/")[0] == 404
    assert asked(node.metrics_address, method="POST")[0] == 405
    host, _, port = node.metrics_address.rpartition(":")
    with socket.create_connection((host, int(port))) as rubbish:
        rubbish.sendall(b"\0" * 100_000)
        rubbish.settimeout(DEADLINE_SECONDS)
        with pytest.raises((ConnectionError, AssertionError)):
            while data := rubbish.recv(1 << 16):
                assert data.startswith(b"HTTP/1.1 200"), "refused"
            raise ConnectionError
    assert asked(node.metrics_address)[0] == 200


def test_the_port_goes_with_the_node(tmp_path):
    (address,) = free_addresses(1)
    for _ in range(2):
        with graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path, metrics=address) as node:
            node.wait_ready(DEADLINE_SECONDS)
            assert asked(address)[0] == 200
        assert node.metrics_address is None
        with pytest.raises(graft.Stopped):
            node.metrics()
        with pytest.raises(OSError, match="refused"):
            asked(address)


def test_a_port_that_cannot_be_had_is_said_at_the_start(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        node = graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path, metrics=address)
        with pytest.raises(graft.ConfigError, match=address):
            node.start()
    with pytest.raises(graft.ConfigError, match="metrics='there' must have the form"):
        graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path, metrics="there")
    beyond = graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path, metrics="0.0.0.0:0")
    with pytest.raises(graft.ConfigError, match="without certificates"):
        beyond.start()


def test_beyond_this_machine_metrics_take_a_certificate(tmp_path):
    authority = CertificateAuthority.create(tmp_path / "tls", "bank")
    with graft.Node(
        Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path / "n1", metrics="0.0.0.0:0", tls=authority.node("n1")
    ) as node:
        port = node.metrics_address.rpartition(":")[2]
        with pytest.raises((OSError, http.client.HTTPException)):
            asked(f"127.0.0.1:{port}")
        authority.client("prometheus", "reader")
        assert "graft_term" in secured(port, tmp_path / "tls")
        CertificateAuthority.create(tmp_path / "other", "bank").client("prometheus", "reader")
        with pytest.raises((OSError, http.client.HTTPException)):
            secured(port, tmp_path / "other")


@pytest.mark.parametrize("offered", [["h2", "http/1.1"], ["http/1.1"], []])
def test_readers_may_offer_what_they_speak(tmp_path, offered):
    authority = CertificateAuthority.create(tmp_path / "tls", "bank")
    tls = authority.node("n1")
    with graft.Node(
        Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path / "n1", metrics="0.0.0.0:0", tls=tls
    ) as node:
        authority.client("prometheus", "reader")
        assert "graft_term" in secured(node.metrics_address.rpartition(":")[2], tmp_path / "tls", offered)


def secured(port, directory, offered=()):
    """As Prometheus reads, with `insecure_skip_verify`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if offered:
        context.set_alpn_protocols(offered)
    context.load_cert_chain(directory / "client-prometheus.pem", directory / "client-prometheus.key")
    connection = http.client.HTTPSConnection("127.0.0.1", int(port), timeout=DEADLINE_SECONDS, context=context)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_a_bad_pair_is_counted_and_told_of(tmp_path, caplog):
    authority = CertificateAuthority.create(tmp_path / "tls", "bank")
    tls = authority.node("n1")
    with graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=tmp_path / "n1", tls=tls) as node:
        assert values(node.metrics())["graft_certificate_expiry_timestamp_seconds"] > 0
        authority.node("n2")
        with caplog.at_level(logging.WARNING, "graft"):
            (tmp_path / "tls/node-n1.key").write_bytes((tmp_path / "tls/node-n2.key").read_bytes())
            refused = 'graft_certificate_reloads_total{result="refused"}'
            until(lambda: values(node.metrics()).get(refused) == 1)
        until(lambda: "new certificate not used" in caplog.text)
