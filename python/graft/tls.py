"""Certificates: an authority for a cluster, and what its members and clients show.

A member's certificate names it as `spiffe://<cluster>/node/<id>`, a client's as
`spiffe://<cluster>/client/<name>?role=reader|writer|operator`; `<cluster>` is the name that the authority was made for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from graft import _engine
from graft._errors import ConfigError

if TYPE_CHECKING:
    from typing import Self

    from graft._graft import NativeAuthority

Role = Literal["reader", "writer", "operator"]
"""What a client may do: ask and watch; execute commands, too; change the cluster, too."""


class TLS:
    """The authorities to believe, a certificate to show, and its key: paths of PEM files, or PEM itself as bytes.

    They are read when the node or client starts. The key is never shown, and one that every user of the machine can
    use is refused then, with `TlsError`. Raises `ConfigError` if one of the three is missing, or if paths and bytes are
    mixed.
    """

    __slots__ = ("_material",)

    def __init__(
        self,
        *,
        ca: str | os.PathLike[str] | bytes,
        cert: str | os.PathLike[str] | bytes,
        key: str | os.PathLike[str] | bytes,
    ) -> None:
        given = {"ca": ca, "cert": cert, "key": key}
        pem = tuple(value for value in given.values() if isinstance(value, bytes))
        if len(pem) == len(given):
            self._material: tuple[str, ...] | tuple[bytes, ...] = pem
            return
        paths: list[str] = []
        for name, value in given.items():
            if isinstance(value, bytes) or not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
                raise ConfigError(f"{name} must be the path of a PEM file; or all three PEM itself, as bytes")
            paths.append(os.path.abspath(os.fspath(value)))  # noqa: PTH100 - pathlib would be loaded for this alone
        self._material = tuple(paths)

    def __repr__(self) -> str:
        if isinstance(self._material[0], bytes):
            return "<graft.TLS in memory>"
        return f"<graft.TLS ca={self._material[0]!r} cert={self._material[1]!r}>"


class CertificateAuthority:
    """Makes the certificates of one cluster; `ephemeral` makes one that lives in memory alone."""

    def __init__(self, native: NativeAuthority, cluster: str) -> None:
        self._native = native
        self.cluster = cluster
        """The name that its certificates are for."""

    @classmethod
    def ephemeral(cls, cluster: str = "local") -> Self:
        """A new authority, never written to disk. `cluster` is 1 to 63 lower-case letters, digits and `-._`; raises
        `ConfigError` for another one."""
        return cls(_engine.load().NativeAuthority(cluster), cluster)

    def node(self, id: str) -> TLS:  # noqa: A002 - the word of the product
        """For the member of this id; valid for 90 days. Raises `ConfigError` for what is no id."""
        ca, cert, key = self._native.node(id)
        return TLS(ca=ca, cert=cert, key=key)

    def client(self, name: str, role: Role = "writer") -> TLS:
        """For a client of this name; valid for 90 days. Raises `ConfigError` for a bad name or role."""
        ca, cert, key = self._native.client(name, role)
        return TLS(ca=ca, cert=cert, key=key)

    def __repr__(self) -> str:
        return f"<graft.tls.CertificateAuthority of {self.cluster!r}>"


def checked_tls(tls: object) -> TLS | None:
    """What a node or client was given, if it can be used."""
    if tls is None or isinstance(tls, TLS):
        return tls
    raise ConfigError(f"tls must be a graft.TLS(ca=..., cert=..., key=...), not a {type(tls).__name__}")


def material(tls: TLS | None) -> tuple[str, ...] | tuple[bytes, ...] | None:
    """As the native module takes it."""
    return None if tls is None else tls._material


__all__ = ["TLS", "CertificateAuthority", "Role"]
