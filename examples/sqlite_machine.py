"""A replicated SQLite database: a state machine whose state is on disk.

```python
node = graft.Node(SQLite(), id="n1", address="127.0.0.1:7001", data_dir="n1", members={...})
with node:
    node.execute(SQLite.execute, "CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('ann')")
    node.query(SQLite.rows, "SELECT name FROM users WHERE name = ?", ["ann"])   # -> [["ann"]]
```

A command is an SQL script. It runs in one transaction, which also stores the log index of the command: after a crash
the database says by itself which command was its last, and the log brings only later ones. A script that fails leaves
the data as it was, on every replica alike.

`synchronous=NORMAL`: with a write-ahead log SQLite then loses at most the latest transactions when the power fails,
never a part of one. Graft's log has them, durably, and brings them again, since the index went back together with the
data. One fsync for a command is enough.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import graft

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

Value = Any
"""What a cell of a table holds: None, int, float, str or bytes."""

ROWS_MAX = 100_000
"""A query that gives more rows is refused: ask with LIMIT."""

CELL_BYTES_MAX = 64 << 20
"""Bytes; the largest cell. The same on every member."""

STEPS_MAX = 1_000_000_000
"""Instructions of SQLite's virtual machine, some ten seconds of work: a script or query that needs more is stopped,
for one that never ends would stop its database for ever. The same on every member."""

_OWN_TABLE = "_graft"
_STEPS_EACH = 100_000

# Whatever is not listed may be called; these answer differently on each replica, or reach out of the database.
_FORBIDDEN_FUNCTIONS = frozenset(
    {
        "random",
        "randomblob",
        "changes",
        "total_changes",
        "last_insert_rowid",
        "sqlite_version",
        "sqlite_source_id",
        "sqlite_compileoption_get",
        "sqlite_compileoption_used",
        "load_extension",
        "readfile",
        "writefile",
        "fts3_tokenizer",
        "sqlite_offset",
        "current_time",
        "current_date",
        "current_timestamp",
    }
)
# They read the clock when they are asked for "now", or for nothing at all.
_CLOCKS = {"date": 0, "time": 0, "datetime": 0, "julianday": 0, "unixepoch": 0, "strftime": 1, "timediff": 0}
_CLOCK_WORDS = re.compile(r"\s*(now|subsec|subsecond|localtime|utc)\s*", re.IGNORECASE)

# What may contain a semicolon that ends nothing, and the semicolon itself.
_TOKEN = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/|;""", re.DOTALL)
_TRIGGER = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*CREATE\s+(?:TEMP\s+|TEMPORARY\s+)?TRIGGER\b", re.DOTALL | re.IGNORECASE
)
_ENDED = re.compile(r"\bEND\s*;$", re.IGNORECASE)

_WRITES = frozenset(
    {
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_DROP_INDEX,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_DROP_TRIGGER,
        sqlite3.SQLITE_DROP_VIEW,
        sqlite3.SQLITE_ALTER_TABLE,
        sqlite3.SQLITE_REINDEX,
        sqlite3.SQLITE_ANALYZE,
    }
)
_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
_HARMLESS = _READS | {sqlite3.SQLITE_ANALYZE, sqlite3.SQLITE_REINDEX}
# PRAGMAs that only describe the schema.
_DESCRIPTIONS = frozenset(
    {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}
)
_REFUSALS = {
    sqlite3.SQLITE_ATTACH: "ATTACH reaches out of the replicated database",
    sqlite3.SQLITE_DETACH: "DETACH reaches out of the replicated database",
    sqlite3.SQLITE_PRAGMA: "a PRAGMA is a setting of one replica",
    sqlite3.SQLITE_TRANSACTION: "a script is one transaction already: leave out BEGIN, COMMIT and ROLLBACK",
    sqlite3.SQLITE_SAVEPOINT: "a script is one transaction already: leave out SAVEPOINT and RELEASE",
    sqlite3.SQLITE_CREATE_TEMP_TABLE: "a temporary table lives on one replica",
    sqlite3.SQLITE_CREATE_TEMP_INDEX: "a temporary index lives on one replica",
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER: "a temporary trigger lives on one replica",
    sqlite3.SQLITE_CREATE_TEMP_VIEW: "a temporary view lives on one replica",
    sqlite3.SQLITE_CREATE_VTABLE: "virtual tables can keep data outside of the database",
    sqlite3.SQLITE_DROP_VTABLE: "virtual tables can keep data outside of the database",
}
# Trouble of this replica's disk or memory. Everything else that SQLite says is the same on every replica.
_LOCAL_TROUBLE = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_INTERNAL,
    }
)


