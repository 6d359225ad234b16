"""Names and addresses of nodes: what may be written, and what is wrong with the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from graft._errors import ConfigError

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,63}", re.ASCII)
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/@\[\]]+):(?P<port>[0-9]{1,5})", re.ASCII)
_PORT_MAX = 65_535
_ENDPOINTS_MAX = 64


def named(member: str, address: str) -> str:
    """What people call a member: its id, and where it is, which many take for its id."""
    return member if member == address else f"{member} at {address}"


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


def checked_peer(name: str, value: object, *, any_port: bool = False) -> str:
    """An address that others can dial: one port, and no wildcard such as "0.0.0.0". Port 0 only if `any_port`."""
    address = checked_address(name, value, any_port=any_port)
    host, _, port = address.rpartition(":")
    if _is_wildcard(host):
        raise ConfigError(
            f"{name}={value!r}: nobody can dial {host}, which stands for every address of a machine; name one at which "
            f'the others reach it (a node may still listen everywhere: bind="{host}:{port}")'
        )
    return address


def checked_join(join: object, own: str) -> tuple[str, ...]:
    """The addresses of members to join by, without this node's own. Empty for None."""
    if join is None:
        return ()
    given = (join,) if isinstance(join, str) else join
    if isinstance(given, (bytes, Mapping)) or not isinstance(given, Iterable):
        raise ConfigError(f'join={join!r:.100} must be an address "host:port" of a member, or several of them')
    found = tuple(dict.fromkeys(checked_peer("join", address) for address in given))
    others = tuple(address for address in found if address != own)
    if not found:
        raise ConfigError("join is empty: name the address of a member, or leave it out to found a cluster")
    if not others:
        raise ConfigError(
            f"join={join!r:.100} is this node's own address: name another member, or leave it out to found a cluster"
        )
    return others


def checked_endpoints(endpoints: object) -> tuple[str, ...]:
    """The addresses of members that a client begins with."""
    given = (endpoints,) if isinstance(endpoints, str) else endpoints
    if isinstance(given, (bytes, Mapping)) or not isinstance(given, Iterable):
        raise ConfigError(
            f'endpoints={endpoints!r:.100} must be an address "host:port" of a member, or several of them'
        )
    found = tuple(dict.fromkeys(checked_peer("endpoints", address) for address in given))
    if not found:
        raise ConfigError("endpoints is empty: name the address of a member, or better of several")
    if len(found) > _ENDPOINTS_MAX:
        raise ConfigError(
            f"endpoints names {len(found)} addresses, and {_ENDPOINTS_MAX} at the most: a few are enough, the client "
            "learns the others from them"
        )
    return found


def checked_voters(members: object) -> dict[str, str]:
    """What `apply` is given: ids and addresses of all members to be."""
    if not isinstance(members, Mapping):
        raise ConfigError(f'members={members!r:.100} must be a dict {{id: "host:port"}} of all the members to be')
    if not members:
        raise ConfigError("members is empty: a cluster without members would decide nothing, and its state be lost")
    found = {checked_id("members: id", id_): where for id_, where in members.items()}
    for id_, where in found.items():
        checked_peer(f"members[{id_!r}]", where)
    _refuse_twins(found)
    return found


def checked_members(members: object, id_: str, address: str) -> dict[str, str] | None:
    """The founding members. They are to include this node, with its address."""
    if members is None:
        return None
    if not isinstance(members, Mapping):
        raise ConfigError(f'members={members!r:.100} must be a dict {{id: "host:port"}}')
    found: dict[str, str] = {}
    for member, where in members.items():
        checked_id("members: id", member)
        found[member] = checked_peer(f"members[{member!r}]", where, any_port=len(members) == 1)
    if id_ not in found:
        raise ConfigError(f"members has no {id_!r}: it lists all the founding members, this node included")
    if found[id_] != address:
        raise ConfigError(f"members[{id_!r}] is {found[id_]!r}, but this node's address is {address!r}")
    _refuse_twins(found)
    return found


def _refuse_twins(members: Mapping[str, str]) -> None:
    by_address: dict[str, str] = {}
    for member, where in members.items():
        if where in by_address:
            raise ConfigError(f"members: {by_address[where]!r} and {member!r} have the same address, {where!r}")
        by_address[where] = member


def _is_wildcard(host: str) -> bool:
    if host == "*":
        return True
    from ipaddress import ip_address

    try:
        return ip_address(host.strip("[]").partition("%")[0]).is_unspecified
    except ValueError:
        return False  # a name


__all__ = [
    "checked_address",
    "checked_endpoints",
    "checked_id",
    "checked_join",
    "checked_members",
    "checked_peer",
    "checked_voters",
    "named",
]
