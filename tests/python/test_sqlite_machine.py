# ruff: noqa: E501 - tables and programs read best unbroken
"""The replicated SQLite database, driven as a node drives it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import sqlite_machine
from graft._host import Host
from graft._plan import COMMAND, QUERY, Catalog
from machines import columns
from sqlite_machine import SQLite, statements


class Replica:
    """A machine with the log of one command after the other."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.host = Host(SQLite())
        self.host.prepare()
        self.index = self.host.open(str(directory))
        self.catalog = Catalog(type(self.host.machine))

    def run(self, script: str):
        self.index += 1
        body = self.catalog.plan(COMMAND, SQLite.execute, (script,), {}).body
        replies, halt, _ = self.host.apply(*columns([(self.index, 1, self.index, body)]))
        return halt or (msgspec.msgpack.decode(replies[0]) if isinstance(replies[0], bytes) else replies[0][:2])

    def ask(self, sql: str, parameters=None):
        reply = self.host.query([self.catalog.plan(QUERY, SQLite.rows, (sql, parameters), {}).body])[0]
        return msgspec.msgpack.decode(reply) if isinstance(reply, bytes) else reply[:2]

    def applied(self) -> int:
        return self.host.machine._applied()

    def close(self) -> None:
        self.host.machine._close()


@pytest.fixture
def make(tmp_path):
    made: list[Replica] = []

    def one(name: str = "n1") -> Replica:
        made.append(Replica(tmp_path / name))
        return made[-1]

    yield one
    for replica in made:
        replica.close()


@pytest.fixture
def users(make):
    replica = make()
    assert replica.run("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT UNIQUE, age INT)") == 0
    assert replica.run("INSERT INTO users (name, age) VALUES ('ann', 30), ('bob', 40)") == 2
    return replica


def test_scripts_and_queries(users):
    assert users.ask("SELECT name, age FROM users ORDER BY name") == [["ann", 30], ["bob", 40]]
    assert users.ask("SELECT age FROM users WHERE name = ?", ["bob"]) == [[40]]
    assert users.ask("SELECT age FROM users WHERE name = :who", {"who": "ann"}) == [[30]]
    assert users.run("UPDATE users SET age = age + 1; DELETE FROM users WHERE age > 40;") == 3
    assert users.ask("SELECT count(*) FROM users") == [[1]]


def test_a_failing_script_changes_nothing_and_counts_as_applied(users):
    before = users.host.digest()
    kind, message = users.run("INSERT INTO users (name) VALUES ('cid'); INSERT INTO users (name) VALUES ('ann');")
    assert (kind, message) == ("ValueError", "UNIQUE constraint failed: users.name")
    assert users.host.digest() == before
    assert users.applied() == users.index == 3
    assert users.run("INSERT INTO users (name) VALUES ('cid')") == 1


