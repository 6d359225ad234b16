"""Three processes, one database, one murder.

    make demo

Starts a cluster of three nodes, each a process of its own with a replicated SQLite database, and writes orders into it
through all of them. In the middle of the writing the leader is killed with SIGKILL: nothing is flushed, nobody is told.
In the end every order that was acknowledged must be in every copy, exactly once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

import graft
from sqlite_machine import SQLite

ORDERS = 20_000
"""How many orders are written, at the least."""
ORDERS_EACH = 20
"""How many of them go into one command."""
WRITERS = 8
PATIENCE_SECONDS = 60.0
KEPT_IN_BAR = 40


class Orders(SQLite):
    """The replicated database, with a question about all of it."""

    @graft.query
    def fingerprint(self) -> str:
        """A hash of the schema and of every row."""
        return self.digest().hex()


# A node, in a process of its own. It takes calls as lines of JSON and answers them in any order.


def serve(node_id: str, members: dict[str, str], directory: str) -> None:
    """Runs one node until its input ends."""
    node = graft.Node(Orders(), id=node_id, address=members[node_id], data_dir=directory, members=members)
    said = threading.Lock()

    def say(number: int, answer: dict[str, Any]) -> None:
        with said:
            print(json.dumps({"number": number, **answer}), flush=True)

    def answer(number: int, verb: str, text: str) -> None:
        try:
            if verb == "status":
                status = node.status()
                say(number, {"leader": status.leader, "term": status.term, "applied": status.applied_index})
            elif verb == "execute":
                say(number, {"value": node.execute(Orders.execute, text)})
            elif verb == "rows":
                say(number, {"value": node.query(Orders.rows, text)})
            else:
                say(number, {"value": node.options(consistency="stale").query(Orders.fingerprint)})
        except graft.GraftError as error:
            say(number, {"error": error.code, "message": str(error)})

    with node:
        for line in sys.stdin:
            threading.Thread(target=answer, args=json.loads(line), daemon=True).start()


class Process:
    """The other end of `serve`."""

    def __init__(self, node_id: str, members: dict[str, str], directory: Path) -> None:
        self.id = node_id
        self._log = (directory / f"{node_id}.log").open("a")
        self._answers: dict[int, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._numbers = 0
        self.alive = True
        arguments = [node_id, json.dumps(members), str(directory / node_id)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        # Both are pipes, as was asked for.
        self._input = cast("IO[str]", self._process.stdin)
        threading.Thread(target=self._listen, args=[cast("IO[str]", self._process.stdout)], daemon=True).start()

    def _listen(self, output: IO[str]) -> None:
        for line in output:
            answer = json.loads(line)
            with self._news:
                self._answers[answer.pop("number")] = answer
                self._news.notify_all()
        with self._news:
            self.alive = False
            self._news.notify_all()

    def call(self, verb: str, text: str = "") -> dict[str, Any]:
        """What the node answers; the error "GONE" if it dies first."""
        with self._news:
            self._numbers += 1
            number = self._numbers
            try:
                self._input.write(json.dumps([number, verb, text]) + "\n")
                self._input.flush()
            except (OSError, ValueError):  # the latter once the demo is over, and the pipe closed
                return {"error": "GONE", "message": "the process is gone"}
            self._news.wait_for(lambda: number in self._answers or not self.alive, PATIENCE_SECONDS)
            return self._answers.pop(number, {"error": "GONE", "message": "the process is gone"})

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def kill(self) -> None:
        """As the power cut would: no goodbye."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        """Ends its input, upon which it hands over and stops."""
        try:
            self._input.close()
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._log.close()


# What happens.


class Writing:
    """Writers that put orders into the cluster through whichever member answers, and remember what they were told."""

    def __init__(self, nodes: dict[str, Process]) -> None:
        self.nodes = nodes
        self._lock = threading.Lock()
        self._next = 0
        self.acknowledged: set[int] = set()
        self.unknown: set[int] = set()
        self.times: list[float] = []
        self._threads = [threading.Thread(target=self._write, args=[n], daemon=True) for n in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def _take(self) -> int | None:
        with self._lock:
            if self._next * ORDERS_EACH >= ORDERS:
                return None
            self._next += 1
            return self._next - 1

    def _write(self, writer: int) -> None:
        turn = writer
        while (batch := self._take()) is not None:
            first = batch * ORDERS_EACH
            rows = ", ".join(f"({n}, 'customer {n % 97}', {n * 7 % 1000})" for n in range(first, first + ORDERS_EACH))
            while True:
                turn += 1
                node = list(self.nodes.values())[turn % len(self.nodes)]
                if not node.alive:
                    continue
                answer = node.call("execute", f"INSERT INTO orders VALUES {rows}")  # noqa: S608 - numbers only
                if self._note(batch, answer):
                    break

    def _note(self, batch: int, answer: dict[str, Any]) -> bool:
        """Whether the batch is done with. What was certainly not applied is sent again."""
        with self._lock:
            if "value" in answer:
                self.acknowledged.add(batch)
                self.times.append(time.monotonic())
                return True
            # A key that is there already, for one, means that an earlier try was applied after all.
            if answer["error"] in ("UNKNOWN_OUTCOME", "GONE", "APPLY"):
                self.unknown.add(batch)
                return True
            return False

    @property
    def done(self) -> int:
        """How many orders are acknowledged."""
        with self._lock:
            return len(self.acknowledged) * ORDERS_EACH

    def wait(self) -> None:
        """Until all are written."""
        for thread in self._threads:
            thread.join()

    def pause_after(self, moment: float) -> float:
        """How long nothing was acknowledged, around or after that moment."""
        times = sorted(self.times)
        gaps = [b - a for a, b in pairwise(times) if b > moment]
        return max(gaps, default=0.0)


class Screen:
    """Says what happens, in colour where there is any."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._begun = time.monotonic()

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.is_terminal else text

    def say(self, text: str = "", *, mark: str = " ", colour: str = "0") -> None:
        """One line, with the seconds since the beginning."""
        at = self._paint("2", f"{time.monotonic() - self._begun:6.2f} s")
        print(f" {at}  {self._paint(colour, mark)}  {text}", flush=True)

    def good(self, text: str) -> None:
        """Something that is as it should be."""
        self.say(text, mark="✓", colour="32")

    def bad(self, text: str) -> None:
        """Something that hurts."""
        self.say(self._paint("31;1", text), mark="✗", colour="31;1")

    def bold(self, text: str) -> str:
        """What matters."""
        return self._paint("1", text)

    def title(self, text: str) -> None:
        """The first line."""
        print(f"\n {self._paint('1', text)}\n", flush=True)

    def progress(self, done: int, all_of_it: int) -> None:
        """A bar that is drawn over itself; nothing where that cannot be."""
        if self.is_terminal:
            filled = KEPT_IN_BAR * done // all_of_it
            bar = "━" * filled + self._paint("2", "━" * (KEPT_IN_BAR - filled))
            end = "\n" if done >= all_of_it else ""
            print(f"\r            →  {bar}  {done:,} orders acknowledged {end}", end="", flush=True)

    def clear(self) -> None:
        """Makes room for a line where the bar was."""
        if self.is_terminal:
            print("\r\x1b[K", end="", flush=True)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for_leader(nodes: dict[str, Process], *, not_this: str = "") -> tuple[Process, int]:
    """The leader that all living nodes agree on, and its term."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        answers = [node.call("status") for node in nodes.values() if node.alive]
        leaders = {(answer.get("leader"), answer.get("term")) for answer in answers}
        if len(leaders) == 1:
            leader, term = leaders.pop()
            if leader in nodes and leader != not_this and nodes[leader].alive:
                return nodes[leader], int(term or 0)
        time.sleep(0.01)
    raise SystemExit("no leader was elected: the nodes' logs say why")


def wait_for_the_same(nodes: dict[str, Process]) -> list[str]:
    """Everyone's fingerprint, once all have applied the same."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        applied = {node.call("status")["applied"] for node in nodes.values()}
        if len(applied) == 1:
            return [str(node.call("fingerprint")["value"]) for node in nodes.values()]
        if time.monotonic() > deadline:
            raise SystemExit(f"the replicas did not catch up: {applied}")
        time.sleep(0.01)


