"""Clusters of real processes under faults, whose clients must never see what no order of their calls explains.

The verdict does not depend on the timing: whatever happens when, what was seen must be explained. For longer stories
see `python -m chaos --help`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from chaos import sockets
from chaos.namespaces import Namespaces
from chaos.sockets import has_open, inode
from chaos.story import Story
from chaos.workload import READINGS
from linearizable import OK
from lines import Line

FAULT_SECONDS = 10.0
TROUBLE = Namespaces.trouble()


def told(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{story.tally}")


@pytest.mark.timeout(240)
def test_what_clients_see_under_mixed_faults_is_linearizable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Story(tmp_path, seed=1) as story:
        verdict = story.epoch(FAULT_SECONDS)
        told(story, capsys)
    assert verdict.is_linearizable
    assert story.tally.faults.total() >= 3
    assert story.tally.outcomes[OK] > 500
    assert len(story.tally.reads) == len(set(READINGS))
    assert min(story.tally.reads.values()) > 20


@pytest.mark.timeout(240)
@pytest.mark.skipif(TROUBLE is not None, reason=str(TROUBLE))
def test_what_clients_see_when_a_real_network_fails_is_linearizable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Story(tmp_path, seed=2, clients=4, kind="namespaces") as story:
        story.nemesis.faults = ("isolate_leader", "split", "mute_leader", "deafen_leader", "cut_clients")
        verdict = story.epoch(FAULT_SECONDS / 2)
        told(story, capsys)
    assert verdict.is_linearizable
    assert story.tally.outcomes[OK] > 100


@pytest.mark.timeout(240)
def test_every_increment_is_applied_once_whoever_leads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Story(tmp_path, seed=3) as story:
        verdict = story.increments(number=25, kills=2)
        told(story, capsys)
    assert verdict.is_linearizable


def test_a_cable_that_is_cut_one_way_keeps_what_was_said(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.say("one")
        line.hears("one")
        line.network.shape({("here", "there")}, {})
        line.say("two")
        line.answer("three")
        line.is_answered("three")
        line.hears_nothing()
        line.network.shape({("there", "here")}, {})
        line.hears("two")
        line.answer("four")
        line.is_not_answered()
        line.network.shape(set(), {})
        line.is_answered("four")


def test_a_cable_that_is_cut_takes_no_new_connection(tmp_path: Path) -> None:
    for cut in ({("here", "there")}, {("there", "here")}):
        with Line(tmp_path, cuts=cut) as line:
            line.is_not_connected()
            line.network.shape(set(), {})
            line.say("one")
            line.hears("one")


def test_a_cable_can_be_slow_and_can_be_reset(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.network.shape(set(), {("here", "there"): 0.3})
        line.say("one")
        assert 0.3 <= line.hears("one") < 5
        line.network.shape(set(), {})
        line.network.reset({("here", "elsewhere")})
        line.say("two")
        line.hears("two")
        line.network.reset({("there", "here")})
        line.is_reset()


def test_processes_that_nobody_placed_reach_nobody(tmp_path: Path) -> None:
    with Line(tmp_path, is_placed=False) as line:
        line.is_reset()


@pytest.mark.skipif(TROUBLE is not None, reason=str(TROUBLE))
def test_a_namespace_loses_what_is_cut_and_leaves_nothing_behind() -> None:
    network = Namespaces(["here", "there"])
    try:
        there = network.address("there").partition(":")[0]
        ping = [*network.command("here"), sys.executable, "-c", PING, there]
        assert subprocess.run(ping, check=False).returncode == 0
        for cut in (("here", "there"), ("there", "here")):
            network.shape({cut}, {})
            assert subprocess.run(ping, check=False).returncode == 1
        network.shape(set(), {})
        assert subprocess.run(ping, check=False).returncode == 0
    finally:
        network.close()
    assert f"graft{os.getpid()}" not in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout


# Whether anybody answers there, if only that the port is closed.
PING = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), 0.5)
except ConnectionRefusedError:
    sys.exit(0)
except TimeoutError:
    sys.exit(1)
"""


def test_a_socket_is_found_by_asking_and_in_the_list() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far:
            ends = near.getsockname(), near.getpeername()
            assert inode(*ends) == sockets._listed(*ends)
            assert has_open(os.getpid(), inode(*ends) or 0)
            assert not has_open(os.getppid(), inode(*ends) or 0)
    assert inode(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
