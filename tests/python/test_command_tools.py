"""What `graft` has for whoever runs a cluster: `dev`, `top`, `check`, `bench`, `config`, services and manuals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import graft
import pytest
from graft._start import machine_of
from nodes import DEADLINE_SECONDS, free_addresses, until

SETTINGS = """
address = "{address}"
machine = "machines.py:Bank"
cluster = ["{address}"]
election_timeout = "500ms"
snapshot_every_entries = 5
"""


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, shell, *words, columns: int = 120) -> None:
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
            os.chdir(shell.directory)
            os.execve(sys.executable, shell.command(*words), shell.environment())
        self.output = ""

    def wait_for(self, *words):
        """Reads until all of this was said."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not all(word in self.output for word in words):
            assert time.monotonic() < deadline, f"{words} not in {self.output}"
            if select.select([self.end], [], [], 0.1)[0]:
                self.output += os.read(self.end, 65536).decode()

    def type(self, text) -> None:
        os.write(self.end, text.encode())

    def ends(self) -> int:
        """Reads what is still said; the exit status."""
        while True:
            try:
                more = os.read(self.end, 65536)
            except OSError:
                break
            if not more:
                break
            self.output += more.decode()
        _, status = os.waitpid(self.pid, 0)
        os.close(self.end)
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def terminal(shell):
    """Makes terminals; what still runs there in the end is killed."""
    made = []

    def make(*words, **more) -> Terminal:
        made.append(Terminal(shell, *words, **more))
        return made[-1]

    yield make
    for one in made:
        with suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)


def pasted(output):
    """The environment that `graft dev` has people paste."""
    exports = re.search(r"export (.*)", output)
    assert exports is not None, output
    return dict(word.split("=", 1) for word in exports.group(1).split())


def test_dev_runs_a_secured_cluster_that_other_terminals_get_into(shell, terminal):
    dev = terminal("dev", "--machine", "machines.py:Bank")
    dev.wait_for("Bank on 3 nodes", "export", "leader", "entries/s")
    environment = pasted(dev.output)
    assert set(environment) == {"GRAFT_CLUSTER", "GRAFT_CA", "GRAFT_CERT", "GRAFT_KEY"}
    assert "graft execute deposit who=ann amount=5" in dev.output
    assert "graft query balance who=ann" in dev.output
    assert Path(environment["GRAFT_KEY"]).stat().st_mode & 0o077 == 0

    def run(*words):
        done = subprocess.run(shell.command(*words), env={**os.environ, **environment}, text=True, capture_output=True,
                              timeout=60, check=True)  # fmt: skip
        return done.stdout.strip()

    assert run("execute", "deposit", "who=ann", "amount=5") == "5"
    assert run("query", "balance", "who=ann") == "5"
    assert run("health") == "healthy"
    plain = subprocess.run(shell.command("status", "--timeout", "3"), text=True, capture_output=True, check=False,
                           env={**os.environ, "GRAFT_CLUSTER": environment["GRAFT_CLUSTER"]})  # fmt: skip
    assert plain.returncode in (3, 7)
    dev.type("\x03")
    assert dev.ends() == 0
    assert "the cluster has ended" in dev.output
    assert not Path(environment["GRAFT_KEY"]).exists()


def dev_leads(shell, temporary):
    """A `graft dev` of one node that has a leader, and what it has said."""
    dev = subprocess.Popen(shell.command("dev", "--nodes", "1"), cwd=shell.directory, text=True,
                           env={**os.environ, "TMPDIR": str(temporary)},
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert dev.stdout is not None
    lines = []
    while not lines or "leads in term" not in lines[-1]:
        lines.append(dev.stdout.readline())
    return dev, lines


def test_dev_removes_what_one_that_was_killed_has_left_and_nothing_of_one_that_lives(shell, tmp_path):
    killed, _ = dev_leads(shell, tmp_path)
    (left,) = tmp_path.glob("graft-dev-*")
    lives, _ = dev_leads(shell, tmp_path)
    (others,) = set(tmp_path.glob("graft-dev-*")) - {left}
    killed.kill()
    killed.communicate()
    assert left.exists()
    # It may be about to be begun.
    (tmp_path / "graft-dev-unlocked").mkdir()
    last, _ = dev_leads(shell, tmp_path)
    assert not left.exists()
    assert others.exists()
    for dev in (lives, last):
        dev.send_signal(signal.SIGTERM)
        dev.communicate(timeout=30)
        assert dev.returncode == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("graft-")] == ["graft-dev-unlocked"]


