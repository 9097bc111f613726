"""The log of record on disk and in memory: eventsourcing's SQLite and in-memory recorders, extended by our envelope and chain.

    streams(id, name)   types(id, name)   events(position, stream, version, type, occurred_at, recorded_at,
                                                 correlation, causation, payload, hash)

`position` is an explicit primary key without gaps, so VACUUM cannot renumber it. Streams and types stand once by name, and events
hold their small numbers. The payload is text, for people and for DuckDB; bytes that are not UTF-8 stay bytes.

The recorders remain recorders of that library (its own test cases run over them), so any eventsourcing application can open a
ledger: PERSISTENCE_MODULE=mqd_ledger.store, MAPPER_TOPIC=mqd_ledger.store:LedgerMapper, SQLITE_DBNAME=the file.

A ledger file is only ever touched through `sqlite3`: POSIX drops all of a process's locks on a file when any of its descriptors
of that file is closed, after which another process may delete the WAL, and commits that were acknowledged are gone. So never
`open()` one, not even to copy it: `backup` does that.
"""

import os
import sqlite3
import sys
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain as concatenated
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, cast
from uuid import UUID

from eventsourcing import sqlite
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import (
    InterfaceError,
    IntegrityError,
    Mapper,
    OperationalError,
    PersistenceError,
    StoredEvent,
)
from eventsourcing.popo import POPOApplicationRecorder
from eventsourcing.sqlite import (
    SQLiteApplicationRecorder,
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteCursor,
    SQLiteDatastore,
    SQLiteTransaction,
)
from eventsourcing.utils import EnvType

from mqd_ledger.chain import Head, Row, check, header
from mqd_ledger.envelope import decode, encode
from mqd_ledger.errors import BadInput, ChainBroken, Conflict, LedgerError, LedgerUnreadable
from mqd_ledger.events import STORED_NAME, Event
from mqd_ledger.values import microseconds

APPLICATION_ID = 0x4D514431  # "MQD1" in the file's header: how `file` and we know a ledger
SCHEMA_VERSION = 1
PAGE_SIZE = 16384  # 10 % faster to append to than 4096
CHUNK = 1000  # rows of one short read
WINDOW = 50_000  # rows that one short read looks through for the few types it wants
ROWS_PER_INSERT = 250 if sqlite3.sqlite_version_info >= (3, 32) else 99  # a fifth faster than executemany; variables are limited
WAIT_SECONDS = 5  # for another program's lock
NAMES_KEPT = 100_000  # names of streams that a reader remembers

Access = Literal["create", "write", "read"]
Durability = Literal["full", "normal"]
Clock = Callable[[], datetime]

# An event as it is stored: a row of the chain with numbers for the names of its stream and type.
StoredRow = tuple[int, int, int, int, int, int, int, int, str | bytes, bytes]
# What a replay needs: position, type, occurred_at, recorded_at, correlation, causation, payload.
LightRow = tuple[int, int, int, int, int, int, str | bytes]
Payload = tuple[int, int, str | bytes]  # position, type, payload

SCHEMA = (
    f"pragma application_id = {APPLICATION_ID}",
    f"pragma user_version = {SCHEMA_VERSION}",
    "create table streams(id integer primary key, name text not null unique)",
    "create table types(id integer primary key, name text not null unique)",
    "create table events(position integer primary key, stream integer not null references streams, "
    "version integer not null, type integer not null references types, occurred_at integer not null, "
    "recorded_at integer not null, correlation integer not null, causation integer not null, "
    "payload text not null, hash blob not null)",
    "create unique index events_stream on events(stream, version)",
)
INSERT = "insert into events values (?,?,?,?,?,?,?,?,?,?)"
INSERT_MANY = f"insert into events values {','.join(['(?,?,?,?,?,?,?,?,?,?)'] * ROWS_PER_INSERT)}"
HEAD = "select position, hash, recorded_at from events order by position desc limit 1"
STORED = (
    "position, stream, version, type, occurred_at, recorded_at, correlation, causation, "
    "cast(payload as blob), cast(hash as blob)"
)
LIGHT = "position, type, occurred_at, recorded_at, correlation, causation, cast(payload as blob)"
PAYLOAD = "position, type, cast(payload as blob)"