@pytest.mark.parametrize(
    "script",
    [
        "INSERT INTO users (name) VALUES ('x'); INSERT OR ROLLBACK INTO users (name) VALUES ('ann')",
        "INSERT INTO users (name) VALUES ('x'); SYNTAX ERROR",
        "INSERT INTO users (name) VALUES ('x'); SELECT * FROM nowhere",
        "INSERT INTO users (name) VALUES ('x'); INSERT INTO users (name) VALUES (?)",
        "CREATE TABLE t (u INT REFERENCES users DEFERRABLE INITIALLY DEFERRED); INSERT INTO t VALUES (99)",
        "INSERT INTO users (name) VALUES ('x'); SELECT 'unclosed",
        "INSERT INTO users (name) VALUES ('x'); SELECT 1 \0",
        "INSERT INTO users (name) VALUES ('x'); SELECT zeroblob(100000000)",
    ],
)
def test_every_way_to_fail_is_an_answer(users, script):
    before = users.host.digest()
    kind, _ = users.run(script)
    assert kind == "ValueError"
    assert users.host.digest() == before
    assert users.applied() == users.index
    assert users.run("INSERT INTO users (name) VALUES ('next')") == 1


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("INSERT INTO users (age) VALUES (random())", "random() differs between replicas"),
        ("INSERT INTO users (age) VALUES (RANDOM())", "differs between replicas"),
        ("INSERT INTO users (name) VALUES (hex(randomblob(8)))", "randomblob() differs"),
        ("INSERT INTO users (name) VALUES (CURRENT_TIMESTAMP)", "current_timestamp"),
        ("INSERT INTO users (name) VALUES (datetime('now'))", "datetime() would read the clock"),
        ("INSERT INTO users (name) VALUES (datetime(' NOW ', '+1 day'))", "would read the clock"),
        ("INSERT INTO users (name) VALUES (date())", "date() would read the clock"),
        ("INSERT INTO users (name) VALUES (strftime('%s'))", "strftime() would read the clock"),
        ("INSERT INTO users (name) VALUES (unixepoch())", "unixepoch() would read the clock"),
        ("INSERT INTO users (name) VALUES (julianday('now'))", "julianday() would read the clock"),
        ("INSERT INTO users (name) VALUES (datetime('2026-01-01', 'localtime'))", "would read the clock"),
        ("INSERT INTO users (age) VALUES (last_insert_rowid())", "last_insert_rowid() differs"),
        ("SELECT load_extension('x')", "load_extension"),
        ("CREATE TABLE t (x DEFAULT CURRENT_TIMESTAMP, y); INSERT INTO t (y) VALUES (1)", "current_timestamp"),
        ("CREATE TABLE t (x DEFAULT (datetime('now')), y); INSERT INTO t (y) VALUES (1)", "would read the clock"),
        ("CREATE TABLE t (x DEFAULT (random()), y); INSERT INTO t (y) VALUES (1)", "random() differs"),
        ("CREATE TRIGGER t AFTER INSERT ON users BEGIN UPDATE users SET age = random(); END; INSERT INTO users (name) VALUES ('x')", "random() differs"),
        ("CREATE VIEW v AS SELECT random() AS r; INSERT INTO users (age) SELECT r FROM v", "random() differs"),
        ("ATTACH 'other.db' AS other", "ATTACH reaches out"),
        ("DETACH main", "DETACH|detach"),
        ("PRAGMA journal_mode = DELETE", "a PRAGMA is a setting of one replica"),
        ("PRAGMA writable_schema = ON", "a PRAGMA"),
        ("BEGIN", "a script is one transaction already"),
        ("COMMIT", "a script is one transaction already"),
        ("INSERT INTO users (name) VALUES ('x'); COMMIT; BEGIN", "a script is one transaction already"),
        ("ROLLBACK", "a script is one transaction already"),
        ("SAVEPOINT script", "leave out SAVEPOINT"),
        ("RELEASE script", "leave out SAVEPOINT"),
        ("ROLLBACK TO script", "leave out SAVEPOINT"),
        ("CREATE TEMP TABLE t (x)", "a temporary table lives on one replica"),
        ("CREATE VIRTUAL TABLE t USING fts5(x)", "virtual tables|not allowed"),
        ("VACUUM", "VACUUM|ATTACH"),
        ("UPDATE _graft SET applied = 0", "belongs to the machine"),
        ("DROP TABLE _graft", "belongs to the machine"),
        ("INSERT INTO _graft VALUES (1)", "belongs to the machine"),
        ("ALTER TABLE _graft RENAME TO mine", "belongs to the machine"),
        ("CREATE TRIGGER t AFTER UPDATE ON _graft BEGIN SELECT 1; END", "belongs to the machine"),
        ("DELETE FROM sqlite_master", "may not be modified"),
    ],
)  # fmt: skip
def test_what_a_script_may_not_do(users, script, words):
    before = users.host.digest()
    kind, message = users.run(script)
    assert kind == "ValueError"
    assert any(word in message for word in words.split("|")), message
    assert users.host.digest() == before
    assert users.applied() == users.index
    assert users.run("INSERT INTO users (name) VALUES ('next')") == 1


