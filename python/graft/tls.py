"""Certificates: an authority for a cluster, and what its members and clients show.

A member's certificate names it as `spiffe://<cluster>/node/<id>`, a client's as
`spiffe://<cluster>/client/<name>?role=reader|writer|operator`; `<cluster>` is the name that the authority was made for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from graft import _engine
from graft._errors import ConfigError

if TYPE_CHECKING:
    from typing import Self

    from graft._graft import NativeAuthority, NativeDepot

Role = Literal["reader", "writer", "operator"]
"""What a client may do: ask and watch; execute commands, too; change the cluster, too."""


class TLS:
    """The authorities to believe, a certificate to show, and its key: paths of PEM files, or PEM itself as bytes.

    - `names`: whom certificates stand for that do not say it themselves by a URI, such as those of an authority that
      knows nothing of Graft: `{"db1.example.com": "spiffe://bank/node/n1"}`, by a DNS name, an IP address or the
      common name in them. The same on every node and client; whoever is not listed is not let in.

    They are read when the node or client starts. The key is never shown, and one that every user of the machine can
    use is refused then, with `TlsError`. Raises `ConfigError` if one of the three is missing, or if paths and bytes are
    mixed.
    """

    __slots__ = ("_material", "_names")

    def __init__(
        self,
        *,
        ca: str | os.PathLike[str] | bytes,
        cert: str | os.PathLike[str] | bytes,
        key: str | os.PathLike[str] | bytes,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self._names = _checked_names(names)
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
    """Makes the certificates of one cluster.

    ```python
    authority = graft.tls.CertificateAuthority.create("tls", "bank")  # once; later: .load("tls")
    node = graft.Node(Bank(), id="n1", ..., tls=authority.node("n1"))
    client = graft.Client(["10.0.0.1:7001"], Bank, tls=authority.client("web"))
    ```

    `create` keeps it in a directory, as `graft tls init` does: `ca.pem`, which everybody is given; `ca.key`, which
    belongs on no member; `node-<id>.pem` and `.key`, `client-<name>.pem` and `.key`. Keys are readable by their owner
    alone, and nothing is overwritten. `ephemeral` makes one that lives in memory alone. Authorities are valid for ten
    years, certificates for 90 days.
    """

    def __init__(self, native: NativeAuthority | NativeDepot, cluster: str, kept: NativeDepot | None = None) -> None:
        self._native = native
        self._kept = kept
        self.cluster = cluster
        """The name that its certificates are for."""

    @classmethod
    def ephemeral(cls, cluster: str = "local") -> Self:
        """A new authority, never written to disk. `cluster` is 1 to 63 lower-case letters, digits and `-._`; raises
        `ConfigError` for another one."""
        return cls(_engine.load().NativeAuthority(cluster), cluster)

    @classmethod
    def create(cls, directory: str | os.PathLike[str], cluster: str) -> Self:
        """A new authority in a directory, which is made if need be. Raises `ConfigError` if there is one already, if
        `cluster` cannot be a cluster's name, or if it cannot be written there."""
        native = _engine.load().NativeDepot.create(_directory(directory), cluster)
        return cls(native, cluster, native)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """The authority of a directory. Raises `ConfigError` if there is none, or if its files do not fit one
        another."""
        native = _engine.load().NativeDepot.load(_directory(directory))
        return cls(native, native.cluster, native)

    def node(self, id: str) -> TLS:  # noqa: A002 - the word of the product
        """For the member of this id; valid for 90 days. In a directory one that is there already, and can be used, is
        given again. Raises `ConfigError` for what is no id, and if other files are in the way."""
        ca, cert, key = self._native.node(id)
        return TLS(ca=ca, cert=cert, key=key)

    def client(self, name: str, role: Role = "writer") -> TLS:
        """For a client of this name; the rest is as for `node`. Raises `ConfigError` for a bad name or role, too."""
        ca, cert, key = self._native.client(name, role)
        return TLS(ca=ca, cert=cert, key=key)

    def renew(self, *certs: str | os.PathLike[str]) -> list[str]:
        """Makes certificates anew, of the same names with new keys, in place of these files, or of all that are in the
        directory. Gives the names. Raises `ConfigError` for a file that is no certificate of this cluster."""
        return self._depot().renew([os.fspath(cert) for cert in certs])

    def rotate(self) -> None:
        """Puts a new authority in the place of this one: `ca.pem` has both from now on. Give it to all members and
        clients; `renew()`, and give them theirs; then `retire()`, and give them `ca.pem` again."""
        self._depot().rotate()

    def retire(self) -> None:
        """Believes the authority before no more. Raises `ConfigError` if a certificate in the directory is of that
        one."""
        self._depot().retire()

    def _depot(self) -> NativeDepot:
        if self._kept is None:
            raise ConfigError(
                "an ephemeral authority keeps nothing that could be renewed: make new certificates, or create() one in "
                "a directory"
            )
        return self._kept

    def __repr__(self) -> str:
        return f"<graft.tls.CertificateAuthority of {self.cluster!r}>"


def _directory(directory: object) -> str:
    if not isinstance(directory, (str, os.PathLike)) or not os.fspath(directory):
        raise ConfigError(f"directory={directory!r:.100} must be the path of a directory")
    return str(os.fspath(directory))


def _checked_names(names: object) -> dict[str, str]:
    if names is None:
        return {}
    if not isinstance(names, Mapping) or not all(isinstance(text, str) for item in names.items() for text in item):
        raise ConfigError('names must be a mapping such as {"db1.example.com": "spiffe://bank/node/n1"}')
    return dict(names)


def checked_tls(tls: object) -> TLS | None:
    """What a node or client was given, if it can be used."""
    if tls is None or isinstance(tls, TLS):
        return tls
    raise ConfigError(f"tls must be a graft.TLS(ca=..., cert=..., key=...), not a {type(tls).__name__}")


def checked_insecure(insecure: object) -> bool:
    """Whether plain text is meant."""
    if isinstance(insecure, bool):
        return insecure
    raise ConfigError(f"insecure={insecure!r:.100} must be True or False")


def material(tls: TLS | None) -> tuple[tuple[str, ...] | tuple[bytes, ...], dict[str, str]] | None:
    """As the native module takes it."""
    return None if tls is None else (tls._material, tls._names)


__all__ = ["TLS", "CertificateAuthority", "Role"]