def test_dev_without_a_machine_keeps_keys_and_values(shell, tmp_path):
    dev, lines = dev_leads(shell, tmp_path)
    assert "  graft execute set key=ann value=1\n" in lines
    environment = {**os.environ, **pasted("".join(lines))}
    for words, answer in (
        (("execute", "set", "key=colour", "value=green"), None),
        (("query", "get", "key=colour"), "green"),
    ):
        done = subprocess.run(shell.command(*words), env=environment, text=True, capture_output=True, check=True)
        assert answer is None or done.stdout.strip() == answer
    dev.send_signal(signal.SIGTERM)
    _, errors = dev.communicate(timeout=30)
    assert dev.returncode == 0
    assert "the cluster has ended" in errors
    bad = shell.run("dev", "--machine", "machines.py:Nobody", status=2)
    assert "Bank" in bad.stderr


@pytest.fixture
def one(shell):
    (address,) = free_addresses(1)
    shell.cluster = address
    shell.start(address)
    shell.run("health", "--wait", str(DEADLINE_SECONDS))
    return address


def test_top_shows_the_cluster_as_it_changes(shell, one, terminal):
    top = terminal("top", "--interval", "0.1")
    top.wait_for("leads in term", one, "reachable", "\x1b[H")
    committed = int(re.findall(r"log: (\d+) committed", top.output)[-1])
    shell.run("execute", "deposit", "who=ann", "amount=5")
    # Its session, and the command.
    top.wait_for(f"log: {committed + 2} committed", "entries/s")
    top.type("\x03")
    assert top.ends() != 0
    assert len(shell.says("top", "-o", "jsonl", "--count", "2", "--interval", "0.05").splitlines()) == 2
    assert one in shell.says("top")


def test_a_table_fits_the_terminal_and_has_colours_only_there(shell, one, terminal, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    shown = terminal("configuration", columns=30)
    assert shown.ends() == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.output).splitlines()
    assert max(map(len, lines)) == 30
    assert lines[1].endswith("…")
    assert "\x1b[1m" in shown.output
    wide = terminal("configuration", columns=200)
    assert wide.ends() == 0
    assert "\x1b[32mleader" in wide.output
    assert "\x1b" not in shell.says("configuration"), "not where nobody looks"
    error = terminal("remove", "nobody", columns=200)
    assert error.ends() == 5
    assert "\x1b[31merror[MEMBERSHIP_REFUSED]" in error.output
    monkeypatch.setenv("NO_COLOR", "1")
    plain = terminal("configuration", columns=200)
    assert plain.ends() == 0
    assert "\x1b" not in plain.output


def test_help_is_grouped(shell):
    said = shell.says("--help")
    assert all(title in said for title in ("Run nodes:", "Keep and recover its state:", "Examples:", "Exit status:"))
    assert "--machine" in shell.says("help", "start")
    assert "--machine" in shell.says("start", "--help")
    begun = time.monotonic()
    shell.says("--help")
    assert time.monotonic() - begun < DEADLINE_SECONDS


def test_check_says_what_this_machine_is_worth(shell, one):
    (free,) = free_addresses(1)
    done = shell.run("check", "--data-dir", ".", "--bind", free, "-o", "json")
    checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert {"open files", "disk space", "durable write", "late wake-up", "port", "member's answer",
            "election timeout"} == set(checks)  # fmt: skip
    assert checks["durable write"]["values"]["p99_seconds"] > 0
    assert not list(shell.directory.glob(".graft-check*"))
    taken = shell.run("check", "--bind", one, status=10)
    assert "choose another port" in taken.stdout
    assert "write it as HOST:PORT" in shell.run("check", "--bind", "banana", status=10).stdout
    assert "error[UNHEALTHY]" in taken.stderr
    assert "bad" in shell.run("check", "--data-dir", "nowhere", status=10).stdout


def test_bench_makes_calls_and_says_how_fast(shell, one):
    found = json.loads(
        shell.says("bench", "deposit", "who=ann", "amount=1", "--seconds", "1", "--inflight", "8", "-o", "json")
    )
    assert found["failures"] == {}
    assert 0 < found["p50_seconds"] <= found["p99_seconds"] <= found["max_seconds"]
    # One more was made to see whether it can be.
    assert int(shell.says("query", "balance", "who=ann")) == found["answered"] + 1
    read = json.loads(shell.says("bench", "--query", "balance", "who=ann", "--seconds", "0.5", "-o", "json"))
    assert read["answered"] > 0
    assert "error[INVALID_CALL]" in shell.run("bench", "rob", "who=ann", status=5).stderr
    raised = shell.run("bench", "deposit", "who=ann", "amount=-1", status=1)
    assert "error[APPLY]" in raised.stderr