class SQLite(graft.StateMachine):
    """A database that every member has a copy of."""

    def __init__(self) -> None:
        self._path = Path()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._pure: sqlite3.Connection | None = None
        self._refusal: str | None = None

    @graft.command
    def execute(self, script: str) -> int:
        """Runs an SQL script in one transaction and returns how many rows it changed."""
        writer = self._open_writer()
        try:
            self._begin(writer)
            before = writer.total_changes
            try:
                with self._authorizer(writer, _WRITES | _READS):
                    for statement in statements(script):
                        for _ in writer.execute(statement):
                            pass  # what a SELECT finds is not kept, but it is run to its end
                changed = writer.total_changes - before
                writer.execute("COMMIT")
            except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
                if _is_local(error):
                    raise
                self._take_back(writer)
                raise ValueError(self._refusal or str(error)) from None
        except sqlite3.Error as error:
            raise graft.Halt(f"{self._path}: {error}") from error
        return changed

    @graft.query
    def rows(self, sql: str, parameters: list[Value] | dict[str, Value] | None = None) -> list[list[Value]]:
        """Answers a SELECT. It cannot write."""
        reader = self._open_reader()
        try:
            with self._authorizer(reader, _READS), closing(reader.cursor()) as cursor:
                found = cursor.execute(sql, parameters or ()).fetchmany(ROWS_MAX + 1)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise ValueError(self._refusal or str(error)) from None
        if len(found) > ROWS_MAX:
            raise ValueError(f"the query gives more than {ROWS_MAX} rows: ask for fewer with LIMIT")
        return [list(row) for row in found]

    def open(self, directory: str) -> int:
        """Opens the database in the node's directory; answers the index of the last command that it has."""
        self._close()
        self._path = Path(directory) / "state.sqlite"
        for pattern in ("snapshot-*.sqlite*", "restore-*.sqlite*"):
            for left_over in self._path.parent.glob(pattern):
                left_over.unlink()
        self._connect()
        return self._applied()

    def snapshot(self) -> Callable[[BinaryIO], None]:
        """A copy of the database, made at once; it is written out in the background."""
        # What the log forgets once the snapshot is there must be on disk here, too.
        self._open_writer().execute("PRAGMA wal_checkpoint(FULL)").fetchall()
        copy = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed, and so removed, when it is written
            dir=self._path.parent, prefix="snapshot-", suffix=".sqlite"
        )
        try:
            with closing(sqlite3.connect(copy.name)) as target:
                self._open_writer().backup(target)
        except BaseException:
            copy.close()
            raise

        def write(file: BinaryIO) -> None:
            with copy, Path(copy.name).open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)

        return write

    def restore(self, file: BinaryIO) -> None:
        """Takes the database from a snapshot, in one transaction: a crash leaves the old one or the new one."""
        with tempfile.NamedTemporaryFile(dir=self._path.parent, prefix="restore-", suffix=".sqlite") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
            with closing(sqlite3.connect(copy.name)) as source:
                self._forget_reader()
                source.backup(self._open_writer())
        # The log may be cut at this snapshot, so here the database must really be on disk.
        self._open_writer().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def digest(self) -> bytes:
        """A hash of the schema and of all rows, in an order that depends on nothing else."""
        writer = self._open_writer()
        found = hashlib.blake2b(digest_size=32)
        schema = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name != ? ORDER BY type, name"
        tables: list[str] = []
        for row in writer.execute(schema, [_OWN_TABLE]):
            found.update(repr(row).encode())
            if row[0] == "table":
                tables.append(row[1])
        for table in tables:
            name = quoted(table)
            columns = [quoted(str(row[1])) for row in writer.execute(f"PRAGMA table_info({name})")]
            order = ", ".join(f"{column} COLLATE BINARY" for column in columns)
            for row in writer.execute(f"SELECT * FROM {name} ORDER BY {order}"):  # noqa: S608 - names from the schema
                found.update(repr((table, row)).encode())
        return found.digest()

    # Transactions.

    def _begin(self, writer: sqlite3.Connection) -> None:
        # The index is stored whether the script succeeds or fails, for the command has been applied either way.
        writer.execute("BEGIN IMMEDIATE")
        writer.execute(f"UPDATE {_OWN_TABLE} SET applied = ?", [self.context.index])  # noqa: S608
        writer.execute("SAVEPOINT script")

    def _take_back(self, writer: sqlite3.Connection) -> None:
        if writer.in_transaction:
            writer.execute("ROLLBACK TO script")
        else:
            self._begin(writer)  # an "OR ROLLBACK" in the script took back everything
        writer.execute("COMMIT")

    def _applied(self) -> int:
        return int(self._open_writer().execute(f"SELECT applied FROM {_OWN_TABLE}").fetchone()[0])  # noqa: S608

    # Connections. Both are used on the machine's thread only.

    def _connect(self) -> None:
        # The node may open the machine on one thread and run it on another, never on two at once.
        writer = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._writer = writer
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.execute("PRAGMA foreign_keys = ON")
        writer.execute(f"CREATE TABLE IF NOT EXISTS {_OWN_TABLE} (applied INTEGER NOT NULL)")
        writer.execute(f"INSERT INTO {_OWN_TABLE} SELECT 0 WHERE NOT EXISTS (SELECT * FROM {_OWN_TABLE})")  # noqa: S608
        writer.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, CELL_BYTES_MAX)
        self._replace_functions(writer)

    def _replace_functions(self, writer: sqlite3.Connection) -> None:
        # The authorizer is not asked about the functions in a column's DEFAULT, so they are replaced as well. The real
        # clocks run on a connection of their own.
        pure = sqlite3.connect(":memory:", check_same_thread=False)
        self._pure = pure
        known = {row[0] for row in pure.execute("SELECT name FROM pragma_function_list")}
        for name in _CLOCKS.keys() & known:
            writer.create_function(name, -1, partial(self._without_clock, pure, name), deterministic=True)

        for name in _FORBIDDEN_FUNCTIONS & known:
            writer.create_function(name, -1, partial(self._forbidden, name))

    def _forbidden(self, name: str, *_: Value) -> None:
        self._refusal = _differs(name)
        raise ValueError(self._refusal)

    def _without_clock(self, pure: sqlite3.Connection, name: str, *arguments: Value) -> Any:
        asks_now = any(isinstance(argument, str) and _CLOCK_WORDS.fullmatch(argument) for argument in arguments)
        if asks_now or len(arguments) <= _CLOCKS[name]:
            self._refusal = f"{name}() would read the clock, which differs between replicas: write the time itself"
            raise ValueError(self._refusal)
        marks = ", ".join("?" * len(arguments))
        return pure.execute(f"SELECT {name}({marks})", arguments).fetchone()[0]

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            raise graft.Halt("the database is not open: a node opens it, by SQLite.open(directory)")
        return self._writer

    def _open_reader(self) -> sqlite3.Connection:
        if self._reader is None:
            self._open_writer()
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            self._reader = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            self._reader.execute("PRAGMA query_only = ON")
        return self._reader

    def _forget_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _close(self) -> None:
        self._forget_reader()
        for connection in (self._writer, self._pure):
            if connection is not None:
                connection.close()
        self._writer = self._pure = None

    def __del__(self) -> None:
        self._close()

    # What SQL may do.

    @contextmanager
    def _authorizer(self, connection: sqlite3.Connection, allowed: frozenset[int]) -> Generator[None]:
        self._refusal = None

        def authorize(action: int, first: str | None, second: str | None, _: str | None, trigger: str | None) -> int:
            refusal = _refusal(action, first, second, allowed)
            if refusal is None:
                return sqlite3.SQLITE_OK
            self._refusal = refusal if trigger is None else f"{refusal} (in {trigger})"
            return sqlite3.SQLITE_DENY

        left = STEPS_MAX // _STEPS_EACH

        def progress() -> bool:
            nonlocal left
            left -= 1
            if left <= 0:
                self._refusal = f"this takes more than {STEPS_MAX} steps: do it in smaller parts"
            return left <= 0

        connection.set_authorizer(authorize)
        connection.set_progress_handler(progress, _STEPS_EACH)
        try:
            yield
        finally:
            connection.set_authorizer(None)
            connection.set_progress_handler(None, 0)


