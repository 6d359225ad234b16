"""Certificates on disk: made by the command or from Python, used by nodes, clients and the command, replaced."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import graft
import pytest
from graft.tls import CertificateAuthority
from machines import Bank
from nodes import DEADLINE_SECONDS, free_addresses, until

WRITERS = 16


def run(directory: Path, *words: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "graft", *words], cwd=directory, text=True, capture_output=True, timeout=60, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def secrets(name: str) -> list[str]:
    return ["--ca", "tls/ca.pem", "--cert", f"tls/{name}.pem", "--key", f"tls/{name}.key"]


def test_a_cluster_is_secured_with_a_few_commands(tmp_path: Path) -> None:
    (address,) = free_addresses(1)
    run(tmp_path, "tls", "init", "bank")
    run(tmp_path, "tls", "node", "n1", "n2")
    run(tmp_path, "tls", "client", "ops", "--role", "operator")
    run(tmp_path, "tls", "client", "web", "--role", "reader")
    assert stat.S_IMODE((tmp_path / "tls" / "ca.key").stat().st_mode) == 0o600
    shown = run(tmp_path, "tls", "show", "tls/node-n1.pem", "tls/ca.pem").stdout
    assert "spiffe://bank/node/n1" in shown
    assert "90 days" in shown
    assert "authority" in shown
    (tmp_path / "bank.py").write_text(
        "import graft\nclass Bank(graft.StateMachine):\n    def __init__(self): self.sum = 0\n    @graft.command\n"
        "    def add(self, n: int) -> int:\n        self.sum += n\n        return self.sum\n"
    )
    with (tmp_path / "log").open("ab") as log:
        node = subprocess.Popen(
            [sys.executable, "-m", "graft", "start", address, "--cluster", address, "--id", "n1", "--machine",
             "bank.py:Bank", *secrets("node-n1")],
            cwd=tmp_path, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        ops = ["-c", address, *secrets("client-ops")]
        run(tmp_path, "health", "--wait", str(DEADLINE_SECONDS), *ops)
        assert run(tmp_path, "execute", "add", "n=5", *ops).stdout.strip() == "5"
        environment = dict(zip(("GRAFT_CA", "GRAFT_CERT", "GRAFT_KEY"), secrets("client-web")[1::2], strict=True))
        refused = run(tmp_path, "execute", "add", "n=5", "-c", address, status=7, **environment)
        assert "role writer" in refused.stderr
        assert "healthy" in run(tmp_path, "health", "-c", address, **environment).stdout
        met = run(tmp_path, "tls", "verify", "--connect", address, *secrets("client-web"))
        assert "spiffe://bank/node/n1, and believes it" in met.stdout
        # Of another authority.
        run(tmp_path, "tls", "init", "bank", "--dir", "other")
        run(tmp_path, "tls", "client", "web", "--dir", "other")
        wrong = [word.replace("tls/", "other/") for word in secrets("client-web")]
        assert "spiffe://bank/client/web?role=writer" in run(tmp_path, "tls", "verify", *wrong).stdout
        stranger = run(tmp_path, "tls", "verify", "--connect", address, *wrong, status=7)
        assert "authority" in stranger.stderr
        mixed = run(tmp_path, "tls", "verify", "--ca", "other/ca.pem", *secrets("client-web")[2:], status=7)
        assert "not believed by those who believe" in mixed.stderr
        unfit = run(tmp_path, "tls", "verify", *secrets("client-web")[:4], "--key", "tls/client-ops.key", status=7)
        assert "do not fit one another" in unfit.stderr
    finally:
        node.terminate()
        assert node.wait(DEADLINE_SECONDS) == 0


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("tls", "node", "n1"), 7, "graft tls init"),
        (("tls", "init", "Not A Name"), 7, "lower-case"),
        (("tls", "verify"), 2, "which certificate"),
        (("tls", "verify", "--ca", "ca.pem"), 2, "--cert"),
        (("tls", "show", "nowhere.pem"), 7, "nowhere.pem"),
        (("status", "-c", "10.0.0.1:7001"), 7, "is beyond this machine"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, words: tuple[str, ...], status: int, told: str) -> None:
    done = run(tmp_path, *words, status=status)
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    run(tmp_path, "tls", "init", "bank")
    before = (tmp_path / "tls" / "ca.pem").read_bytes()
    assert "nothing is overwritten" in run(tmp_path, "tls", "init", "bank", status=7).stderr
    assert (tmp_path / "tls" / "ca.pem").read_bytes() == before
    run(tmp_path, "tls", "client", "web")
    assert "nothing is overwritten" in run(tmp_path, "tls", "client", "web", "--role", "operator", status=7).stderr


def test_the_same_from_python(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path / "tls", "bank")
    assert CertificateAuthority.load(str(tmp_path / "tls")).cluster == "bank"
    with pytest.raises(graft.ConfigError, match="nothing is overwritten"):
        CertificateAuthority.create(tmp_path / "tls", "bank")
    with pytest.raises(graft.ConfigError, match="tls init"):
        CertificateAuthority.load(tmp_path)
    with pytest.raises(graft.ConfigError, match="path of a directory"):
        CertificateAuthority.load(b"")  # type: ignore[arg-type]
    assert repr(authority.node("n1")) == repr(authority.node("n1"))
    run(tmp_path, "tls", "show", "tls/node-n1.pem")
    with graft.Node(Bank(), id="n1", address="127.0.0.1:0", data_dir=None, tls=authority.node("n1")) as node:
        node.wait_ready()
        with graft.Client([node.address], Bank, tls=authority.client("web")) as client:
            assert client.execute(Bank.deposit, "ann", 5) == 5


def test_an_authority_is_replaced(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path / "tls", "bank")
    authority.node("n1")
    authority.client("web")
    before = (tmp_path / "tls" / "node-n1.pem").read_bytes()
    run(tmp_path, "tls", "rotate-ca")
    early = run(tmp_path, "tls", "rotate-ca", "--finish", status=7)
    assert "graft tls renew" in early.stderr
    renewed = run(tmp_path, "tls", "renew").stdout
    assert "spiffe://bank/node/n1" in renewed
    assert "spiffe://bank/client/web?role=writer" in renewed
    assert (tmp_path / "tls" / "node-n1.pem").read_bytes() != before
    run(tmp_path, "tls", "rotate-ca", "--finish")
    for name in ("node-n1", "client-web"):
        run(tmp_path, "tls", "verify", *secrets(name))
    memory = CertificateAuthority.ephemeral()
    with pytest.raises(graft.ConfigError, match="ephemeral"):
        memory.renew()


def test_a_node_does_not_listen_beyond_this_machine_in_plain_text(tmp_path: Path) -> None:
    def node(**more: object) -> graft.Node[Bank]:
        return graft.Node(Bank(), id="n1", address="127.0.0.1:0", bind="0.0.0.0:0", data_dir=None, **more)  # type: ignore[arg-type]

    with pytest.raises(graft.Insecure) as error:
        node().start()
    assert isinstance(error.value, graft.TlsError)
    assert isinstance(error.value, graft.ConfigError)
    for command in ("graft tls init", "graft tls node n1", "--cert tls/node-n1.pem", "insecure=True"):
        assert command in str(error.value)
    with node(insecure=True) as plain:
        plain.wait_ready()
    with node(tls=CertificateAuthority.ephemeral().node("n1")) as secured:
        until(lambda: secured.status().leader, "a leader")
    with pytest.raises(graft.ConfigError, match="insecure"):
        node(insecure="yes")
    client = graft.Client(["10.0.0.1:7001"], Bank)
    with pytest.raises(graft.Insecure, match="beyond this machine"):
        client.status()
    client.close()


def test_the_authority_and_all_certificates_are_replaced_under_load(tmp_path: Path) -> None:
    authority = CertificateAuthority.create(tmp_path / "tls", "bank")
    addresses = dict(zip(("n1", "n2", "n3"), free_addresses(3), strict=True))
    failed: list[BaseException] = []
    done = threading.Event()
    written = [0] * WRITERS
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(
                graft.Node(
                    Bank(), id=id_, address=address, data_dir=tmp_path / id_, members=addresses,
                    tls=authority.node(id_),
                )
            )
            for id_, address in addresses.items()
        ]  # fmt: skip
        for node in nodes:
            node.wait_ready(DEADLINE_SECONDS)
        client = stack.enter_context(
            graft.Client(list(addresses.values()), Bank, tls=authority.client("till"), timeout=DEADLINE_SECONDS)
        )
        leader, term = nodes[0].status().leader, nodes[0].status().term

        def write(number: int) -> None:
            while not done.is_set():
                try:
                    client.execute(Bank.deposit, "ann", 1)
                except BaseException as error:
                    failed.append(error)
                    return
                written[number] += 1

        writers = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        try:
            for step, renewals in ((authority.rotate, 1), (authority.renew, 2), (authority.retire, 3)):
                step()
                until(lambda: all(_renewals(node) >= renewals for node in nodes), "all have read it")  # noqa: B023
                before = sum(written)
                until(lambda: sum(written) > before + 100 or failed, "writers go on")  # noqa: B023
                # One who comes now, with what is in the directory now, is let in.
                with graft.Client(list(addresses.values()), Bank, tls=authority.client("till")) as late:
                    late.execute(Bank.deposit, "eve", 1)
        finally:
            done.set()
            for writer in writers:
                writer.join()
        assert not failed
        assert nodes[0].query(Bank.balance, "ann") == sum(written)
        assert (nodes[0].status().leader, nodes[0].status().term) == (leader, term), "no election"
        # What cannot be used is told of, and the one before stays.
        (tmp_path / "tls" / "node-n1.pem").write_text("nonsense")
        refused = until(lambda: [e for e in nodes[0].events(since=0, timeout=0) if e.data.get("phase") == "refused"])
        assert "node-n1.pem" in refused[0].data["why"]
        assert client.execute(Bank.deposit, "ann", 1) == sum(written) + 1


def _renewals(node: graft.Node[Bank]) -> int:
    return sum(event.data.get("phase") == "renewed" for event in node.events(since=0, timeout=0))
