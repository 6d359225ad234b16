"""Names and addresses of nodes: what may be written, and what is wrong with the rest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from graft._errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,63}", re.ASCII)
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/@\[\]]+):(?P<port>[0-9]{1,5})", re.ASCII)
_PORT_MAX = 65_535


def checked_id(name: str, value: object) -> str:
    """A node's id: 1 to 63 letters, digits, and `-_.:`."""
    if not isinstance(value, str):
        raise ConfigError(f"{name}={value!r} must be a str, such as {name}={str(value)!r:.70}")
    if not _ID.fullmatch(value):
        raise ConfigError(f"{name}={value!r:.100} must be 1 to 63 letters, digits, and any of - _ . :")
    return value


def checked_address(name: str, value: object, *, any_port: bool = False) -> str:
    """An address "host:port". Port 0, an unused one of the system's choice, only if `any_port`."""
    if not isinstance(value, str):
        raise ConfigError(f'{name}={value!r} must be a str of the form "host:port"')
    match = _ADDRESS.fullmatch(value)
    if match is None:
        raise ConfigError(f'{name}={value!r:.200} must have the form "host:port", such as "127.0.0.1:7001"')
    port = int(match["port"])
    if port > _PORT_MAX:
        raise ConfigError(f"{name}={value!r}: the port must be at most {_PORT_MAX}")
    if port == 0 and not any_port:
        raise ConfigError(f"{name}={value!r}: the other members need to know the port, so it cannot be 0")
    return value


def checked_members(members: object, id_: str, address: str) -> dict[str, str] | None:
    """The founding members. They are to include this node, with its address."""
    if members is None:
        return None
    given = _mapping(members)
    found: dict[str, str] = {}
    for member, where in given.items():
        checked_id("members: id", member)
        found[member] = checked_address(f"members[{member!r}]", where, any_port=len(given) == 1)
    if id_ not in found:
        raise ConfigError(f"members has no {id_!r}: it lists all the founding members, this node included")
    if found[id_] != address:
        raise ConfigError(f"members[{id_!r}] is {found[id_]!r}, but this node's address is {address!r}")
    by_address: dict[str, str] = {}
    for member, where in found.items():
        if where in by_address:
            raise ConfigError(f"members: {by_address[where]!r} and {member!r} have the same address, {where!r}")
        by_address[where] = member
    return found


def _mapping(members: object) -> Mapping[str, object]:
    from collections.abc import Mapping as AnyMapping

    if not isinstance(members, AnyMapping):
        raise ConfigError(f'members={members!r:.100} must be a dict {{id: "host:port"}}')
    return members


__all__ = ["checked_address", "checked_id", "checked_members"]