def _is_local(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _LOCAL_TROUBLE


def _differs(function: str) -> str:
    return f"{function}() differs between replicas: compute the value before you send the script"


def _refusal(action: int, first: str | None, second: str | None, allowed: frozenset[int]) -> str | None:
    """Why an action is not allowed; None if it is."""
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS:
        return _differs(str(second))
    if action == sqlite3.SQLITE_PRAGMA and (first or "").lower() in _DESCRIPTIONS:
        return None
    if action in _REFUSALS:
        return _REFUSALS[action]
    if action not in allowed:
        return "a query cannot write: send it as a command" if action in _WRITES else "this is not allowed here"
    if action not in _HARMLESS and _OWN_TABLE in (first, second):
        return f"the table {_OWN_TABLE} belongs to the machine"
    return None


def statements(script: str) -> list[str]:
    """The statements of a script."""
    found: list[str] = []
    begun = 0
    for match in _TOKEN.finditer(script):
        if match.group() != ";":
            continue
        piece = script[begun : match.end()]
        # A trigger has statements in its body; it ends with END.
        if _TRIGGER.match(piece) and not (_ENDED.search(piece) and sqlite3.complete_statement(piece)):
            continue
        found.append(piece)
        begun = match.end()
    found.append(script[begun:])
    return [one for one in found if one.strip("; \t\r\n")]


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
