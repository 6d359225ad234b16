"""Whose socket is at the other end of a connection on this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from pathlib import Path
from typing import TypeAlias

Address: TypeAlias = tuple[str, int]

# What linux/sock_diag.h and linux/inet_diag.h say.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_HEADER_BYTES = 16
_INODE_OFFSET = _HEADER_BYTES + 4 + 48 + 4 * 4
_ANY_STATE = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
_ANSWER_BYTES_MAX = 4096
_ANSWER_SECONDS_MAX = 1.0


def inode(local: Address, remote: Address) -> int | None:
    """The inode of the socket with these addresses; None if nobody has it open any more.

    The kernel is asked for just this one. Where it cannot be, its list of all is read, which takes a hundred times as
    long: it walks through its whole table for it.
    """
    with contextlib.suppress(OSError):
        return _asked(local, remote) or None
    return _listed(local, remote) or None


def has_open(pid: int, number: int) -> bool:
    """Whether the process has the socket of this inode."""
    directory = f"/proc/{pid}/fd"
    try:
        return any(os.readlink(f"{directory}/{name}") == f"socket:[{number}]" for name in os.listdir(directory))
    except OSError:
        # It has ended, or closes what it has while it is looked at.
        return False


def _asked(local: Address, remote: Address) -> int:
    family, protocol = socket.AF_INET, socket.IPPROTO_TCP
    ports = struct.pack("!HH", local[1], remote[1])
    hosts = b"".join(socket.inet_aton(host) + bytes(12) for host, _ in (local, remote))
    wanted = struct.pack("=BBBxI", family, protocol, 0, _ANY_STATE) + ports + hosts + bytes(4) + _NO_COOKIE
    header = struct.pack("=IHHII", _HEADER_BYTES + len(wanted), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_ANSWER_SECONDS_MAX)
        kernel.send(header + wanted)
        answer = kernel.recv(_ANSWER_BYTES_MAX)
    _, kind = struct.unpack_from("=IH", answer)
    if kind == _NLMSG_ERROR:
        (code,) = struct.unpack_from("=i", answer, _HEADER_BYTES)
        if code == -errno.ENOENT:
            return 0
        raise OSError(-code, "the kernel does not tell sockets")
    (number,) = struct.unpack_from("=I", answer, _INODE_OFFSET)
    return int(number)


def _listed(local: Address, remote: Address) -> int:
    wanted = [_hexadecimal(local), _hexadecimal(remote)]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == wanted:
            return int(fields[9])
    return 0


def _hexadecimal(address: Address) -> str:
    host, port = address
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
