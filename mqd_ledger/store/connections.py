"""Connections to a ledger file through eventsourcing's pool, set up our way, and what SQLite's errors mean for a ledger."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from eventsourcing.persistence import InterfaceError, OperationalError, PersistenceError
from eventsourcing.sqlite import (
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteCursor,
    SQLiteDatastore,
    SQLiteTransaction,
)

from mqd_ledger.errors import Conflict, LedgerError, LedgerUnreadable

Access = Literal["create", "write", "read"]
Durability = Literal["full", "normal"]

APPLICATION_ID = 0x4D514431  # "MQD1" in the file's header: how `file` and we know a ledger
# Bytes, of a new file. Large pages are a tenth faster to append many events at once to; small ones a tenth of a millisecond sooner
# on the disk with a few, since each page that a commit touches is written whole.
PAGE_SIZE: Mapping[Durability, int] = MappingProxyType({"full": 4096, "normal": 16384})
WAIT_SECONDS = 10  # for another program's lock
POOL_SECONDS = 60  # for another thread's turn: a slow disk is no error

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
def in_our_words(name: str, doing: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, PersistenceError) as error:
        raise _translated(error, name, doing) from error


class _Transaction(SQLiteTransaction):
    """One that will write takes its lock at the start: one that asked for it later might find its snapshot outdated."""

    def __enter__(self) -> SQLiteCursor:
        cursor = self.connection.cursor()
        try:
            cursor.execute("begin immediate" if self.commit else "begin")
        except sqlite3.Error as error:
            raise OperationalError(error) from error
        return cursor


class LedgerConnection(SQLiteConnection):
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
            return LedgerConnection(sqlite_conn=self.connect(), max_age=self.max_age)
        except sqlite3.Error as error:
            raise InterfaceError(error) from error

    def connect(self) -> sqlite3.Connection:
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
                return self.connect()
            raise
        connection.execute("pragma cache_size = -16000")
        connection.row_factory = sqlite3.Row
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        application, pages = (
            connection.execute(f"pragma {name}").fetchone()[0] for name in ("application_id", "page_count")
        )
        if pages and application != APPLICATION_ID:
            return  # of another program, and about to be refused: nothing of it is changed
        connection.execute(f"pragma page_size = {PAGE_SIZE[self.durability]}")
        connection.execute("pragma journal_mode = wal").close()
        connection.execute(f"pragma synchronous = {self.durability}")
        if self.durability == "full":  # macOS writes through to the disk only when asked
            connection.execute("pragma fullfsync = on")
            connection.execute("pragma checkpoint_fullfsync = on")
        connection.execute("pragma wal_autocheckpoint = 1000").close()

    def _lies_at_rest(self, error: sqlite3.Error) -> bool:
        """In a read-only directory SQLite has no place for the WAL's index. Without a WAL nobody writes, and none is needed."""
        code = error.sqlite_errorcode & 0xFF
        if self.access != "read" or self.path is None or code not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
            return False
        wal = self.path.with_name(self.path.name + "-wal")
        return self.path.is_file() and not (wal.exists() and wal.stat().st_size) and "immutable" not in self.db_name


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
        pool = _Pool(db_name=db_name, lock_timeout=lock_timeout, pool_timeout=POOL_SECONDS)
        pool.access, pool.durability, pool.path = access, durability, None if is_uri else Path(path)
        self.pool: SQLiteConnectionPool = pool
        self.access = access
        self.connect = pool.connect  # makes a connection beside the pool, for its caller to close
