"""A router between network namespaces, which loses, delays and doubles what it is told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from chaos.network import Noise
from chaos.router import Router

TROUBLE = Router.trouble()
pytestmark = pytest.mark.skipif(TROUBLE is not None, reason=str(TROUBLE))
PAIR = ("here", "there")
DATAGRAMS = 200

ECHO = """
import socket, sys, threading
host, port = sys.argv[1].split(":")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.create_server((host, int(port))) as server:
    datagrams.bind((host, int(port)))
    print("listening", flush=True)
    def answer():
        while True:
            near, _ = server.accept()
            while data := near.recv(100):
                near.sendall(data)
    threading.Thread(target=answer, daemon=True).start()
    while True:
        datagrams.sendto(*datagrams.recvfrom(100))
"""

ASK = """
import json, socket, sys, time
host, port = sys.argv[1].split(":")
sent, found = {}, []
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
    datagrams.settimeout(0.0005)
    def hear():
        try:
            number = int(datagrams.recv(100))
        except TimeoutError:
            return
        found.append((number, time.monotonic() - sent[number]))
    for number in range(int(sys.argv[2])):
        sent[number] = time.monotonic()
        datagrams.sendto(str(number).encode(), (host, int(port)))
        hear()
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        hear()
numbers = [number for number, _ in found]
print(json.dumps({
    "distinct": len(set(numbers)), "all": len(numbers), "in_order": numbers == sorted(numbers),
    "fastest": min((seconds for _, seconds in found), default=None),
}))
"""

HOLD = """
import socket, sys
host, port = sys.argv[1].split(":")
with socket.create_connection((host, int(port)), 10) as near:
    for _ in sys.stdin:
        try:
            near.sendall(b"x")
            print(near.recv(1).decode(), flush=True)
        except ConnectionResetError:
            print("reset", flush=True)
"""


@pytest.fixture
def router() -> Iterator[Router]:
    made = Router(["here", "there"])
    try:
        command = [*made.command("there"), sys.executable, "-c", ECHO, made.address("there")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as echo:
            assert echo.stdout is not None
            assert echo.stdout.readline() == "listening\n"
            yield made
            echo.kill()
    finally:
        made.close()
    assert f"graft{os.getpid()}" not in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout


def asked(router: Router) -> dict[str, Any]:
    command = [*router.command("here"), sys.executable, "-c", ASK, router.address("there"), str(DATAGRAMS)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def test_a_direction_is_cut_and_is_whole_again(router: Router) -> None:
    assert asked(router)["distinct"] == DATAGRAMS
    for cut in (PAIR, ("there", "here")):
        router.shape({cut}, {})
        assert asked(router)["distinct"] == 0
    router.shape(set(), {})
    assert asked(router)["distinct"] == DATAGRAMS


def test_packets_are_lost_and_come_twice_and_out_of_order(router: Router) -> None:
    router.shape(set(), {}, {PAIR: Noise(loss=0.3)})
    assert 0.5 < asked(router)["distinct"] / DATAGRAMS < 0.9
    router.shape(set(), {}, {PAIR: Noise(twice=0.5, jitter=0.05)})
    found = asked(router)
    assert found["distinct"] == DATAGRAMS
    assert 0.3 < found["all"] / DATAGRAMS - 1 < 0.7
    assert not found["in_order"]


def test_a_direction_is_slow(router: Router) -> None:
    router.shape(set(), {PAIR: 0.2})
    assert asked(router)["fastest"] >= 0.2
    router.shape(set(), {})
    assert asked(router)["fastest"] < 0.1


def test_connections_are_reset(router: Router) -> None:
    command = [*router.command("here"), sys.executable, "-c", HOLD, router.address("there")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert said(holder) == "x"
        router.reset([("there", "here")])
        assert said(holder) == "reset"
        assert holder.stdin is not None
        holder.stdin.close()


def said(holder: subprocess.Popen[str]) -> str:
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    return holder.stdout.readline().strip()
