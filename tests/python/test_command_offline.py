"""What `graft` does with files: backups, directories without a node, and what is left of a cluster."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from graft import _errors
from nodes import DEADLINE_SECONDS, free_addresses, until


@pytest.fixture
def three(shell):
    """A cluster of three processes with ten deposits; their addresses, which are their ids."""
    addresses = free_addresses(3)
    shell.cluster = addresses[0]
    shell.start(addresses[0])
    shell.run("health", "--wait", str(DEADLINE_SECONDS))
    for address in addresses[1:]:
        shell.start(address)
    shell.wait_members(3)
    for _ in range(10):
        shell.run("execute", "deposit", "who=ann", "amount=1")
    return addresses


def kill(shell, addresses):
    for address in addresses:
        shell.nodes[address].kill()
        shell.nodes[address].wait()


def test_a_backup_is_restored_into_a_new_cluster(shell, three):
    made = json.loads(shell.says("backup", "bank.backup", "-o", "json"))
    assert made["file"] == "bank.backup"
    taken = shell.run("backup", "bank.backup", status=1).stderr
    assert "is there already" in taken
    assert "fix: choose another name for the backup, or remove that file" in taken
    looked = json.loads(shell.says("restore", "bank.backup", "--dry-run", "-o", "json"))
    assert (looked["index"], looked["schema"]) == (made["index"], "graft/backup/v1")
    shell.run("restore", "bank.backup", status=2)

    (free,) = free_addresses(1)
    told = shell.says("restore", "bank.backup", "--data-dir", f"graft-{free}")
    assert "graft start" in told
    filled = shell.run("restore", "bank.backup", "--data-dir", f"graft-{free}", status=1).stderr
    assert "something in it already" in filled
    assert "fix: choose another directory" in filled
    for words in (("log", "verify", "nowhere"), ("log", "ls", "."), ("recover", "nowhere")):
        assert "fix: give the data directory of a node" in shell.run(*words, status=1).stderr
    kill(shell, three)
    shell.cluster = free
    shell.start(free)
    assert shell.says("health", "--wait", str(DEADLINE_SECONDS)) == "healthy"
    assert shell.says("query", "balance", "who=ann") == "10"

    data = (shell.directory / "bank.backup").read_bytes()
    (shell.directory / "bad.backup").write_bytes(data[:-3])
    bad = shell.run("restore", "bad.backup", "--dry-run", status=8)
    assert "error[CORRUPTION]" in bad.stderr
    assert "bad.backup" in bad.stderr
    assert "fix: use another backup" in bad.stderr
    missing = shell.run("restore", "missing.backup", "--dry-run", status=1).stderr
    assert "fix: give the file of a backup" in missing


def test_a_log_is_looked_into_and_verified(shell, three):
    directory = f"graft-{three[0]}"
    assert "error[LOCKED]" in shell.run("log", "ls", directory, status=5).stderr
    kill(shell, three)
    listed = json.loads(shell.says("log", "ls", directory, "-o", "json"))
    assert (listed["id"], listed["schema"]) == (three[0], "graft/log/v1")
    assert listed["segments"]
    shown = [json.loads(line) for line in shell.says("log", "show", directory, "-o", "jsonl").splitlines()]
    commands = [entry for entry in shown if entry["kind"] == "command"]
    assert len(commands) == 10
    assert "deposit" in json.dumps(commands[0]["value"])
    assert shown[0]["kind"] == "membership"
    some = shell.says("log", "show", directory, "--from", "2", "--to", "3", "-o", "plain").splitlines()
    assert [line.split("\t")[0] for line in some] == ["2", "3"]
    assert "is good" in shell.says("log", "verify", directory)

    segment = shell.directory / directory / listed["segments"][0]["name"]
    data = bytearray(segment.read_bytes())
    data[data.index(b"deposit")] ^= 1
    segment.write_bytes(data)
    bad = shell.run("log", "verify", directory, status=8)
    assert "error[CORRUPTION]" in bad.stderr
    assert segment.name in bad.stderr
    assert "no data directory" in shell.run("log", "ls", ".", status=1).stderr


def test_a_cluster_that_lost_two_of_three_disks_goes_on_with_everything_that_is_left(shell, three):
    kill(shell, three)
    left = f"graft-{three[2]}"
    told = shell.run("recover", left)
    assert three[0] in told.stderr
    assert "are lost, if there are any" in told.stderr
    assert f"{three[2]} has most" in told.stderr
    everybody = [f"graft-{address}" for address in three]
    listed = json.loads(shell.says("recover", *everybody, "-o", "json"))
    assert (len(listed["survivors"]), listed["has_quorum"], listed["complete"]) == (3, True, True)
    refused = shell.run("recover", *everybody, "--into", "new", "--yes", status=5)
    assert "a majority of the voters is left" in refused.stderr
    asks = shell.run("recover", left, "--into", "new", status=2, stdin=subprocess.DEVNULL)
    assert "--yes" in asks.stderr
    assert not (shell.directory / "new").exists()
    shell.run("recover", left, "--into", "new", "--dry-run")
    assert not (shell.directory / "new").exists()

    assert typed(shell, "recover", left, "--into", "new", line="no") == 2
    assert not (shell.directory / "new").exists()
    assert typed(shell, "recover", left, "--into", "new", line=three[2]) == 0
    shell.cluster = three[2]
    shell.start(three[2], data_dir="new")
    assert shell.says("health", "--wait", str(DEADLINE_SECONDS)) == "healthy"
    assert shell.says("query", "balance", "who=ann") == "10"
    assert shell.says("execute", "deposit", "who=ann", "amount=1") == "11"

    # One that was thought lost comes back: it takes no part, and is told why.
    shell.start(three[0])
    until(lambda: b"belongs to the cluster" in (shell.directory / f"{three[0]}.log").read_bytes())
    assert shell.says("query", "balance", "who=ann") == "11"
    assert len(json.loads(shell.says("configuration", "-o", "json"))["members"]) == 1


def typed(shell, *words, line):
    """Runs it on a terminal where somebody types this line; the exit status."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(shell.directory)
        os.execve(sys.executable, shell.command(*words), shell.environment())
    os.write(terminal, f"{line}\n".encode())
    output = b""
    while True:
        try:
            more = os.read(terminal, 4096)
        except OSError:
            break
        if not more:
            break
        output += more
    _, status = os.waitpid(pid, 0)
    assert b"Type" in output, output
    return os.waitstatus_to_exitcode(status)


def test_every_error_is_explained_and_has_its_exit_status(shell):
    heads = [line.split() for line in shell.says("explain").splitlines() if line[0].isupper()]
    explained = {code: int(status.rstrip(")")) for code, _, status in heads}
    missing = set(_errors._BY_CODE) - {"GRAFT"} - set(explained)
    assert not missing
    assert (explained["CONFIG"], explained["CORRUPTION"], explained["TLS"], explained["UNKNOWN_OUTCOME"]) == (
        2,
        8,
        7,
        6,
    )
