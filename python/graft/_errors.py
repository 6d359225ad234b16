"""Every error that Graft raises.

Each class has a `code` that never changes, says whether calling again can help (`retryable`) and what to do (`fix`).
All of an error's state is its message and its `details`, so it survives pickling, and a peer, the native module and
Python can all make the same one from a code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from graft._aio import AsyncCalls
    from graft._resolving import Asked
    from graft._units import Duration
    from graft._verbs import Calls


class GraftError(Exception):
    """What all errors of Graft derive from."""

    code: ClassVar[str] = "INTERNAL"
    """Names the kind of error, the same in Python, on the wire and on the command line."""
    retryable: ClassVar[bool] = False
    """True if the same call may succeed later, and repeating it cannot do anything twice."""
    fix: str = "this is a fault in Graft: please report it together with the log"
    """One line: what to do about it. It is also among the notes that a traceback shows."""

    message: str
    details: dict[str, Any]

    def __init__(self, message: str = "", /, **details: Any) -> None:
        fix = details.pop("fix", None)
        self.details = details
        self.message = message or self._words()
        super().__init__(self.message)
        if fix is not None:
            self.fix = str(fix)
        self.add_note(self.fix)

    def _words(self) -> str:
        """The message when the raiser gave none."""
        return (type(self).__doc__ or self.code).strip().splitlines()[0]

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        notes = list(getattr(self, "__notes__", ()))
        return _rebuilt, (type(self), self.message, {**self.details, "fix": self.fix}, notes)


def _rebuilt(kind: type[GraftError], message: str, details: dict[str, Any], notes: list[str]) -> GraftError:
    error = kind(message, **details)
    error.__notes__ = notes
    return error


class NotLeader(GraftError, ConnectionError):
    """This member does not lead, and could not pass the call on. It is not applied."""

    code = "NOT_LEADER"
    retryable = True
    fix = "call again, or call the leader named in `.leader`"

    @property
    def leader(self) -> str | None:
        """The id of the leader, as far as the member knew."""
        leader: str | None = self.details.get("leader")
        return leader


class NoLeader(GraftError, ConnectionError):
    """Nobody leads the cluster at this moment. The call is not applied."""

    code = "NO_LEADER"
    retryable = True
    fix = "call again in a moment; if it stays so, look at `status()`: a majority of the members must be up"


class NoQuorum(GraftError, ConnectionError):
    """Too few members can be reached to decide anything. The call is not applied."""

    code = "NO_QUORUM"
    retryable = True
    fix = "start the members that are down, or repair the network between them"

    @property
    def reachable(self) -> int | None:
        """How many voting members are within reach, this one included."""
        reachable: int | None = self.details.get("reachable")
        return reachable

    @property
    def needed(self) -> int | None:
        """How many are needed."""
        needed: int | None = self.details.get("needed")
        return needed


class Timeout(GraftError, TimeoutError):
    """The deadline came first. A command is not applied, and will not be; a change of the membership that was begun
    goes on, as the message then says."""

    code = "TIMEOUT"
    retryable = True
    fix = "call again; give more time with `options(timeout=...)`"


class UnknownOutcome(GraftError, TimeoutError):
    """The command may or may not have been applied, or may still be: the answer did not come.

    ```python
    try:
        balance = node.execute(Bank.deposit, "ann", 5)
    except graft.UnknownOutcome as error:
        balance = error.resolve(timeout=30)
    ```

    `resolve()` makes the same call again under its place in its session: it is applied once, however often it is made,
    and the first answer is the answer.
    """

    code = "UNKNOWN_OUTCOME"
    fix = "call `resolve()` on this error, which makes the same call again without doing anything twice"

    # Who made the call, which is held for as long as the error is; not pickled.
    _by: Asked | None = None

    @property
    def resolvable(self) -> bool:
        """Whether `resolve()` can ask again: the call has a place in a session, and this process made it."""
        return self._by is not None and self.details.get("session") is not None

    def resolve(self, timeout: Duration | None = None, *, via: Calls[Any] | AsyncCalls[Any] | None = None) -> Any:
        """Makes the same call again, and returns what it returned, the first time if there were several.

        Raises `ApplyError` if the command raised, `SessionExpired` if the cluster has forgotten the session meanwhile,
        and `UnknownOutcome` again if it is still not known: nobody could be asked, or the answer is not kept any more.

        `timeout` is in seconds, or text such as "30s"; by default that of the first call. `via` is another node or
        client of the same cluster to ask through, if the one that made the call is gone or the error was unpickled.
        """
        from graft._resolving import resolve

        return resolve(self, timeout, via)

    async def aresolve(
        self, timeout: Duration | None = None, *, via: Calls[Any] | AsyncCalls[Any] | None = None
    ) -> Any:
        """As `resolve`, for `await`."""
        from graft._resolving import aresolve

        return await aresolve(self, timeout, via)


class SessionExpired(GraftError, RuntimeError):
    """The command's session does not exist any more: this attempt was not applied, an earlier attempt may have been.

    A session ends when it was not used for its time to live, `session_ttl`, by the stamps of the log."""

    code = "SESSION_EXPIRED"
    fix = (
        "this attempt was not applied, an earlier attempt may have been: look at the state before you send the command "
        "again; a longer `session_ttl` gives more time to ask"
    )


class InvalidCall(GraftError, TypeError):
    """No replica could make anything of the call: an unknown name, or arguments of other types. It is not applied."""

    code = "INVALID_CALL"
    fix = "compare the class here with that of the members: one of the two is older"


class ApplyError(GraftError, RuntimeError):
    """The command ran and raised. It did so on every replica alike, and the cluster goes on."""

    code = "APPLY"
    fix = "this is the command's own answer: see `.type_name` and the remote traceback"

    def __init__(self, message: str = "", /, **details: Any) -> None:
        super().__init__(message, **details)
        if self.traceback:
            self.add_note("on the replica:\n" + self.traceback.rstrip())

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name

    def _words(self) -> str:
        return ""

    @property
    def type_name(self) -> str:
        """The name of the exception's class: "ValueError"."""
        return str(self.details.get("type_name", "Exception"))

    @property
    def index(self) -> int:
        """The log index of the command; for a query, the index it had seen."""
        return int(self.details.get("index", 0))

    @property
    def traceback(self) -> str:
        """The traceback, as text, of the replica that answered."""
        return str(self.details.get("traceback", ""))