class Batch(NamedTuple):
    """What one commit appends: the head it builds on, names that are new, and the rows."""

    base: Head
    streams: Sequence[tuple[int, str]]
    types: Sequence[tuple[int, str]]
    rows: Sequence[StoredRow]


class LedgerRecorder(Protocol):
    """What both stores can do beyond eventsourcing's ApplicationRecorder. Positions, versions and ids count from 1."""

    def head(self) -> Head: ...

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows that continue the chain, all or none; rows that do not raise ChainBroken."""

    def write(self, batch: Batch) -> None:
        """Add a batch whose chain its maker has computed, all or none; Conflict if the head is not the batch's base any more."""

    def read(
        self, after: int = 0, upto: int | None = None, types: Sequence[str] = (), recorded_until: int | None = None
    ) -> Iterator[Row]:
        """Rows in order, in chunks: each is one short read, so that a reader never holds the writer's WAL."""

    def read_light(
        self, after: int = 0, upto: int | None = None, types: Sequence[str] = (), recorded_until: int | None = None
    ) -> Iterator[Sequence[LightRow]]:
        """The same in chunks of what a replay needs."""

    def read_payloads(
        self, after: int = 0, upto: int | None = None, recorded_until: int | None = None
    ) -> Iterator[Sequence[Payload]]:
        """The same in chunks of what a fold needs."""

    def read_stream(self, name: str, after_version: int = 0) -> list[Row]: ...

    def stream_version(self, name: str) -> int:
        """The last version of a stream; 0 where there is none."""

    def find_stream(self, name: str) -> tuple[int, int]:
        """The number and the last version of a stream; (0, 0) where there is none."""

    def last_stream_id(self) -> int: ...

    def type_ids(self) -> dict[str, int]: ...

    def position_at(self, recorded_until: int) -> int:
        """The last position that was recorded at or before a time in microseconds; 0 where there is none."""

    def close(self) -> None: ...


def _now() -> datetime:
    return datetime.now(UTC)


def _chained(head: Head, stored_events: Iterable[StoredEvent], at: int) -> list[Row]:
    """Events of an eventsourcing application as rows that follow `head`: each is an input of its own."""
    rows: list[Row] = []
    position, previous, recorded_at = head
    recorded_at = max(recorded_at, at)
    for stored in stored_events:
        position += 1
        envelope = (
            position,
            _name(stored.originator_id),
            stored.originator_version,
            stored.topic,
            recorded_at,
            recorded_at,
            position,
            0,
        )
        previous = sha256(previous + header(envelope) + stored.state).digest()
        rows.append((*envelope, stored.state, previous))
    return rows


def _name(originator_id: UUID | str) -> str:
    return originator_id.hex if isinstance(originator_id, UUID) else originator_id


def _text(payload: bytes) -> str | bytes:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload  # compressed or enciphered by a foreign application


def _bytes(payload: str | bytes) -> bytes:
    return payload.encode() if isinstance(payload, str) else payload


# --- errors ----------------------------------------------------------------------------------------------------------------