def test_settings_are_taken_from_the_file_the_environment_and_the_command_line(shell):
    (address,) = free_addresses(1)
    (shell.directory / "graft.toml").write_text(SETTINGS.format(address=address))
    environment = {"GRAFT_ELECTION_TIMEOUT": "400ms", "GRAFT_INFLIGHT_MAX": "99"}
    shell.environment = lambda: {**os.environ, **environment}
    shown = json.loads(shell.says("config", "show", "-o", "json", "--set", "heartbeat=40ms"))
    found = {item["key"]: (item["value"], item["origin"]) for item in shown["settings"]}
    assert found == {
        "address": (address, "graft.toml"),
        "cluster": ([address], "graft.toml"),
        "machine": ("machines.py:Bank", "graft.toml"),
        "snapshot_every_entries": (5, "graft.toml"),
        "election_timeout": ("400ms", "GRAFT_ELECTION_TIMEOUT"),
        "inflight_max": (99, "GRAFT_INFLIGHT_MAX"),
        "heartbeat": ("40ms", "--set"),
    }
    assert "GRAFT_ELECTION_TIMEOUT" in shell.says("config", "show", "--origin")
    everything = shell.says("config", "show", "--all", "-o", "plain").splitlines()
    assert len(everything) > 20
    assert "log_bytes_max\t1GiB\tbytes of log in memory" in everything
    assert "are good" in shell.run("config", "check").stderr
    bad = shell.run("config", "check", "--set", "heartbeat=4s", status=2)
    assert "heartbeat" in bad.stderr
    typo = shell.run("config", "check", "--set", "election_timout=1s", status=2)
    assert "did you mean election_timeout?" in typo.stderr

    # All a node needs is in the file; whoever asks it finds it there too.
    words = shell.command("start", "--set", "heartbeat=40ms")
    with (shell.directory / "node.log").open("ab") as log:
        shell.nodes[address] = subprocess.Popen(
            words, cwd=shell.directory, env=shell.environment(), stdout=log, stderr=log
        )
    assert shell.says("health", "--wait", str(DEADLINE_SECONDS)) == "healthy"
    for _ in range(7):
        shell.run("execute", "deposit", "who=ann", "amount=1")
    until(lambda: int(json.loads(shell.says("status", "-o", "json"))["snapshot_index"]) > 0)

    (shell.directory / "graft.toml").write_text("clutser = 5\n")
    assert "graft.toml: there is no setting" in shell.run("status", status=2).stderr
    assert "did you mean cluster?" in shell.run("status", status=2).stderr
    (shell.directory / "graft.toml").write_text("cluster = \n")
    assert "graft.toml" in shell.run("status", status=2).stderr
    assert "cannot be read" in shell.run("status", "--config", "nowhere.toml", status=2).stderr
    # What needs no setting works all the same.
    shell.run("explain", "BUSY")


def test_every_setting_of_a_node_can_be_set_there(shell):
    import dataclasses

    keys = {line.split("\t")[0] for line in shell.says("config", "show", "--all", "-o", "plain").splitlines()}
    settings = {field.name for field in dataclasses.fields(graft.Config)}
    assert settings <= keys
    places = {
        "address",
        "bind",
        "ca",
        "cert",
        "cluster",
        "cluster_id",
        "data_dir",
        "id",
        "insecure",
        "key",
        "machine",
        "metrics",
    }
    assert keys == settings | places


def test_texts_for_services_and_manuals(shell):
    unit = shell.says("service", "systemd")
    assert "ExecStart=" in unit
    assert "RestartPreventExitStatus=5 8" in unit
    assert f"graft-raft=={graft.__version__}" in shell.says("service", "container")
    shell.run("man", "pages")
    assert (shell.directory / "pages" / "graft-member-add.1").read_text().startswith(".ie")
    assert len(list((shell.directory / "pages").glob("*.1"))) > 40


@pytest.mark.parametrize(("name", "flags"), [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["--no-execute"])])
def test_completions_are_good_for_each_shell_that_is_here(shell, name, flags):
    script = shell.directory / f"graft.{name}"
    script.write_text(shell.says("completions", name))
    assert "member" in script.read_text()
    if any((Path(place) / name).exists() for place in os.environ["PATH"].split(":")):
        subprocess.run([name, *flags, str(script)], check=True, timeout=30)


def test_bash_completes_verbs_and_what_follows_them(shell):
    script = shell.directory / "graft.bash"
    script.write_text(shell.says("completions", "bash"))
    ask = (
        'source "$1"; COMP_WORDS=(graft {words}); COMP_CWORD={at}; _graft graft {last} {before}; '
        'echo "${{COMPREPLY[@]}}"'
    )
    for words, found in (("sta", "start status"), ("member pro", "promote"), ("log ver", "verify")):
        *before, last = words.split()
        line = ask.format(words=words, at=len(before) + 1, last=last, before=before[-1] if before else "graft")
        try:
            done = subprocess.run(["bash", "-c", line, "-", str(script)], text=True, capture_output=True, check=True)
        except FileNotFoundError:
            pytest.skip("bash is not here")
        assert done.stdout.strip() == found


def test_a_machine_in_a_file_replaces_no_module_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text(
        "import graft\nclass Two(graft.StateMachine):\n    @graft.command\n    def go(self) -> int:\n        return 2\n"
    )
    before = sys.modules["json"]
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert machine_of("json.py:Two").__name__ == "Two"
    assert sys.modules["json"] is before
