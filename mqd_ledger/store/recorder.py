"""The ledger file: eventsourcing's SQLite recorder with our tables."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain as concatenated
from pathlib import Path
from threading import Lock
from typing import Any, cast

from eventsourcing.persistence import StoredEvent
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteCursor

from mqd_ledger.chain import Head, Row, check
from mqd_ledger.errors import ChainBroken, LedgerUnreadable
from mqd_ledger.store.connections import APPLICATION_ID, LedgerConnection, LedgerDatastore, in_our_words
from mqd_ledger.store.rows import CHUNK, COLUMNS, FIELDS, Batch, Clock, StoredRow, Wanted, chained, now, text_of
from mqd_ledger.values import microseconds

SCHEMA_VERSION = 1
WINDOW = 50_000  # rows that one short read looks through for the few types it wants
NAMES_KEPT = 100_000  # names of streams that a reader remembers
# One statement for many rows is a fifth faster than executemany; an old SQLite takes fewer variables.
ROWS_PER_INSERT = 250 if sqlite3.sqlite_version_info >= (3, 32) else 99

SCHEMA = (
    f"pragma application_id = {APPLICATION_ID}",
    f"pragma user_version = {SCHEMA_VERSION}",
    "create table streams(id integer primary key, name text not null unique)",
    "create table types(id integer primary key, name text not null unique)",
    (
        "create table events(position integer primary key, stream integer not null references streams, "
        "version integer not null, type integer not null references types, occurred_at integer not null, "
        "recorded_at integer not null, correlation integer not null, causation integer not null, "
        "payload text not null, hash blob not null)"
    ),
    "create unique index events_stream on events(stream, version)",
)
INSERT = "insert into events values (?,?,?,?,?,?,?,?,?,?)"
INSERT_MANY = INSERT + ",(?,?,?,?,?,?,?,?,?,?)" * (ROWS_PER_INSERT - 1)
# The library's statements about notifications work on this as on a table of theirs.
NOTIFICATIONS = (
    "(select position as rowid, streams.name as originator_id, version as originator_version, types.name as topic, "
    "cast(payload as blob) as state from events cross join streams on streams.id = stream "
    "cross join types on types.id = type)"
)
HEAD = "select position, hash, recorded_at from events order by position desc limit 1"


def _columns(names: Iterable[str]) -> str:
    """For select; as bytes what is text or might have been made text by somebody, so that reading it never fails."""
    return ", ".join(f"cast({name} as blob)" if name in {"payload", "hash"} else name for name in names)


class SQLiteLedgerRecorder(SQLiteApplicationRecorder):
    """A ledger file. The library's own methods raise the library's errors; ours raise ours."""

    def __init__(
        self, datastore: LedgerDatastore, events_table_name: str = NOTIFICATIONS, *, clock: Clock = now
    ) -> None:
        super().__init__(datastore, events_table_name)
        self.select_events_statement = (
            "select * from (select streams.name as originator_id, version as originator_version, types.name as topic, "
            "cast(payload as blob) as state from streams cross join events on stream = streams.id "
            "cross join types on types.id = type) where originator_id = ? "
        )
        self.select_max_notification_id_statement = "select max(position) from events"
        self._clock = clock
        self._name_of_file, self._access, self._connect = datastore.name, datastore.access, datastore.connect
        self._writer: sqlite3.Connection | None = None
        self._write_lock = Lock()
        self._streams: dict[int, str] = {}
        self._types: dict[int, str] = {}

    def create_table(self) -> None:
        """Make the tables in a new file; a file that is a ledger stays as it is, and one of another program is refused."""
        if not self._is_ledger():
            super().create_table()

    def construct_create_table_statements(self) -> list[str]:
        return list(SCHEMA)

    def _insert_events(self, c: SQLiteCursor, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int] | None:
        cursor = c.sqlite_cursor
        rows = chained(self._head(cursor), stored_events, microseconds(self._clock()))
        self._insert(cursor, rows)
        return [row[0] for row in rows]

    def _is_ledger(self) -> bool:
        """False for an empty file (one whose making was cut short, too); a file of another program raises."""
        with self._connection("Opening") as connection:
            application = connection.execute("pragma application_id").fetchone()[0]
            version = connection.execute("pragma user_version").fetchone()[0]
            tables = connection.execute("select count(*) from sqlite_master").fetchone()[0]
        if application == APPLICATION_ID and version == SCHEMA_VERSION:
            return True
        if application == APPLICATION_ID:
            raise LedgerUnreadable(
                f"The ledger {self._name_of_file} has format {version}, and this version of mqd-ledger knows format "
                f"{SCHEMA_VERSION}. Use the version that wrote it, or a newer one."
            )
        if tables or application:
            raise LedgerUnreadable(
                f"{self._name_of_file} is a database of another program (application id {application:#x}), not a ledger. "
                "Check the path."
            )
        return False

    def open(self) -> None:
        """Look at the file before anything is asked of it: make the tables of a new one, refuse what is no ledger."""
        if self._is_ledger():
            return
        if self._access == "read":
            raise LedgerUnreadable(f"{self._name_of_file} is empty: nothing was ever recorded in it. Check the path.")
        with in_our_words(self._name_of_file, "Making"):
            super().create_table()

    def close(self) -> None:
        with self._write_lock:
            if self._writer is not None:
                self._writer.close()
            self.datastore.close()

    @contextmanager
    def _connection(self, doing: str) -> Iterator[sqlite3.Connection]:
        with in_our_words(self._name_of_file, doing), self.datastore.get_connection(commit=False) as connection:
            yield cast("LedgerConnection", connection).raw

    def _query(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        """All rows at once: the read is over when this returns."""
        with self._connection("Reading") as connection:
            cursor = connection.cursor()
            cursor.row_factory = None
            return cursor.execute(sql, parameters).fetchall()

    def copy_to(self, path: Path) -> None:
        """SQLite's own copy, of one instant, in one step: in steps, a busy writer would make it begin again and again."""
        with (
            in_our_words(str(path), "Making"),
            closing(sqlite3.connect(path)) as copy,
            self._connection("Copying") as connection,
        ):
            connection.backup(copy)

    def head(self) -> Head:
        rows = self._query(HEAD)
        return Head(*rows[0]) if rows else Head()

    @staticmethod
    def _head(cursor: sqlite3.Cursor) -> Head:
        row = cursor.execute(HEAD).fetchone()
        return Head(*row) if row else Head()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        """By a connection that is kept: asking the pool for one takes as long as writing the rows of a small turn."""
        with in_our_words(self._name_of_file, "Writing to"), self._write_lock:
            connection = self._writer = self._writer or self._connect()
            cursor = connection.cursor()
            cursor.execute("begin immediate")
            try:
                yield cursor
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:
                    with suppress(sqlite3.Error):  # the error that led here says more
                        cursor.execute("rollback")
                raise
            finally:
                cursor.close()

    def append(self, rows: Sequence[Row]) -> None:
        with self._writing() as cursor:
            check(rows, self._head(cursor))
            self._insert(cursor, rows)

    def write(self, batch: Batch) -> None:
        with self._writing() as cursor:
            found = self._head(cursor)
            if found != batch.base:
                raise batch.conflict(self._name_of_file, found)
            if batch.streams:
                cursor.executemany("insert into streams values (?, ?)", batch.streams)
            if batch.types:
                cursor.executemany("insert into types values (?, ?)", batch.types)
            _insert_rows(cursor, batch.rows)
            batch.meanwhile()

    def _insert(self, cursor: sqlite3.Cursor, rows: Sequence[Row]) -> None:
        streams = _ids(cursor, "streams", (row[1] for row in rows))
        types = _ids(cursor, "types", (row[3] for row in rows))
        _insert_rows(
            cursor,
            [(row[0], streams[row[1]], row[2], types[row[3]], *row[4:8], text_of(row[8]), row[9]) for row in rows],
        )

    def read(
        self, after: int = 0, upto: int | None = None, types: Sequence[str] = (), recorded_until: int | None = None
    ) -> Iterator[Row]:
        return concatenated.from_iterable(map(self._named, self._chunks(FIELDS, after, upto, types, recorded_until)))

    def chunks(
        self,
        wanted: Wanted,
        after: int = 0,
        upto: int | None = None,
        types: Sequence[str] = (),
        recorded_until: int | None = None,
    ) -> Iterator[Sequence[tuple[Any, ...]]]:
        return self._chunks(COLUMNS[wanted], after, upto, types, recorded_until)

    def _chunks(
        self, names: Sequence[str], after: int, upto: int | None, types: Sequence[str], recorded_until: int | None
    ) -> Iterator[list[Any]]:
        last = 2**63 - 1 if upto is None else upto
        if recorded_until is not None:
            last = min(last, self.position_at(recorded_until))
        between = f"select {_columns(names)} from events where position > ? and position <= ?"
        if types:
            yield from self._chunks_of_types(between, after, last, types)
            return
        sql = f"{between} order by position limit {CHUNK}"
        while True:
            chunk = self._query(sql, (after, last))
            if chunk:
                yield chunk
                after = chunk[-1][0]
            if len(chunk) < CHUNK:
                return

    def _chunks_of_types(self, between: str, after: int, last: int, types: Sequence[str]) -> Iterator[list[Any]]:
        known = self.type_numbers()
        numbers = ",".join(str(known[name]) for name in types if name in known)
        following = "select min(position) from events where position > ? and position <= ?"
        while numbers and (first := self._query(following, (after, last))[0][0]) is not None:  # leaps over any gap
            after = min(first + WINDOW, last)
            chunk = self._query(f"{between} and type in ({numbers}) order by position", (first - 1, after))
            if chunk:
                yield chunk

    def _named(self, chunk: Sequence[StoredRow]) -> list[Row]:
        """Rows with the names of their streams and types in place of the numbers."""
        streams, types = self._streams, self._types
        if len(streams) > NAMES_KEPT:
            streams.clear()
        self._learn("streams", streams, {row[1] for row in chunk}, chunk)
        self._learn("types", types, {row[3] for row in chunk}, chunk)
        return [
            (position, streams[s], version, types[t], occurred_at, recorded_at, correlation, causation, payload, digest)
            for position, s, version, t, occurred_at, recorded_at, correlation, causation, payload, digest in cast(
                "Sequence[tuple[int, int, int, int, int, int, int, int, bytes, bytes]]", chunk
            )
        ]

    def _learn(self, table: str, names: dict[int, str], ids: set[int], chunk: Sequence[StoredRow]) -> None:
        missing = sorted(ids.difference(names))
        if not missing:
            return
        marks = ",".join("?" * len(missing))
        names.update(self._query(f"select id, name from {table} where id in ({marks})", missing))
        if lost := ids.difference(names):
            column = 1 if table == "streams" else 3
            position = next(row[0] for row in chunk if row[column] in lost)
            raise ChainBroken(
                f"Event {position} refers to a name that the log's table {table!r} does not hold: it was removed, or the "
                "event was altered. Restore the ledger from a backup or an export."
            )

    def read_stream(self, name: str, after_version: int = 0) -> list[Row]:
        return self._named(
            self._query(
                f"select {_columns(FIELDS)} from events where stream = (select id from streams where name = ?) and version > ? "
                "order by version",
                (name, after_version),
            )
        )

    def stream_version(self, name: str) -> int:
        return self.find_stream(name)[1]

    def find_stream(self, name: str) -> tuple[int, int]:
        rows = self._query(
            "select id, (select coalesce(max(version), 0) from events where stream = streams.id) from streams where name = ?",
            (name,),
        )
        return (rows[0][0], rows[0][1]) if rows else (0, 0)

    def last_stream(self) -> int:
        return int(self._query("select coalesce(max(id), 0) from streams")[0][0])

    def problems(self) -> list[str]:
        return [text for (text,) in self._query("pragma integrity_check(3)") if text != "ok"]

    def type_numbers(self) -> dict[str, int]:
        return dict(self._query("select name, id from types"))

    def position_at(self, recorded_until: int) -> int:
        """By bisection: the log never goes backwards in recorded time."""
        low, high = 0, self.head().position
        while low < high:
            middle = (low + high + 1) // 2
            found = self._query(
                "select position, recorded_at from events where position >= ? order by position limit 1", (middle,)
            )
            if found[0][1] <= recorded_until:
                low = found[0][0]
            else:
                high = middle - 1
        return low


def _insert_rows(cursor: sqlite3.Cursor, rows: Sequence[StoredRow]) -> None:
    whole = len(rows) - len(rows) % ROWS_PER_INSERT
    for start in range(0, whole, ROWS_PER_INSERT):
        cursor.execute(INSERT_MANY, list(concatenated.from_iterable(rows[start : start + ROWS_PER_INSERT])))
    cursor.executemany(INSERT, rows[whole:] if whole else rows)


def _ids(cursor: sqlite3.Cursor, table: str, names: Iterable[str]) -> dict[str, int]:
    """The numbers of names, in the order in which they come; new names get the next ones."""
    ids: dict[str, int] = {}
    for name in dict.fromkeys(names):
        found = cursor.execute(f"select id from {table} where name = ?", (name,)).fetchone()
        if found is None:
            cursor.execute(f"insert into {table}(name) values (?)", (name,))
        ids[name] = cast("int", cursor.lastrowid) if found is None else found[0]
    return ids
