"""The `graft` command, as a shell would use it: real processes, exit statuses, streams."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time

import pytest
from nodes import DEADLINE_SECONDS, free_addresses, until


def test_a_cluster_lives_from_its_founding_to_its_end(shell):
    one, two, three = free_addresses(3)
    shell.cluster = one
    shell.start(one)
    assert shell.says("health", "--wait", str(DEADLINE_SECONDS)) == "healthy"
    shell.start(two)
    shell.start(three)
    shell.wait_members(3)

    assert shell.says("command", "deposit", "who=ann", "amount=5") == "5"
    answer = json.loads(shell.says("execute", "deposit", "who=ann", "amount=6", "-o", "json"))
    assert (answer["value"], answer["schema"], answer["index"].isdigit()) == (11, "graft/execute/v1", True)
    for consistency in ("linearizable", "lease"):
        assert shell.says("query", "balance", "who=ann", "--consistency", consistency) == "11"
    raised = shell.run("execute", "deposit", "who=ann", "amount=-1", status=1)
    assert "error[APPLY]: ValueError: amount must be positive" in raised.stderr
    assert "fix:" in raised.stderr
    assert not raised.stdout
    unknown = shell.run("execute", "rob", "who=ann", status=5)
    assert "error[INVALID_CALL]" in unknown.stderr
    assert "deposit" in unknown.stderr

    assert shell.says("leader", two) == f"{two} leads"
    assert shell.says("leader", "show", "-o", "plain").split() == [two, two]
    assert {line.split("\t")[0] for line in shell.says("member", "list", "-o", "plain").splitlines()} == {
        one,
        two,
        three,
    }
    status = json.loads(shell.says("status", "-o", "json"))
    assert (status["leader"], status["has_quorum"], status["schema"]) == (two, True, "graft/status/v1")
    assert len({line.split()[1] for line in shell.says("verify").splitlines()[1:]}) == 1
    compared = [json.loads(line) for line in shell.says("verify", "-o", "jsonl").splitlines()]
    assert {line["id"] for line in compared} == {one, two, three}
    assert len({line["digest"] for line in compared}) == 1

    shell.nodes[three].kill()
    until(lambda: subprocess.run(shell.command("health"), env=shell.environment(), capture_output=True,
                                 check=False).returncode == 10)  # fmt: skip
    sick = shell.run("health", status=10)
    assert sick.stdout.startswith(f"{three} is not reachable: it ")
    assert f"graft member replace {three}" in sick.stdout
    assert "error[UNHEALTHY]" in sick.stderr
    refused = shell.run("member", "remove", two, status=5)
    assert "error[MEMBERSHIP_REFUSED]" in refused.stderr
    assert three in refused.stderr

    # The seed's `stop`: removed, and its process ends.
    shell.says("stop", three)
    shell.says("stop", two)
    assert shell.nodes[two].wait(DEADLINE_SECONDS) == 0
    shell.wait_members(1)
    assert "its data directory keeps the cluster" in shell.says("stop", one)
    assert shell.nodes[one].wait(DEADLINE_SECONDS) == 0
    unreachable = shell.run("status", "--timeout", "0.3", status=3)
    assert re.search(r"error\[UNREACHABLE\].*refused", unreachable.stderr), "what was wrong is told"

    # The same line again, and nothing is lost.
    shell.start(one)
    shell.run("health", "--wait", str(DEADLINE_SECONDS))
    assert shell.says("query", "balance", "who=ann") == "11"
    # One that was removed is told so, whoever starts it.
    shell.start(two)
    assert shell.nodes[two].wait(DEADLINE_SECONDS) == 5
    assert "error[REMOVED]" in (shell.directory / f"{two}.log").read_text()


def test_who_is_no_member_yet_does_not_answer_for_the_cluster(shell):
    nowhere, joining = free_addresses(2)
    shell.cluster = nowhere
    shell.start(joining)
    shell.cluster = joining
    until(lambda: "waits to be let into a cluster" in shell.run("health", status=10).stdout, "it is up")
    for words in (("member", "list"), ("configuration",), ("add", "n1", nowhere), ("remove", "n1"), ("stop", "n1")):
        refused = shell.run(*words, status=4).stderr
        assert "error[NO_LEADER]" in refused
        assert "is no member yet" in refused


def test_verify_names_who_is_missing_and_why(shell):
    one, two, three = free_addresses(3)
    shell.cluster = one
    for number, address in enumerate((one, two, three), 1):
        shell.start(address)
        shell.wait_members(number)
    shell.nodes[three].kill()
    shell.nodes[three].wait()
    compared = shell.run("verify", "--timeout", "1", status=10)
    assert f"{three} gave no digest; all others have the same" in compared.stderr
    assert f"{three}  none: it did not answer in time: " in compared.stdout
    assert "docs.rs" not in compared.stdout
    told = json.loads(shell.run("verify", "--timeout", "1", "-o", "json", status=10).stdout)["digests"]
    assert {id_ for id_, digest in told.items() if digest["trouble"]} == {three}


def test_a_value_is_what_the_machine_wants_and_is_never_rounded(shell):
    (one,) = free_addresses(1)
    shell.cluster = one
    shell.start(one)
    shell.says("health", "--wait", str(DEADLINE_SECONDS))
    # A name that reads as a number is text where the machine wants text.
    assert shell.says("execute", "deposit", "who=123", "amount=7") == "7"
    assert shell.says("query", "balance", 'who:="123"') == "7"
    for amount in ("18446744073709551616", "text"):
        refused = shell.run("execute", "deposit", "who=5", f"amount={amount}", status=5).stderr
        assert "got `str` - at `$.amount`" in refused
    assert "got `int` - at `$.who`" in shell.run("execute", "deposit", "who:=5", "amount=1", status=5).stderr
    assert "twice" in shell.run("execute", "deposit", "who=ann", "who=bob", "amount=1", status=2).stderr
    assert shell.says("query", "balance", "who=123") == "7"


def test_raw_machines_take_text_files_and_stdin(shell):
    (shell.cluster,) = free_addresses(1)
    shell.start(shell.cluster, "Lines")
    shell.run("health", "--wait", str(DEADLINE_SECONDS))
    assert shell.says("execute", "--raw", "first") == "1"
    (shell.directory / "body").write_text("second")
    assert shell.says("execute", "-f", "body") == "2"
    assert shell.run("execute", "-f", "-", input="third").stdout.strip() == "3"
    assert [shell.says("query", "--raw", str(number)) for number in range(3)] == ["first", "second", "third"]


def test_a_cluster_without_a_majority_says_so(shell):
    one, two = free_addresses(2)
    shell.cluster = one
    shell.start(one)
    shell.run("health", "--wait", str(DEADLINE_SECONDS))
    shell.start(two)
    shell.wait_members(2)
    shell.nodes[two].kill()
    shell.nodes[two].wait()
    until(lambda: json.loads(shell.says("status", "-o", "json"))["leader"] is None)
    refused = shell.run("execute", "deposit", "who=ann", "amount=1", "--timeout", "2", status=4)
    assert "error[NO_" in refused.stderr
    assert "1 of 2" in shell.says("why") or two in shell.says("why")
    assert shell.run("leader", status=4).stdout == ""


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["status"], "GRAFT_CLUSTER"),
        (["status", "-c", "nonsense"], "host:port"),
        (["staus"], "similar"),
        (["execute", "deposit", "amount", "-c", "127.0.0.1:1"], "KEY=VALUE"),
        (["execute"], "NAME"),
        (["status", "--timeout", "-1"], "seconds"),
        (["explain", "NO_SUCH"], "NO_QUORUM"),
        (["start", "127.0.0.1:0", "--cluster", "127.0.0.1:1", "--machine", "nowhere.py:Bank"], "nowhere.py"),
        (["start", "127.0.0.1:0", "--cluster", "127.0.0.1:1", "--machine", "machines.py:Bnak"], "Bank, Lines"),
        (["start", "127.0.0.1:0", "--machine", "machines.py:Bank"], "which cluster"),
    ],
)
def test_what_is_off_is_told_on_stderr(shell, words, what):
    done = shell.run(*words, status=2)
    assert what in done.stderr
    assert not done.stdout


def test_calls_go_to_the_cluster_that_is_named_and_to_no_other(shell):
    one, two = free_addresses(2)
    ids = {}
    for address in (one, two):
        shell.cluster = address
        shell.start(address)
        shell.run("health", "--wait", str(DEADLINE_SECONDS))
        ids[address] = json.loads(shell.says("status", "-o", "json"))["cluster"]
    shell.cluster = f"{one},{two}"
    for address, id_ in ids.items():
        for _ in range(4):  # whichever comes first
            assert json.loads(shell.says("status", "-o", "json", "--cluster-id", id_))["id"] == address
        (shell.directory / "graft.toml").write_text(f'cluster_id = "{id_}"')
        shell.says("execute", "deposit", f"who={address}", "amount=5")
        assert shell.says("query", "balance", f"who={address}") == "5"
        (shell.directory / "graft.toml").unlink()
    refused = shell.run("execute", "deposit", "who=ann", "amount=5", "-c", one, "--cluster-id", ids[two], status=5)
    assert "error[CLUSTER_MISMATCH]" in refused.stderr
    assert ids[one] in refused.stderr
    assert ids[two] in refused.stderr
    assert "--cluster-id" in refused.stderr
    assert "32 hexadecimal digits" in shell.run("status", "--cluster-id", "bank", status=2).stderr
    started = shell.run("start", one, "--cluster", one, "--machine", "machines.py:Bank", "--cluster-id", ids[one],
                        status=2)  # fmt: skip
    assert "--cluster-id is for calls" in started.stderr


def wrong(done):
    """The error of a command that answers in JSON: the one line on stderr."""
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert told["schema"] == "graft/error/v1"
    assert told["exit"] == done.returncode
    assert told["message"]
    assert {"why", "fix"} <= told.keys()
    return told


def test_errors_are_json_where_answers_are(shell):
    (shell.cluster,) = free_addresses(1)
    for form in ("json", "jsonl"):
        told = wrong(shell.run("status", "--timeout", "0.3", "-o", form, status=3))
        assert told["code"] == "UNREACHABLE"
        assert "refused" in told["message"]
        assert "--cluster" in told["fix"]
    shell.start(shell.cluster)
    shell.run("health", "--wait", str(DEADLINE_SECONDS))
    raised = wrong(shell.run("execute", "deposit", "who=ann", "amount=-1", "-o", "json", status=1))
    assert (raised["code"], raised["message"]) == ("APPLY", "ValueError: amount must be positive")
    assert "in deposit" in raised["traceback"]
    assert wrong(shell.run("execute", "rob", "-o", "json", status=5))["code"] == "INVALID_CALL"
    refused = wrong(shell.run("add", "127.0.0.1:1", "-o", "json", status=5))
    assert refused["code"] == "MEMBERSHIP_REFUSED"
    for words in (
        ("staus", "-o", "json"),
        ("status", "--outptu", "-ojson"),
        ("execute", "--output=jsonl"),
        ("status", "-o", "json", "-c", "nonsense"),
        ("status", "-c", "\udcff", "-o", "json"),
        ("start", "127.0.0.1:0", "-c", "127.0.0.1:1", "--machine", "nowhere.py:Bank", "-o", "json"),
        ("dev", "--machine", "nowhere.py:Bank", "-o=json"),
        ("config", "check", "--set", "election_timeout=1us", "-o", "json"),
    ):
        assert wrong(shell.run(*words, status=2))["code"] in ("USAGE", "CONFIG")
    odd = "import graft\nclass Odd(graft.StateMachine):\n  def __init__(self): raise ValueError('\\udc80')\n"
    (shell.directory / "odd.py").write_text(odd)
    words = ("start", "127.0.0.1:0", "-c", "127.0.0.1:0", "--machine", "odd.py:Odd", "-o", "json")
    assert wrong(shell.run(*words, status=2))["message"].endswith("raised ValueError: \\udc80")
    # The help is no error, and what is no form is told in words.
    assert shell.run("status", "-o", "json", "--help").stdout.startswith("Show how")
    assert shell.run("status", "-o", "jsno", status=2).stderr.startswith("error:")


def interrupted(shell, *words):
    """What a command that cannot go on says when it is interrupted."""
    running = subprocess.Popen(shell.command(*words), env=shell.environment(), cwd=shell.directory, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    time.sleep(1.5)  # for it to be under way
    assert running.poll() is None
    begun = time.monotonic()
    running.send_signal(signal.SIGINT)
    out, told = running.communicate(timeout=DEADLINE_SECONDS)
    assert running.returncode in (-signal.SIGINT, 130)
    assert time.monotonic() - begun < 1.5
    assert not out
    return told


def test_an_interrupt_says_what_is_known_of_a_command(shell):
    (shell.cluster,) = free_addresses(1)
    linger = ("execute", "linger", "--timeout", "60")
    unsent = interrupted(shell, *linger)
    assert "error[STOPPED]: interrupted before anything was sent: nothing was applied" in unsent
    shell.start(shell.cluster, "Slow")
    shell.run("health", "--wait", str(DEADLINE_SECONDS))
    told = interrupted(shell, *linger)
    assert "error[UNKNOWN_OUTCOME]: interrupted before the answer came: the command may have been applied" in told
    assert "graft query" in told
    told = json.loads(interrupted(shell, *linger, "-o", "json"))
    assert (told["code"], told["exit"]) == ("UNKNOWN_OUTCOME", 130)
    assert not interrupted(shell, "query", "last", "--timeout", "60"), "a query has changed nothing"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never says a word
        told = interrupted(shell, "add", f"127.0.0.1:{silent.getsockname()[1]}")
        assert "error[UNKNOWN_OUTCOME]: interrupted before the answer came: what was asked for may have been" in told
        assert "graft member list" in told


def test_what_is_to_go_on_in_the_background_ignores_interrupts(shell):
    (shell.cluster,) = free_addresses(1)
    ignoring = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
    words = shell.command("execute", "linger", "--timeout", "3")
    running = subprocess.Popen([*ignoring, *words], env=shell.environment(), cwd=shell.directory, text=True,
                               stderr=subprocess.PIPE)  # fmt: skip
    time.sleep(1.5)  # for it to be under way
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=DEADLINE_SECONDS)
    assert running.returncode == 3, told
    assert "error[UNREACHABLE]" in told


def test_a_member_whose_id_is_its_address_is_named_once(shell):
    shell.cluster, nobody = free_addresses(2)
    shell.start(shell.cluster)
    shell.run("health", "--wait", str(DEADLINE_SECONDS))
    said = (shell.directory / f"{shell.cluster}.log").read_text()
    said += shell.run("add", nobody, status=5).stderr
    said += shell.run("member", "replace", shell.cluster, nobody, nobody, status=5).stderr
    said += shell.run("remove", "n9", status=5).stderr
    assert said.count(f"{nobody} gets the log first") == 2
    assert f"node {shell.cluster}, founds a cluster" in said
    assert f"there are {shell.cluster}\n" in said
    assert not re.search(rf"({shell.cluster}|{nobody}) (at |\()\1", said), said


def test_words_that_need_no_cluster(shell):
    assert "graft start" in shell.says("--help")
    assert shell.says("--version").startswith("graft ")
    assert "exit 4" in shell.says("explain", "no-quorum")
    assert "_graft" in shell.says("completions", "bash")


def test_interrupts_and_closed_pipes_are_clean(shell):
    shell.cluster = "127.0.0.1:1"
    waiting = subprocess.Popen(shell.command("status", "--timeout", "60"), env=shell.environment(), text=True,
                               stderr=subprocess.PIPE)  # fmt: skip
    time.sleep(0.5)  # for it to wait: an interrupt that comes before is as good
    waiting.send_signal(signal.SIGINT)
    _, words = waiting.communicate(timeout=DEADLINE_SECONDS)
    assert waiting.returncode in (-signal.SIGINT, 130)
    assert "Traceback" not in words
    explained = subprocess.Popen(shell.command("explain"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert explained.stdout
    explained.stdout.close()
    explained.stdout = None
    assert explained.communicate(timeout=DEADLINE_SECONDS) == (None, "")
    assert explained.returncode == 0
