"""The clusters of this process: whoever runs beside them holds their keys anyway, and gets in by himself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from graft.tls import TLS, CertificateAuthority

_authorities: dict[str, CertificateAuthority] = {}


def announce(address: str, authority: CertificateAuthority) -> None:
    """Says whose certificates are believed at an address."""
    _authorities[address] = authority


def leave(authority: CertificateAuthority) -> None:
    """Nobody of its cluster listens any more. Where somebody else does by now, he goes on."""
    for address in [address for address, whose in _authorities.items() if whose is authority]:
        del _authorities[address]


def of_client(endpoints: Iterable[str]) -> TLS | None:
    """A certificate for a client of a cluster of this process; None if it is not one's."""
    authority = _authority(endpoints)
    return None if authority is None else authority.client("local", "operator")


def of_node(id_: str, join: Iterable[str]) -> TLS | None:
    """A certificate for a node that joins a cluster of this process; None if it is not one's."""
    authority = _authority(join)
    return None if authority is None else authority.node(id_)


def _authority(addresses: Iterable[str]) -> CertificateAuthority | None:
    found = {_authorities.get(address) for address in addresses}
    return found.pop() if len(found) == 1 else None
