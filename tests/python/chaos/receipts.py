"""The machine of the power cuts, and the client process that writes to it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from typing import Any

import graft
from process_node import Answering, Load, Tokens

TOKENS_KEPT = 5000


class Receipts(Tokens):
    """Tokens, of which only the last are kept: what was before them a chain of hashes vouches for."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0

    @graft.command
    def append(self, token: str) -> list[int]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Puts one at the end; gives its index and its place."""
        index = self.context.index
        self.tokens.append([token, index])
        self.chain = link(self.chain, token, index)
        if len(self.tokens) > 2 * TOKENS_KEPT:
            del self.tokens[:TOKENS_KEPT]
            self.dropped += TOKENS_KEPT
        return [index, self.dropped + len(self.tokens)]

    @graft.query
    def receipt(self, place: int) -> list[Any]:
        """How many there are, what vouches for them, and those behind that place."""
        assert place >= self.dropped, f"what is behind {place} is not kept any more"
        return [self.dropped + len(self.tokens), self.chain.hex(), self.tokens[place - self.dropped :]]

    @graft.query
    def seal(self) -> list[Any]:
        """How many there are, and what vouches for them."""
        return [self.dropped + len(self.tokens), self.chain.hex()]


def link(chain: bytes, token: str, index: int) -> bytes:
    """What vouches for one token more."""
    return hashlib.sha256(chain + f"{token} {index}".encode()).digest()


class Writer(Answering):
    """A client that writes all the time, whatever becomes of the members, and notes what it was told."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__()
        client = graft.Client(told["members"], Receipts, timeout=told["seconds"])
        # Its commands are those of the machine by their names.
        calls: Any = client.options()
        self._load = Load(calls, told["directory"], told["name"])
        self._load.start(told["lanes"], 0, told["pause"])

    def do_end(self) -> None:
        """Ends, once all calls are answered."""
        self._load.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s")
    Writer(json.loads(sys.argv[1])).serve()
    os._exit(0)
