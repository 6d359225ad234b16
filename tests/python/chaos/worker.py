"""One client in a process of its own, with lanes that call all the time: what `chaos.cluster` starts."""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import graft
from linearizable import OK, Journal
from linearizable.models import READS
from process_node import Answering

from chaos.lane import Lane
from chaos.machine import Store
from chaos.workload import CALL_SECONDS, Chooser, Workload


class Worker(Answering):
    """Does what its parent says. Each journal is a file that the parent finds by its name."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__()
        self._name: str = told["name"]
        self._directory = Path(told["directory"])
        self._lanes: int = told["lanes"]
        self._seed: int = told["seed"]
        self._client = graft.Client(told["members"], Store, timeout=told["timeout"], insecure=True)
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._journals: list[Journal] = []
        self._counts: Counter[str] = Counter()

    def do_live(self, name: str, workload: dict[str, Any]) -> None:
        """Starts the lanes, which draw what they do until `do_end`."""
        work = Workload(**workload)
        journal = self._journal(name)
        for number in range(self._lanes):
            # Who writes waits for what it wrote when its side is cut off; who only reads goes on asking.
            only_reads = number == self._lanes - 1
            self._spawn(journal, number, partial(self._live, work, only_reads))

    def do_increment(self, name: str, key: str, number: int, pause: float) -> None:
        """Starts the lanes, which increment until so many are acknowledged between them."""
        journal = self._journal(name)
        for lane in range(self._lanes):
            share = number // self._lanes + (lane < number % self._lanes)
            self._spawn(journal, lane, partial(self._increment, key, share, pause))

    def do_look(self, name: str, keys: list[str]) -> None:
        """Reads each object once."""
        journal = self._journal(name)
        with closing(Lane(self._name, self._client, journal, self._counts, is_async=False)) as lane:
            for key in keys:
                lane.call(key, "get" if key.startswith("map/") else "read")

    def do_end(self) -> None:
        """Ends the lanes, once their calls are answered."""
        self._ending.set()
        self.do_join()
        self._ending.clear()

    def do_join(self) -> None:
        """Waits until the lanes end by themselves."""
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        for journal in self._journals:
            journal.close()
        self._journals.clear()

    def do_counts(self) -> dict[str, int]:
        """How the calls ended so far."""
        return dict(self._counts)

    def _journal(self, name: str) -> Journal:
        journal = Journal(self._directory / f"{name}.{self._name}.jsonl")
        self._journals.append(journal)
        return journal

    def _spawn(self, journal: Journal, number: int, run: Callable[[Lane, str], None]) -> None:
        def guarded() -> None:
            try:
                name = f"{self._name}.{number}"
                with closing(Lane(name, self._client, journal, self._counts, is_async=number % 2 == 1)) as lane:
                    run(lane, name)
            except BaseException:
                # A lane that ended before its time would be a test that sees too little.
                traceback.print_exc()
                os._exit(70)

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _live(self, work: Workload, only_reads: bool, lane: Lane, name: str) -> None:
        luck = random.Random(f"{self._seed} {work.epoch} {name}")
        chooser = Chooser(work, name, luck, only_reads=only_reads)
        while not self._ending.wait(luck.uniform(0, 2 * work.pause)):
            key, verb, arguments = chooser.draw()
            is_left = not key.startswith("counter/") and luck.random() < work.left_unknown
            seconds = luck.choice(CALL_SECONDS)
            outcome, value = lane.call(key, verb, *arguments, seconds=seconds, is_left=is_left)
            if outcome == OK and verb in READS:
                chooser.saw(key, value)

    def _increment(self, key: str, number: int, pause: float, lane: Lane, name: str) -> None:
        luck = random.Random(f"{self._seed} {name}")
        done = 0
        while done < number and not self._ending.wait(pause):
            outcome = lane.call(key, "increment", 1, seconds=luck.choice(CALL_SECONDS))[0]
            done += outcome == OK


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s")
    Worker(json.loads(sys.argv[1])).serve()
    os._exit(0)