@pytest.mark.parametrize(
    "script",
    [
        "INSERT INTO users (name) VALUES (datetime('2026-01-02 03:04:05', '+1 day'))",
        "INSERT INTO users (name) VALUES (strftime('%Y', '2026-01-01'))",
        "INSERT INTO users (name) VALUES (date(NULL))",
        "INSERT INTO users (name) VALUES ('now; random() BEGIN;')",
        "INSERT INTO users (name) VALUES ('it''s; ok') -- a comment; with\n; /* another; */ ; ;",
        "ALTER TABLE users ADD COLUMN mail TEXT; ALTER TABLE users RENAME COLUMN mail TO email; ALTER TABLE users DROP COLUMN email; UPDATE users SET age = 1 WHERE name = 'ann'",
        "CREATE INDEX i ON users (age); REINDEX; ANALYZE; DROP INDEX i; UPDATE users SET age = 1 WHERE name = 'ann'",
        "CREATE TABLE log (x); CREATE TRIGGER t AFTER INSERT ON users BEGIN INSERT INTO log VALUES (CASE WHEN 1 THEN 2 END); INSERT INTO log VALUES (3); END; INSERT INTO users (name) VALUES ('x')",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) INSERT INTO users (age) SELECT i FROM n",
        "INSERT INTO users (name) VALUES ('ann') ON CONFLICT (name) DO UPDATE SET age = 0",
        "SELECT * FROM users; INSERT INTO users (age) VALUES (length('x')) RETURNING id",
        "CREATE TABLE d (x DEFAULT (date('2026-01-01')), y); INSERT INTO d (y) VALUES (1)",
    ],
)  # fmt: skip
def test_what_a_script_may_do(users, script):
    changed = users.run(script)
    assert isinstance(changed, int), changed
    assert changed >= 1


def test_a_script_that_never_ends_is_stopped(users, monkeypatch):
    monkeypatch.setattr(sqlite_machine, "STEPS_MAX", 1_000_000)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    assert users.run(endless) == ("ValueError", "this takes more than 1000000 steps: do it in smaller parts")
    assert users.ask(endless)[0] == "ValueError"
    assert users.run("INSERT INTO users (name) VALUES ('next')") == 1


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO users (name) VALUES ('x')", "DELETE FROM users", "DROP TABLE users", "CREATE TABLE t (x)", "CREATE TEMP TABLE t (x)",
        "UPDATE users SET age = 1 RETURNING id", "PRAGMA user_version = 3", "PRAGMA query_only = OFF", "PRAGMA wal_checkpoint",
        "ATTACH 'x' AS x", "BEGIN", "VACUUM", "VACUUM INTO 'x'", "SELECT 1; DELETE FROM users", "SELECT load_extension('x')", "REINDEX",
    ],
)  # fmt: skip
def test_a_query_cannot_write(users, sql):
    before = users.host.digest()
    answer = users.ask(sql)
    assert answer[0] == "ValueError", answer
    assert users.host.digest() == before
    assert users.ask("SELECT count(*) FROM users") == [[2]]
    assert users.run("INSERT INTO users (name) VALUES ('next')") == 1


def test_a_query_may_describe_the_schema(users):
    assert [row[1] for row in users.ask("PRAGMA table_info(users)")] == ["id", "name", "age"]
    assert users.ask("SELECT name FROM sqlite_schema WHERE name = 'users'") == [["users"]]


def test_wrong_parameters_are_an_answer(users):
    assert users.ask("SELECT ?", [1, 2])[0] == "ValueError"
    assert users.ask("SELECT", [])[0] == "ValueError"


def test_too_many_rows_are_refused(users, monkeypatch):
    monkeypatch.setattr(sqlite_machine, "ROWS_MAX", 1)
    assert users.ask("SELECT * FROM users") == (
        "ValueError",
        "the query gives more than 1 rows: ask for fewer with LIMIT",
    )
    assert len(users.ask("SELECT * FROM users LIMIT 1")) == 1


def test_every_type_of_cell(users):
    users.run("CREATE TABLE t (x); INSERT INTO t VALUES (NULL), (1), (2.5), ('ä'), (x'00ff')")
    assert users.ask("SELECT x FROM t ORDER BY rowid") == [[None], [1], [2.5], ["ä"], [b"\x00\xff"]]


def test_reopened_it_knows_what_it_has(make):
    first = make()
    first.run("CREATE TABLE t (x)")
    first.run("INSERT INTO t VALUES (1)")
    first.run("nonsense")
    digest = first.host.digest()
    first.close()
    again = make()
    assert again.index == 3
    assert again.host.digest() == digest


