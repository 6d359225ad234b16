"""Graft keeps a Python program's state alive on several machines.

Subclass `StateMachine`, mark its methods with `command` and `query`, and start a `Node` on each machine: what one
node executes, all of them apply, in the same order, and a minority of them may fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graft import recipes as recipes
    from graft import tls as tls
    from graft._aio import AsyncCalls, AsyncNode
    from graft._aio_members import AsyncMembers
    from graft._async_client import AsyncClient
    from graft._client import Client
    from graft._cluster import LocalCluster
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
        Insecure,
        InvalidCall,
        MembershipRefused,
        NoLeader,
        NoQuorum,
        NotLeader,
        Removed,
        SessionExpired,
        Stopped,
        StorageError,
        Timeout,
        TlsError,
        TooLarge,
        UnknownOutcome,
    )
    from graft._events import AsyncEvents, Event, Events
    from graft._health import Health, Trouble
    from graft._machine import Command, Query, StateMachine, command, query
    from graft._members import Members
    from graft._node import Node
    from graft._offline import Backup, Recovery, Survivor, check_backup, recover, restore
    from graft._progress import Progress
    from graft._result import Result
    from graft._status import Member, Status
    from graft._timeline import Timeline, TimelineEvent
    from graft._verbs import Calls
    from graft._verification import Verification
    from graft._watch import AsyncWatch, Emitted, FellBehind, Watch
    from graft._what_if import WhatIf
    from graft.tls import TLS

__all__ = [
    "TLS",
    "AddressInUse",
    "ApplyError",
    "AsyncCalls",
    "AsyncClient",
    "AsyncEvents",
    "AsyncMembers",
    "AsyncNode",
    "AsyncWatch",
    "Backup",
    "Busy",
    "Calls",
    "Client",
    "ClusterMismatch",
    "Command",
    "Config",
    "ConfigError",
    "Context",
    "Corruption",
    "Diverged",
    "Emitted",
    "Event",
    "Events",
    "FellBehind",
    "GraftError",
    "Halt",
    "Halted",
    "Health",
    "IdentityMismatch",
    "Insecure",
    "InvalidCall",
    "LocalCluster",
    "Member",
    "Members",
    "MembershipRefused",
    "NoLeader",
    "NoQuorum",
    "Node",
    "NotLeader",
    "Progress",
    "Query",
    "Recovery",
    "Removed",
    "Result",
    "SessionExpired",
    "StateMachine",
    "Status",
    "Stopped",
    "StorageError",
    "Survivor",
    "Timeline",
    "TimelineEvent",
    "Timeout",
    "TlsError",
    "TooLarge",
    "Trouble",
    "UnknownOutcome",
    "Verification",
    "Watch",
    "WhatIf",
    "check_backup",
    "command",
    "query",
    "recover",
    "restore",
]

# Names are loaded at first use, which keeps `import graft` a matter of a millisecond.
_HOMES = {
    "TLS": "tls",
    "AsyncCalls": "_aio",
    "AsyncClient": "_async_client",
    "AsyncEvents": "_events",
    "AsyncMembers": "_aio_members",
    "AsyncNode": "_aio",
    "AsyncWatch": "_watch",
    "Backup": "_offline",
    "Calls": "_verbs",
    "Client": "_client",
    "Command": "_machine",
    "Config": "_config",
    "Context": "_context",
    "Emitted": "_watch",
    "Event": "_events",
    "Events": "_events",
    "FellBehind": "_watch",
    "Health": "_health",
    "LocalCluster": "_cluster",
    "Member": "_status",
    "Members": "_members",
    "Node": "_node",
    "Progress": "_progress",
    "Query": "_machine",
    "Recovery": "_offline",
    "Result": "_result",
    "StateMachine": "_machine",
    "Status": "_status",
    "Survivor": "_offline",
    "Timeline": "_timeline",
    "TimelineEvent": "_timeline",
    "Trouble": "_health",
    "Verification": "_verification",
    "Watch": "_watch",
    "WhatIf": "_what_if",
    "check_backup": "_offline",
    "command": "_machine",
    "query": "_machine",
    "recover": "_offline",
    "restore": "_offline",
}
_MODULES = ("recipes", "tls")


def __getattr__(name: str) -> object:
    if name == "__version__":
        from graft import _engine

        return _engine.load().build_info()["version"]
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"graft.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'graft' has no attribute {name!r}")
    value: object = getattr(import_module(f"graft.{_HOMES.get(name, '_errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES, "__version__"})