# SQLite's primary result code -> what it means for a ledger, and what to do.
_PROBLEMS: Mapping[int, str] = MappingProxyType(
    {
        sqlite3.SQLITE_NOTADB: "is not a ledger: it is no SQLite database, or its first page is damaged. Check the path, "
        "or restore it from a backup",
        sqlite3.SQLITE_CORRUPT: "is damaged: pages are missing or malformed. Restore it from a backup or an export",
        sqlite3.SQLITE_BUSY: f"is locked by another program for more than {WAIT_SECONDS} s. Find the program that holds it "
        "and close it there",
        sqlite3.SQLITE_LOCKED: "is locked by another part of this program",
        sqlite3.SQLITE_FULL: "cannot grow: the disk, or the space this user may fill, is full. Make room and try again",
        sqlite3.SQLITE_IOERR: "cannot be read or written: the disk is full, has failed or was taken away. Nothing "
        "half-written stays; see to the disk and try again",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened. Check that it is a file, and that this user may read it and write in "
        "its directory",
        sqlite3.SQLITE_READONLY: "may not be written by this user, or lies in a place that is read-only",
        sqlite3.SQLITE_PERM: "may not be opened by this user",
    }
)


def _translated(error: Exception, name: str, doing: str) -> LedgerError:
    cause = error.__cause__ if isinstance(error, PersistenceError) and error.__cause__ is not None else error
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_CONSTRAINT:
        return Conflict(
            f"{doing} {name} failed, and nothing of it was written: another program has written the same position, or the "
            f"same version of a stream ({cause}). Open the ledger again and decide on what is there now."
        )
    problem = _PROBLEMS.get(code, "cannot be used")
    return LedgerUnreadable(f"{doing} {name} failed: the ledger {problem} ({cause}).")


@contextmanager
def _ours(name: str, doing: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, PersistenceError) as error:
        raise _translated(error, name, doing) from error


# --- SQLite ----------------------------------------------------------------------------------------------------------------


class _Transaction(SQLiteTransaction):
    """One that will write takes its lock at the start: one that asked for it later might find its snapshot outdated."""

    def __enter__(self) -> SQLiteCursor:
        cursor = self.connection.cursor()
        try:
            cursor.execute("begin immediate" if self.commit else "begin")
        except sqlite3.Error as error:
            raise OperationalError(error) from error
        return cursor


class _Connection(SQLiteConnection):
    @contextmanager
    def transaction(self, *, commit: bool) -> Iterator[SQLiteCursor]:
        with _Transaction(self, commit=commit) as cursor, cursor:
            yield cursor

    @property
    def raw(self) -> sqlite3.Connection:
        return self._sqlite_conn


def uri_of(path: Path, mode: str) -> str:
    """A path as SQLite takes it: blanks, #, ? and % escaped, drives and network shares of Windows included."""
    uri = path.absolute().as_uri()
    if not uri.startswith("file:///"):
        uri = uri.replace("file://", "file:////", 1)  # \\server\share
    return f"{uri}?mode={mode}"


_MODES: Mapping[Access, str] = MappingProxyType({"create": "rwc", "write": "rw", "read": "ro"})


class _Pool(SQLiteConnectionPool):
    access: Access = "create"
    durability: Durability = "full"
    path: Path | None = None

    def _create_connection(self) -> SQLiteConnection:
        try:
            return _Connection(sqlite_conn=self._connect(), max_age=self.max_age)
        except sqlite3.Error as error:
            raise InterfaceError(error) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.db_name,
            uri=True,
            check_same_thread=False,
            isolation_level=None,
            cached_statements=64,
            timeout=self.lock_timeout or WAIT_SECONDS,
        )
        try:
            if self.access == "read":
                connection.execute("select 1 from sqlite_master").close()  # opening alone reads nothing
            else:
                self._set_up(connection)
        except sqlite3.Error as error:
            connection.close()
            if self._lies_at_rest(error):
                self.db_name += "&immutable=1"
                return self._connect()
            raise
        connection.execute("pragma cache_size = -16000")
        connection.row_factory = sqlite3.Row
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"pragma page_size = {PAGE_SIZE}")  # of a new file
        connection.execute("pragma journal_mode = wal").close()
        connection.execute(f"pragma synchronous = {self.durability}")
        if self.durability == "full":  # macOS writes through to the disk only when asked
            connection.execute("pragma fullfsync = on")
            connection.execute("pragma checkpoint_fullfsync = on")
        connection.execute("pragma wal_autocheckpoint = 1000").close()

    def _lies_at_rest(self, error: sqlite3.Error) -> bool:
        """Where the directory is read-only SQLite has no place for the WAL's index; without a WAL nobody writes, and it needs none."""
        return (
            self.access == "read"
            and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CANTOPEN
            and "immutable" not in self.db_name
            and self.path is not None
            and self.path.is_file()
            and not self.path.with_name(self.path.name + "-wal").exists()
        )