def murder(nodes: dict[str, Process], writing: Writing, screen: Screen) -> tuple[str, float]:
    """Kills the leader when a third is written. Answers its id, and when."""
    while writing.done < ORDERS // 3:
        screen.progress(writing.done, ORDERS)
        time.sleep(0.02)
    leader, term = wait_for_leader(nodes)
    screen.clear()
    screen.say(f"{writing.done:,} orders are acknowledged; the writers go on …")
    moment = time.monotonic()
    leader.kill()
    screen.bad(f"kill -9 {leader.pid}: {leader.id}, leader of term {term}, is dead in the middle of a write")
    successor, term = wait_for_leader(nodes, not_this=leader.id)
    took = time.monotonic() - moment
    screen.good(f"{screen.bold(successor.id)} leads term {term}, elected {took * 1000:.0f} ms after the murder")
    return leader.id, moment


def verdict(nodes: dict[str, Process], writing: Writing, screen: Screen) -> bool:
    """Compares what the writers were told with what is there."""
    prints = wait_for_the_same(nodes)
    found = nodes[next(iter(nodes))].call("rows", "SELECT id FROM orders ORDER BY id")["value"]
    ids = [row[0] for row in found]
    told = {batch * ORDERS_EACH + n for batch in writing.acknowledged for n in range(ORDERS_EACH)}
    maybe = {batch * ORDERS_EACH + n for batch in writing.unknown for n in range(ORDERS_EACH)}
    lost, doubled, invented = told - set(ids), len(ids) - len(set(ids)), set(ids) - told - maybe
    screen.say()
    for node, fingerprint in zip(nodes, prints, strict=True):
        screen.say(f"{node}  {len(ids):,} orders  sha {fingerprint[:32]}…")
    same = len(set(prints)) == 1
    checks = [
        (same, "the three databases are the same, to the last byte", "the databases differ"),
        (not lost, f"of {len(told):,} acknowledged orders, 0 are lost", f"{len(lost)} acknowledged orders are lost"),
        (not doubled and not invented, "no order is there twice, none was invented", "strange orders are there"),
    ]
    for holds, good, bad in checks:
        (screen.good if holds else screen.bad)(good if holds else bad)
    if maybe:
        there = len(maybe & set(ids))
        screen.say(f"{len(maybe):,} orders died with their answer; {there:,} of them are there: the writer was told so")
    return all(holds for holds, _, _ in checks) and len(ids) >= ORDERS * 5 // 6