class Busy(GraftError, ConnectionError):
    """A limit of the node is reached. The call is not applied."""

    code = "BUSY"
    retryable = True
    fix = "call again in a moment, or keep fewer calls in flight"


class TooLarge(GraftError, ValueError):
    """The command is larger than `command_bytes_max`. It is not applied."""

    code = "TOO_LARGE"
    fix = "send less at once, or raise `command_bytes_max` on every member"


class MembershipRefused(GraftError, RuntimeError):
    """The change of the membership was refused. Nothing has changed."""

    code = "MEMBERSHIP_REFUSED"
    fix = "the message says what stands in the way"


class ConfigError(GraftError, ValueError):
    """A setting is not right."""

    code = "CONFIG"
    fix = "correct the setting that the message names"


class AddressInUse(ConfigError, OSError):
    """Another process listens on the address."""

    code = "ADDRESS_IN_USE"
    fix = "stop the other process, or choose another port"


class StorageError(GraftError, OSError):
    """The data directory cannot be used."""

    code = "STORAGE"
    fix = "see to the directory that the message names (does it exist, may it be written, is there space?)"


class Corruption(StorageError):
    """Bytes that were safely on disk have changed. Nothing was cut off or overwritten."""

    code = "CORRUPTION"
    fix = (
        "bring a good copy of the directory back; never start this id with an empty directory while another member is "
        "down"
    )

    @property
    def file(self) -> str | None:
        """The damaged file."""
        file: str | None = self.details.get("file")
        return file

    @property
    def offset(self) -> int | None:
        """Where what is damaged begins, in bytes from the file's beginning: in the log a batch, the smallest part with
        a checksum of its own, which may hold many entries. The bytes that changed are somewhere in it."""
        offset: int | None = self.details.get("offset")
        return offset


class ClusterMismatch(GraftError, ValueError):
    """The data directory, or the peer, belongs to another cluster; of a client, all members that it finds do."""

    code = "CLUSTER_MISMATCH"
    fix = "check `data_dir` and the addresses in `members` and `join`; never mix the directories of two clusters"


class IdentityMismatch(GraftError, ValueError):
    """The data directory, or the peer, is another node than its id says."""

    code = "IDENTITY_MISMATCH"
    fix = "check `id` and `data_dir`: a directory belongs to one id for ever"


class TlsError(GraftError, ConnectionError):
    """The other side could not prove who it is, or does not believe us."""

    code = "TLS"
    fix = "check that both certificates are valid, of the same authority, and made for the ids that the nodes have"


class Insecure(TlsError, ConfigError):
    """A node would listen beyond this machine, or a client speak to others, in plain text, and nobody said so."""

    code = "INSECURE"
    fix = "give it a certificate: tls=graft.TLS(...); or say insecure=True where nobody else reaches the network"


class Halted(GraftError, RuntimeError):
    """This replica stopped at an entry that it could not apply; the others go on without it."""

    code = "HALTED"
    fix = "`status().error` has the traceback; remove the cause and start the node again"


class Removed(GraftError, RuntimeError):
    """This node is no longer a member of the cluster."""

    code = "REMOVED"
    fix = "to let this machine join again, start a new node with a new id, an empty directory and join="


class Stopped(GraftError, RuntimeError):
    """The node is not running. The call is not applied by it."""

    code = "STOPPED"
    fix = "use another member, or start a new node on the same directory"


class Diverged(GraftError, RuntimeError):
    """This replica's state differs from that of the majority. Nothing raises it yet: `verify()` tells who differs."""

    code = "DIVERGED"
    fix = "look for what is not deterministic in the machine's commands, then rebuild the replica from a snapshot"


class Halt(Exception):
    """Raised *by a command* to stop this replica at this entry: the entry is not skipped, and the other replicas
    go on. It is for trouble of this machine alone, such as a full disk; what every replica would find alike is an
    ordinary exception, which no `OSError` is: `PermissionError` and `TimeoutError` stop every replica."""


def _codes(kind: type[GraftError]) -> dict[str, type[GraftError]]:
    found = {kind.code: kind}
    for below in kind.__subclasses__():
        found |= _codes(below)
    return found


_BY_CODE = _codes(GraftError)


def of_code(code: str) -> type[GraftError]:
    """The class with this code; `GraftError` itself for one that is not known."""
    return _BY_CODE.get(code, GraftError)


def _native(  # pyright: ignore[reportUnusedFunction] - the native module calls it
    code: str, message: str, details: dict[str, object]
) -> GraftError:
    """Makes the error of this code."""
    kind = _BY_CODE.get(code)
    if kind is None:
        return GraftError(f"{code}: {message}", **details)
    if kind is UnknownOutcome and "session" not in details:
        # There is nothing to ask again with.
        return kind(message, fix="look at the state: it tells whether the command was applied", **details)
    return kind(message, **details)