CRASH = """
import os, sys
from test_sqlite_machine import Replica
from pathlib import Path
replica = Replica(Path(sys.argv[1]))
replica.run("CREATE TABLE t (x)")
replica.run("INSERT INTO t VALUES (1)")
machine = replica.host.machine
if sys.argv[2] == "middle":
    run = machine._authorizer
    machine._authorizer = lambda *a: (print(), os._exit(9))
    original = type(machine)._begin
    def begin(self, writer):
        original(self, writer)
        writer.execute("INSERT INTO t VALUES (2)")
    type(machine)._begin = begin
replica.run("INSERT INTO t VALUES (3)")
os._exit(9)
"""


@pytest.mark.parametrize(("where", "applied", "rows"), [("middle", 2, [[1]]), ("end", 3, [[1], [3]])])
def test_killed_it_has_whole_commands_only(make, tmp_path, where, applied, rows):
    environment = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path / "n1"), where], env=environment, check=False)
    assert done.returncode == 9
    again = make()
    assert again.index == applied
    assert again.ask("SELECT x FROM t") == rows


def test_a_snapshot_is_of_the_moment_it_was_asked_for(make):
    one, two = make("n1"), make("n2")
    one.run("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    digest = one.host.digest()
    write = one.host.snapshot()
    one.run("INSERT INTO t VALUES (2)")
    file = io.BytesIO()
    write(file)
    two.run("CREATE TABLE other (y)")
    file.seek(0)
    two.host.restore(file)
    assert two.host.digest() == digest
    assert two.applied() == 1
    assert two.ask("SELECT x FROM t") == [[1]]
    two.index = 1
    assert two.run("INSERT INTO t VALUES (2)") == 1
    assert two.host.digest() == one.host.digest()
    assert [path.name for path in (Path(two.host.machine._path).parent).glob("*-*.sqlite*")] == []


def test_a_snapshot_that_is_no_database_is_refused_and_changes_nothing(users):
    before = users.host.digest()
    with pytest.raises(RuntimeError, match="DatabaseError"):
        users.host.restore(io.BytesIO(b"no database" * 1000))
    assert users.host.digest() == before


def test_the_same_log_gives_the_same_digest(make):
    scripts = [
        "CREATE TABLE t (k INTEGER PRIMARY KEY, v)",
        *(f"INSERT INTO t (v) VALUES ({n}), ('{n}')" for n in range(50)),
        "DELETE FROM t WHERE k % 3 = 0",
        "bad",
    ]
    one, two = make("n1"), make("n2")
    for script in scripts:
        assert one.run(script) == two.run(script)
    assert one.host.digest() == two.host.digest()
    two.run("UPDATE t SET v = 'x' WHERE k = 1")
    assert one.host.digest() != two.host.digest()


def test_trouble_with_the_disk_halts(users):
    users.host.machine._writer.execute("PRAGMA max_page_count = 5")
    halt = users.run("CREATE TABLE big (x); INSERT INTO big VALUES (zeroblob(1000000))")
    assert isinstance(halt, str)
    assert "full" in halt
    assert "SQLite.execute() at index 3 raised Halt" in halt


def test_a_machine_that_is_not_open_halts():
    host = Host(SQLite())
    body = Catalog(type(host.machine)).plan(COMMAND, SQLite.execute, ("SELECT 1",), {}).body
    assert "the database is not open" in host.apply(*columns([(1, 1, 1, body)]))[1]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", []),
        (" ; ;", []),
        ("SELECT 1", ["SELECT 1"]),
        ("a;b;c", ["a;", "b;", "c"]),
        ("a';'b;c", ["a';'b;", "c"]),
        ('a";"b;[;]`;`;', ['a";"b;', "[;]`;`;"]),
        ("a -- ;\n;b /* ; */ ;", ["a -- ;\n;", "b /* ; */ ;"]),
        ("CREATE TRIGGER x BEGIN a; b; END; c", ["CREATE TRIGGER x BEGIN a; b; END;", " c"]),
    ],
)
def test_statements(script, expected):
    assert statements(script) == expected


def test_a_long_script_is_split_quickly():
    assert len(statements("INSERT INTO t VALUES (';;;;');\n" * 20_000)) == 20_001 - 1
    assert len(statements("SELECT '" + ";" * 1_000_000 + "'")) == 1
