"""Graft keeps a Python program's state alive on several machines.

Subclass `StateMachine`, mark its methods with `command` and `query`, and start a `Node` on each machine: what one
node executes, all of them apply, in the same order, and a minority of them may fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graft._aio import AsyncCalls
    from graft._aio_members import AsyncMembers
    from graft._config import Config
    from graft._context import Context
    from graft._errors import (
        AddressInUse,
        ApplyError,
        Busy,
        ClusterMismatch,
        ConfigError,
        Corruption,
        Diverged,
        GraftError,
        Halt,
        Halted,
        IdentityMismatch,
        MembershipRefused,
        NoLeader,
        NoQuorum,
        NotLeader,
        Removed,
        Stopped,
        StorageError,
        Timeout,
        TlsError,
        TooLarge,
        UnknownOutcome,
    )
    from graft._events import AsyncEvents, Event, Events
    from graft._machine import Command, Query, StateMachine, command, query
    from graft._members import Members
    from graft._node import Node
    from graft._progress import Progress
    from graft._result import Result
    from graft._status import Member, Status
    from graft._verbs import Calls
    from graft._what_if import WhatIf

__all__ = [
    "AddressInUse",
    "ApplyError",
    "AsyncCalls",
    "AsyncEvents",
    "AsyncMembers",
    "Busy",
    "Calls",
    "ClusterMismatch",
    "Command",
    "Config",
    "ConfigError",
    "Context",
    "Corruption",
    "Diverged",
    "Event",
    "Events",
    "GraftError",
    "Halt",
    "Halted",
    "IdentityMismatch",
    "Member",
    "Members",
    "MembershipRefused",
    "NoLeader",
    "NoQuorum",
    "Node",
    "NotLeader",
    "Progress",
    "Query",
    "Removed",
    "Result",
    "StateMachine",
    "Status",
    "Stopped",
    "StorageError",
    "Timeout",
    "TlsError",
    "TooLarge",
    "UnknownOutcome",
    "WhatIf",
    "command",
    "query",
]

# Names are loaded at first use, which keeps `import graft` a matter of a millisecond.
_HOMES = {
    "AsyncCalls": "_aio",
    "AsyncEvents": "_events",
    "AsyncMembers": "_aio_members",
    "Calls": "_verbs",
    "Command": "_machine",
    "Config": "_config",
    "Context": "_context",
    "Event": "_events",
    "Events": "_events",
    "Member": "_status",
    "Members": "_members",
    "Node": "_node",
    "Progress": "_progress",
    "Query": "_machine",
    "Result": "_result",
    "StateMachine": "_machine",
    "Status": "_status",
    "WhatIf": "_what_if",
    "command": "_machine",
    "query": "_machine",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from graft import _engine

        return _engine.load().build_info()["version"]
    if name not in __all__:
        raise AttributeError(f"module 'graft' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"graft.{_HOMES.get(name, '_errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
