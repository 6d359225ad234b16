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


def test_what_dials_nobody_takes_no_certificate_of_the_environment(tmp_path: Path) -> None:
    run(tmp_path, "tls", "init", "bank", GRAFT_CA="elsewhere/ca.pem")
    run(tmp_path, "tls", "client", "web", GRAFT_CA="elsewhere/ca.pem")
    assert "go together" in run(tmp_path, "tls", "verify", status=2, GRAFT_CA="elsewhere/ca.pem").stderr


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    run(tmp_path, "tls", "init", "bank")
    before = (tmp_path / "tls" / "ca.pem").read_bytes()
    again = run(tmp_path, "tls", "init", "bank", status=7).stderr
    assert "nothing is overwritten" in again
    assert "why: there is an authority already" in again
    assert "fix: go on with that of bank: `graft tls node ID`" in again
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


def openssl(directory, *words):
    """Runs it where the files are; skips the test where there is none."""
    try:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("openssl is not here")


def made_elsewhere(directory, name, extension, key):
    """A certificate by an intermediate authority of `ca.pem`, with the chain in its file."""
    if not (directory / "ca.key").exists():
        for authority in ("ca", "middle"):
            openssl(directory, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{authority}.key")
        (directory / "middle.ext").write_text("basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n")
        openssl(directory, "req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=Root", "-days", "30",
                "-addext", "basicConstraints=critical,CA:TRUE", "-out", "ca.pem")  # fmt: skip
        openssl(directory, "req", "-new", "-key", "middle.key", "-subj", "/CN=Middle", "-out", "middle.csr")
        openssl(directory, "x509", "-req", "-in", "middle.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "30",
                "-extfile", "middle.ext", "-out", "middle.pem")  # fmt: skip
    openssl(directory, key[0], "-out", f"{name}.key", *key[1:])
    openssl(directory, "req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
    (directory / f"{name}.ext").write_text(f"{extension}extendedKeyUsage=serverAuth,clientAuth\n")
    openssl(directory, "x509", "-req", "-in", f"{name}.csr", "-CA", "middle.pem", "-CAkey", "middle.key", "-days", "30",
            "-extfile", f"{name}.ext", "-out", f"{name}.leaf")  # fmt: skip
    chain = (directory / f"{name}.leaf").read_text() + (directory / "middle.pem").read_text()
    (directory / f"{name}.pem").write_text(chain)
    (directory / f"{name}.key").chmod(0o600)


# As openssl writes them: `EC PRIVATE KEY` (SEC 1), `RSA PRIVATE KEY` (PKCS 1), `PRIVATE KEY` (PKCS 8).
KEYS = {
    "SEC 1": ["ecparam", "-name", "prime256v1", "-genkey", "-noout"],
    "PKCS 1": ["genrsa", "-traditional", "2048"],
    "PKCS 8": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
}


@pytest.mark.parametrize("kind", KEYS)
def test_certificates_of_another_authority_are_as_good(tmp_path, kind):
    """By a URI in them, or by a list of names; through an authority in the middle."""
    made_elsewhere(tmp_path, "n1", "subjectAltName=URI:spiffe://bank/node/n1\n", KEYS[kind])
    made_elsewhere(tmp_path, "db2", "subjectAltName=DNS:db2.example.com\n", KEYS[kind])
    made_elsewhere(tmp_path, "till", "", KEYS[kind])
    names = {"db2.example.com": "spiffe://bank/node/n2", "till": "spiffe://bank/client/till?role=writer"}

    def tls(name, names=names):
        return graft.TLS(
            ca=tmp_path / "ca.pem", cert=tmp_path / f"{name}.pem", key=tmp_path / f"{name}.key", names=names
        )

    addresses = dict(zip(("n1", "n2"), free_addresses(2), strict=True))
    with (
        graft.Node(Bank(), id="n1", address=addresses["n1"], data_dir=None, members=addresses, tls=tls("n1")) as n1,
        graft.Node(Bank(), id="n2", address=addresses["n2"], data_dir=None, members=addresses, tls=tls("db2")) as n2,
    ):
        n1.wait_ready(DEADLINE_SECONDS)
        n2.wait_ready(DEADLINE_SECONDS)
        assert n1.status().certificate_expires is not None
        with graft.Client(addresses.values(), Bank, tls=tls("till"), timeout=DEADLINE_SECONDS) as till:
            assert till.execute(Bank.deposit, "ann", 5) == 5
            with pytest.raises(graft.TlsError, match="operator"):
                till.members.remove("n2")
    for wrong, error in ((None, graft.TlsError), ({"till": "nobody"}, graft.ConfigError)):
        with graft.Client(["127.0.0.1:1"], Bank, tls=tls("till", wrong)) as till, pytest.raises(error, match="names"):
            till.status()
    for bad in (5, {"a": 5}, {5: "a"}, ["a"]):
        with pytest.raises(graft.ConfigError, match="names"):
            tls("till", bad)