def end_all(nodes: dict[str, Process]) -> None:
    """Lets every node hand over and stop."""
    for node in nodes.values():
        node.end()


def main() -> int:
    """Plays it."""
    screen = Screen()
    screen.title("Graft: three processes, one database, one murder")
    with ExitStack() as ending:
        directory = Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="graft-demo-")))
        members = {f"n{n}": f"127.0.0.1:{port}" for n, port in enumerate(free_ports(3), start=1)}
        nodes = {node_id: Process(node_id, members, directory) for node_id in members}
        ending.callback(end_all, nodes)
        for node in nodes.values():
            screen.say(f"{node.id} runs as process {node.pid} at {members[node.id]}")
        leader, term = wait_for_leader(nodes)
        screen.good(f"{screen.bold(leader.id)} was elected leader of term {term}")
        leader.call("execute", "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, cents INTEGER)")
        screen.good(f"table made; {WRITERS} writers put {ORDERS:,} orders in, through all three nodes")
        writing = Writing(nodes)
        victim, moment = murder(nodes, writing, screen)
        nodes[victim].end()
        nodes[victim] = Process(victim, members, directory)
        screen.say(f"{victim} is started again, with the same line and what is left on its disk")
        while writing.done + len(writing.unknown) * ORDERS_EACH < ORDERS:
            screen.progress(writing.done, ORDERS)
            time.sleep(0.02)
        writing.wait()
        screen.progress(ORDERS, ORDERS)
        screen.good(f"all is written; the longest the writers waited was {writing.pause_after(moment) * 1000:.0f} ms")
        intact = verdict(nodes, writing, screen)
        screen.say()
        if intact:
            screen.say(screen.bold("Nothing was lost.") + "  The database is examples/sqlite_machine.py.")
        else:
            logs = "".join((directory / f"{node}.log").read_text() for node in nodes)
            print(logs, file=sys.stderr)
    print()
    return 0 if intact else 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case [node_id, members, data_dir]:
            serve(node_id, json.loads(members), data_dir)
        case []:
            try:
                sys.exit(main())
            except KeyboardInterrupt:
                print("\n interrupted: all processes have ended, and nothing of them is left")
                sys.exit(130)
        case _:
            sys.exit("the demo takes no arguments: it plays the same piece every time")
