"""`graft start`: a process that is one node."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft import _engine
from graft._address import named
from graft._config import Config
from graft._errors import ConfigError, GraftError, Removed, Timeout
from graft._machine import StateMachine
from graft._node import Node
from graft._readiness import readiness
from graft.tls import TLS

if TYPE_CHECKING:
    import os

_LOOK_SECONDS = 0.1
# How long a start takes that goes well, and how often it is said what is missing.
_PATIENCE_SECONDS = 3.0
_FOUNDING = "graft start ADDR --cluster ADDR, twice the same"


class UsageError(Exception):
    """The command line asks for what cannot be, and why."""


def start(
    *,
    id: str,  # noqa: A002 - as Node has it
    address: str,
    machine: str,
    data_dir: os.PathLike[str] | None,
    bind: str | None,
    metrics: str | None,
    cluster: list[str],
    tls: tuple[os.PathLike[str], os.PathLike[str], os.PathLike[str]] | None,
    insecure: bool,
    settings: dict[str, Any],
    json: bool,
) -> int:
    """Runs a node until it is told to end, or removed. Gives the status to exit with."""
    try:
        made = _made(machine)
        join = None if cluster == [address] else cluster
        if join == []:
            raise UsageError(
                "which cluster? `--cluster` with the node's own address founds one, with a member's address joins it"
            )
        directory = Path(data_dir or f"graft-{id}")
        has_been = _has_something(directory)
        node = Node(
            made,
            id=id,
            address=address,
            data_dir=directory,
            bind=bind,
            metrics=metrics,
            join=join,
            tls=None if tls is None else TLS(ca=tls[0], cert=tls[1], key=tls[2]),
            insecure=insecure,
            **settings,
        ).start()
        if has_been:
            words = f"goes on with what is in {directory}"
        else:
            words = "founds a cluster" if join is None else f"joins {', '.join(cluster)}"
        _say(f"node {named(id, node.address)}, {words}")
        return _serve(node)
    except (UsageError, TypeError, GraftError) as error:  # a TypeError says that the machine cannot be replicated
        return failed(error, json)


def _made(where: str) -> StateMachine:
    """A machine of this class. What its own code raises is told in one line: nobody wants to read our frames for it."""
    kind = machine_of(where)
    try:
        return kind()
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise UsageError(f"{where} cannot be made: it takes no arguments, and raised {what}") from error


def check(*, settings: dict[str, Any], json: bool) -> int:
    """Says whether a node could start with these settings. Gives the status to exit with."""
    try:
        Config(**settings)
    except ConfigError as error:
        return failed(error, json)
    _say("the settings are good")
    return 0


def failed(error: UsageError | TypeError | GraftError, json: bool) -> int:
    """Says what went wrong, as JSON if answers are to be that. Gives the status to exit with."""
    code, fix = (error.code, error.fix) if isinstance(error, GraftError) else ("USAGE", None)
    status: int = _engine.load().exit_status(code)
    if json:
        from msgspec import json as encoded

        # A lone surrogate, of a name that is not UTF-8 or of the machine's own words, has no place in JSON.
        message = str(error).encode("utf-8", "backslashreplace").decode()
        document = {
            "schema": "graft/error/v1", "code": code, "message": message, "why": None, "fix": fix, "exit": status,
        }  # fmt: skip
        _say(encoded.encode(document).decode())
    else:
        _say(f"error[{code}]: {error}" + ("" if fix is None else f"\n  fix: {fix}"))
    return status


def _has_something(directory: Path) -> bool:
    try:
        return any(directory.iterdir())
    except OSError:  # the start says what is wrong with it
        return False


def _tell(node: Node[Any], ended: threading.Event) -> None:
    """Says when the node is ready, and until then, now and then, what it waits for."""
    ready, told, since = readiness(node), "", time.monotonic()
    with suppress(GraftError):  # whoever serves tells of it
        while not ended.wait(_LOOK_SECONDS):
            with suppress(Timeout):
                if ready(math.inf, 0.0):
                    leader = node.status().leader
                    # One that led a moment ago may be gone.
                    _say("ready" if leader is None else f"ready: {leader} leads")
                    return
            if time.monotonic() - since >= _PATIENCE_SECONDS:
                since, words = time.monotonic(), node.why()
                if not node.status().members:
                    words += f"; if there is no cluster yet, one node has to found it: {_FOUNDING}"
                if words != told:
                    _say(f"not ready yet: {words}")
                told = words


def _serve(node: Node[Any]) -> int:
    happened = node.events(since=0, timeout=0)
    ended = threading.Event()
    teller = threading.Thread(target=_tell, args=(node, ended), name="graft-teller", daemon=True)
    teller.start()
    try:
        node.serve_forever()
    except Removed:
        # One that was removed before it started has no business here, however late it hears of it. One that knew a
        # leader since was a member, is removed now, and has done its work.
        if not any(event.kind == "gap" or event.data.get("leader") is not None for event in happened):
            raise
        _say(f"node {node.id} was removed from the cluster, and ends")
    finally:
        ended.set()
        teller.join()
    return 0


def machine_of(where: str) -> type[StateMachine]:
    """The class of `package.module:Class` or `file.py:Class`."""
    place, _, name = where.rpartition(":")
    if not place or not name:
        raise UsageError(f"{where!r} is no place of a machine: write package.module:Class or file.py:Class")
    try:
        if place.endswith(".py"):
            # A file may go by the name of a module that is loaded already.
            name_of_module = Path(place).stem
            if name_of_module in sys.modules:
                name_of_module = f"graft_machine_{name_of_module}"
            spec = importlib.util.spec_from_file_location(name_of_module, place)
            if spec is None or spec.loader is None:
                raise UsageError(f"{place} cannot be loaded")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            # Its own imports are looked for beside it, as for a script.
            sys.path.insert(0, str(Path(place).resolve().parent))
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, str(Path.cwd()))
            module = importlib.import_module(place)
    except (ImportError, OSError, SyntaxError) as error:
        raise UsageError(f"{place} cannot be loaded: {error}") from error
    found: Any = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, StateMachine)):
        offered = [
            key for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, StateMachine) and value is not StateMachine
        ]  # fmt: skip
        raise UsageError(f"{place} has no StateMachine {name}; it has {', '.join(offered) or 'none'}")
    return found


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)  # noqa: T201 - a command speaks