class LedgerDatastore(SQLiteDatastore):
    """Connections to one ledger file. `access`: create it if need be, write to one that exists, or only read."""

    def __init__(
        self,
        path: str | Path,
        *,
        access: Access = "create",
        durability: Durability = "full",
        lock_timeout: int | None = None,
        originator_id_type: Literal["uuid", "text"] = "text",
    ) -> None:
        is_uri = isinstance(path, str) and (path.startswith("file:") or path == ":memory:")
        db_name = str(path) if is_uri else uri_of(Path(path), _MODES[access])
        super().__init__(db_name, lock_timeout=lock_timeout, originator_id_type=originator_id_type)
        self.name = str(path)
        pool = _Pool(db_name=db_name, lock_timeout=lock_timeout)
        pool.access, pool.durability, pool.path = access, durability, None if is_uri else Path(path)
        self.pool: SQLiteConnectionPool = pool
        self.access = access


class SQLiteLedgerRecorder(SQLiteApplicationRecorder):
    """A ledger file. The library's own methods raise the library's errors; ours raise ours."""

    # The library's statements about notifications work on this as on a table of theirs.
    NOTIFICATIONS = (
        "(select position as rowid, streams.name as originator_id, version as originator_version, types.name as topic, "
        "cast(payload as blob) as state from events cross join streams on streams.id = stream "
        "cross join types on types.id = type)"
    )

    def __init__(self, datastore: SQLiteDatastore, clock: Clock = _now) -> None:
        super().__init__(datastore, self.NOTIFICATIONS)
        self.select_events_statement = (
            "select * from (select streams.name as originator_id, version as originator_version, types.name as topic, "
            "cast(payload as blob) as state from streams cross join events on stream = streams.id "
            "cross join types on types.id = type) where originator_id = ? "
        )
        self.select_max_notification_id_statement = "select max(position) from events"
        self._clock = clock
        self._name_of_file = datastore.name if isinstance(datastore, LedgerDatastore) else datastore.pool.db_name
        self._streams: dict[int, str] = {}
        self._types: dict[int, str] = {}

    # The library's side

    def create_table(self) -> None:
        """Make the tables in a new file; a file that is a ledger stays as it is, and one of another program is refused."""
        if not self._is_ledger():
            super().create_table()

    def construct_create_table_statements(self) -> list[str]:
        return list(SCHEMA)

    def _insert_events(
        self, c: SQLiteCursor, stored_events: Sequence[StoredEvent], **_: Any
    ) -> Sequence[int] | None:
        cursor = cast("sqlite3.Cursor", c)
        rows = _chained(self._head(cursor), stored_events, microseconds(self._clock()))
        self._insert(cursor, rows)
        return [row[0] for row in rows]

    # Ours: opening

    def _is_ledger(self) -> bool:
        """False for an empty file (one whose making was cut short, too); a file of another program raises."""
        with self._connection("Opening", writes=False) as connection:
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
        if isinstance(self.datastore, LedgerDatastore) and self.datastore.access == "read":
            raise LedgerUnreadable(f"{self._name_of_file} is empty: nothing was ever recorded in it. Check the path.")
        with _ours(self._name_of_file, "Making"):
            super().create_table()

    def close(self) -> None:
        self.datastore.close()

    @contextmanager
    def _connection(self, doing: str, *, writes: bool) -> Iterator[sqlite3.Connection]:
        with _ours(self._name_of_file, doing), self.datastore.get_connection(commit=writes) as connection:
            yield cast("_Connection", connection).raw

    def _query(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        """All rows at once: the read is over when this returns."""
        with self._connection("Reading", writes=False) as connection:
            cursor = connection.cursor()
            cursor.row_factory = None
            return cursor.execute(sql, parameters).fetchall()

    def copy_to(self, path: Path) -> None:
        """SQLite's own copy, of one instant, in one step: in steps, a busy writer would make it begin again and again."""
        with self._connection("Copying", writes=False) as connection, closing(sqlite3.connect(path)) as copy:
            connection.backup(copy)

    # Ours: writing

    def head(self) -> Head:
        rows = self._query(HEAD)
        return Head(*rows[0]) if rows else Head()

    @staticmethod
    def _head(cursor: sqlite3.Cursor) -> Head:
        row = cursor.execute(HEAD).fetchone()
        return Head(*row) if row else Head()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        with self._connection("Writing to", writes=True) as connection:
            cursor = connection.cursor()
            cursor.execute("begin immediate")
            try:
                yield cursor
                cursor.execute("commit")
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
                raise _conflict(self._name_of_file, found, batch)
            if batch.streams:
                cursor.executemany("insert into streams values (?, ?)", batch.streams)
            if batch.types:
                cursor.executemany("insert into types values (?, ?)", batch.types)
            _insert_rows(cursor, batch.rows)

    def _insert(self, cursor: sqlite3.Cursor, rows: Sequence[Row]) -> None:
        streams = _ids(cursor, "streams", (row[1] for row in rows))
        types = _ids(cursor, "types", (row[3] for row in rows))
        _insert_rows(
            cursor, [(row[0], streams[row[1]], row[2], types[row[3]], *row[4:8], _text(row[8]), row[9]) for row in rows]
        )

    # Ours: reading

    def read(
        self, after: int = 0, upto: int | None = None, types: Sequence[str] = (), recorded_until: int | None = None
    ) -> Iterator[Row]:
        return concatenated.from_iterable(map(self._named, self._chunks(STORED, after, upto, types, recorded_until)))

    def read_light(
        self, after: int = 0, upto: int | None = None, types: Sequence[str] = (), recorded_until: int | None = None
    ) -> Iterator[Sequence[LightRow]]:
        return self._chunks(LIGHT, after, upto, types, recorded_until)

    def read_payloads(
        self, after: int = 0, upto: int | None = None, recorded_until: int | None = None
    ) -> Iterator[Sequence[Payload]]:
        return self._chunks(PAYLOAD, after, upto, (), recorded_until)

    def _chunks(
        self, columns: str, after: int, upto: int | None, types: Sequence[str], recorded_until: int | None
    ) -> Iterator[list[Any]]:
        last = 2**63 - 1 if upto is None else upto
        if recorded_until is not None:
            last = min(last, self.position_at(recorded_until))
        if types:
            yield from self._chunks_of_types(columns, after, last, types)
            return
        sql = f"select {columns} from events where position > ? and position <= ? order by position limit {CHUNK}"
        while True:
            chunk = self._query(sql, (after, last))
            if chunk:
                yield chunk
                after = chunk[-1][0]
            if len(chunk) < CHUNK:
                return

    def _chunks_of_types(self, columns: str, after: int, last: int, types: Sequence[str]) -> Iterator[list[Any]]:
        known = self.type_ids()
        wanted = ",".join(str(known[name]) for name in types if name in known)
        end = (
            "select max(position) from (select position from events where position > ? and position <= ? "
            f"order by position limit {WINDOW})"
        )
        sql = f"select {columns} from events where position > ? and position <= ? and type in ({wanted}) order by position"
        while wanted and (reached := self._query(end, (after, last))[0][0]) is not None:
            chunk = self._query(sql, (after, reached))
            if chunk:
                yield chunk
            after = reached

    def _named(self, chunk: Sequence[StoredRow]) -> list[Row]:
        """Rows with the names of their streams and types in place of the numbers."""
        streams, types = self._streams, self._types
        if len(streams) > NAMES_KEPT:
            streams.clear()
        self._learn("streams", streams, {row[1] for row in chunk}, chunk)
        self._learn("types", types, {row[3] for row in chunk}, chunk)
        return [
            (position, streams[stream], version, types[kind], occurred, recorded, correlation, causation, payload, digest)
            for position, stream, version, kind, occurred, recorded, correlation, causation, payload, digest in cast(
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
                f"select {STORED} from events where stream = (select id from streams where name = ?) and version > ? "
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

    def last_stream_id(self) -> int:
        return int(self._query("select coalesce(max(id), 0) from streams")[0][0])

    def type_ids(self) -> dict[str, int]:
        return dict(self._query("select name, id from types"))

    def position_at(self, recorded_until: int) -> int:
        """By bisection: the log never goes backwards in recorded time."""
        low, high = 0, self.head().position
        while low < high:
            middle = (low + high + 1) // 2
            found = self._query("select position, recorded_at from events where position >= ? order by position limit 1", (middle,))
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


def _conflict(name: str, found: Head, batch: Batch) -> Conflict:
    first, last = batch.rows[0][0], batch.rows[-1][0]
    return Conflict(
        f"Events {first} to {last} were decided after event {batch.base.position} of {name}, but the log now ends with event "
        f"{found.position}: another program has written to it. None of them was written. Open the ledger again and decide on "
        "what is there now."
    )


# --- memory ----------------------------------------------------------------------------------------------------------------


class _Stored(Sequence[StoredEvent]):
    """The rows of a log in memory as the events that the library's own methods expect."""

    def __init__(self, make: Callable[[int], StoredEvent], rows: Sequence[StoredRow]) -> None:
        self._make = make
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> Any:
        return self._make(place)


class MemoryLedgerRecorder(POPOApplicationRecorder):
    """A log that is gone with its process: for tests, reruns and what-if."""

    def __init__(self, clock: Clock = _now) -> None:
        super().__init__()
        self._clock = clock
        self._rows: list[StoredRow] = []
        self._stream_ids: dict[str, int] = {}
        self._type_ids: dict[str, int] = {}
        self._stream_names: list[str] = [""]
        self._type_names: list[str] = [""]
        self._originators: dict[int, UUID] = {}  # of a foreign application
        self._places: list[list[int]] = [[]]  # by stream: the places of its rows, in the order of their versions
        self._stored_events = cast("list[StoredEvent]", _Stored(self._stored_event, self._rows))

    # The library's side

    def _stored_event(self, place: int) -> StoredEvent:
        row = self._rows[place]
        originator_id = self._originators.get(row[1], self._stream_names[row[1]])
        return StoredEvent(originator_id, row[2], self._type_names[row[3]], _bytes(row[8]))

    def _insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int] | None:
        with self._database_lock:
            rows = _chained(self.head(), stored_events, microseconds(self._clock()))
            self._assert_new(rows)
            self._take(rows)
            for stored in stored_events:
                if isinstance(stored.originator_id, UUID):
                    self._originators[self._stream_ids[stored.originator_id.hex]] = stored.originator_id
            return [row[0] for row in rows]

    def _assert_new(self, rows: Sequence[Row]) -> None:
        seen: set[tuple[str, int]] = set()
        for row in rows:
            key = (row[1], row[2])
            if key in seen or self._holds(*key):
                raise IntegrityError(f"Version {row[2]} of stream {row[1]!r} is recorded already.")
            seen.add(key)

    def _holds(self, stream: str, version: int) -> bool:
        places = self._places[self._stream_ids.get(stream, 0)]
        found = bisect_left(places, version, key=self._version)
        return found < len(places) and self._version(places[found]) == version

    def _version(self, place: int) -> int:
        return self._rows[place][2]

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        with self._database_lock:
            places = self._places[self._stream_ids.get(_name(originator_id), 0)]
            first = 0 if gt is None else bisect_left(places, gt + 1, key=self._version)
            last = len(places) if lte is None else bisect_left(places, lte + 1, key=self._version)
            wanted = places[first:last]
            return [self._stored_event(place) for place in (wanted[::-1] if desc else wanted)[:limit]]

    # Ours

    def close(self) -> None:
        """Nothing to let go of."""

    def head(self) -> Head:
        return Head(self._rows[-1][0], self._rows[-1][9], self._rows[-1][5]) if self._rows else Head()

    def append(self, rows: Sequence[Row]) -> None:
        with self._database_lock:
            check(rows, self.head())
            try:
                self._assert_new(rows)
            except IntegrityError as error:
                raise Conflict(f"{error} Nothing of this batch was written.") from error
            self._take(rows)

    def write(self, batch: Batch) -> None:
        with self._database_lock:
            if self.head() != batch.base:
                raise _conflict("the log in memory", self.head(), batch)
            for _id, name in batch.streams:
                self._stream_id(name)
            for _id, name in batch.types:
                self._type_id(name)
            for row in batch.rows:
                self._add(row)
        self._notify_listeners()

    def _take(self, rows: Sequence[Row]) -> None:
        for row in rows:
            stream, kind = self._stream_id(row[1]), self._type_id(row[3])
            self._add((row[0], stream, row[2], kind, *row[4:8], _text(row[8]), row[9]))

    def _add(self, row: StoredRow) -> None:
        self._rows.append(row)
        insort(self._places[row[1]], len(self._rows) - 1, key=self._version)

    def _stream_id(self, name: str) -> int:
        number = self._stream_ids.get(name)
        if number is None:
            number = self._stream_ids[name] = len(self._stream_names)
            self._stream_names.append(name)
            self._places.append([])
        return number

    def _type_id(self, name: str) -> int:
        number = self._type_ids.get(name)
        if number is None:
            number = self._type_ids[name] = len(self._type_names)
            self._type_names.append(name)
        return number

    def _row(self, row: StoredRow) -> Row:
        return (row[0], self._stream_names[row[1]], row[2], self._type_names[row[3]], *row[4:8], _bytes(row[8]), row[9])

    def read(
        self, after: int = 0, upto: int | None = None, types: Sequence[str] = (), recorded_until: int | None = None
    ) -> Iterator[Row]:
        for chunk in self._chunks(after, upto, types, recorded_until):
            yield from map(self._row, chunk)

    def read_light(
        self, after: int = 0, upto: int | None = None, types: Sequence[str] = (), recorded_until: int | None = None
    ) -> Iterator[Sequence[LightRow]]:
        for chunk in self._chunks(after, upto, types, recorded_until):
            yield [(row[0], row[3], *row[4:9]) for row in chunk]

    def read_payloads(
        self, after: int = 0, upto: int | None = None, recorded_until: int | None = None
    ) -> Iterator[Sequence[Payload]]:
        for chunk in self._chunks(after, upto, (), recorded_until):
            yield [(row[0], row[3], row[8]) for row in chunk]

    def _chunks(
        self, after: int, upto: int | None, types: Sequence[str], recorded_until: int | None
    ) -> Iterator[list[StoredRow]]:
        wanted = {self._type_ids.get(name) for name in types}
        while True:
            last = len(self._rows) if upto is None else min(upto, len(self._rows))
            if recorded_until is not None:
                last = min(last, self.position_at(recorded_until))
            chunk = self._rows[after : min(after + CHUNK, last)]
            if not chunk:
                return
            after += len(chunk)
            yield [row for row in chunk if row[3] in wanted] if types else chunk

    def read_stream(self, name: str, after_version: int = 0) -> list[Row]:
        places = self._places[self._stream_ids.get(name, 0)]
        return [self._row(self._rows[place]) for place in places if self._version(place) > after_version]

    def stream_version(self, name: str) -> int:
        return self.find_stream(name)[1]

    def find_stream(self, name: str) -> tuple[int, int]:
        number = self._stream_ids.get(name, 0)
        places = self._places[number]
        return (number, self._version(places[-1]) if places else 0)

    def last_stream_id(self) -> int:
        return len(self._stream_names) - 1

    def type_ids(self) -> dict[str, int]:
        return dict(self._type_ids)

    def position_at(self, recorded_until: int) -> int:
        return bisect_left(self._rows, recorded_until + 1, key=lambda row: row[5])


# --- for any eventsourcing application -------------------------------------------------------------------------------------


class LedgerEvent:
    """An event of ours as an eventsourcing application sees it."""

    def __init__(self, originator_id: str, originator_version: int, event: Event) -> None:
        self.originator_id = originator_id
        self.originator_version = originator_version
        self.event = event


class LedgerMapper(Mapper[str]):
    """Our stored names and JSON on one side, `LedgerEvent` on the other; an application's own events as the library keeps them."""

    def to_stored_event(self, domain_event: DomainEventProtocol[str]) -> StoredEvent:
        if not isinstance(domain_event, LedgerEvent):
            return super().to_stored_event(domain_event)
        event = domain_event.event
        return StoredEvent(
            domain_event.originator_id, domain_event.originator_version, STORED_NAME[type(event)], encode(event)
        )

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[str]:
        if ":" in stored_event.topic:  # module:Class, as the library names them
            return super().to_domain_event(stored_event)
        event = decode(stored_event.topic, stored_event.state)
        return LedgerEvent(_name(stored_event.originator_id), stored_event.originator_version, event)


class Factory(sqlite.SQLiteFactory):
    """What PERSISTENCE_MODULE=mqd_ledger.store gives an application."""

    application_recorder_class = SQLiteLedgerRecorder

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        library = self.datastore
        self.datastore = LedgerDatastore(
            library.pool.db_name,
            lock_timeout=library.pool.lock_timeout,
            originator_id_type="uuid" if (self.env.get(self.ORIGINATOR_ID_TYPE) or "text").lower() == "uuid" else "text",
        )
        library.close()


# --- opening and copying ---------------------------------------------------------------------------------------------------


def open_ledger(path: Path, access: Access, durability: Durability = "full") -> SQLiteLedgerRecorder:
    """A recorder on a ledger file that has been looked at; close it. Whoever writes has to hold the `lock.WriterLock`."""
    if access != "create":
        require_file(path)
    recorder = SQLiteLedgerRecorder(LedgerDatastore(path, access=access, durability=durability))
    try:
        recorder.open()
    except BaseException:
        recorder.close()
        raise
    return recorder


def require_file(path: Path) -> None:
    if path.is_dir():
        raise LedgerUnreadable(f"{path} is a directory, not a ledger. Give the path of the file.")
    if not path.exists():
        raise LedgerUnreadable(f"There is no ledger at {path}. Check the path, or make one with `mqd-ledger init`.")


def backup(source: Path, target: Path) -> Head:
    """Copy a ledger, also while it is being written, to a new file that appears whole or not at all; the copy's head."""
    if target.exists():
        raise BadInput(f"{target} exists already; a backup never overwrites anything. Give another name.")
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with closing(open_ledger(source, "read")) as recorder:
            recorder.copy_to(part)
        with closing(open_ledger(part, "write")) as copy:
            head = copy.head()
        os.replace(part, target)
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            part.with_name(part.name + suffix).unlink(missing_ok=True)
    _make_durable(target.parent)
    return head


def _make_durable(directory: Path) -> None:
    """A rename is on the disk when its directory is; Windows has no such call and needs none."""
    if sys.platform != "win32":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
