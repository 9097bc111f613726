"""Keeps the projections up to the log: reads what is new, runs their statements, remembers how far it came.

The tables live in `<ledger>.cache/projections.db`, which may be deleted at any time. Rows, place in the log and account are
written in one transaction, so that a reader that was killed goes on where it stood and no event counts twice. A projection starts
again from the beginning where its version is another, or where the log's hash at its place is not the one it has seen: then the
ledger was restored or replaced. Where nothing can be written, the tables are built in memory.

Tables: those of `projections.TABLES`, and `projection_columns` (table, column, kind), which says how to read their columns.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from decimal import localcontext
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from mqd_ledger.chain import GENESIS, Row
from mqd_ledger.errors import LedgerUnreadable
from mqd_ledger.values import ARITHMETIC
from projections.account import VERSION as ACCOUNT_VERSION
from projections.account import Account, from_json
from projections.asking import fingerprint, projections_named, select, table_named, typed
from projections.reading import LogRow, readers, settled, statements
from projections.shape import FUNCTIONS, Projection

BATCH = 10_000  # events a transaction: one short read of the log, one commit here
WAIT_SECONDS = 60  # for another process that is catching up
_HELD = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

_BOOKKEEPING = (
    """create table if not exists projection_checkpoints(projection text primary key, version text not null,
    position integer not null, hash blob not null, account text not null)""",
    """create table if not exists projection_columns("table" text, "column" text, kind text,
    primary key ("table", "column"))""",
)


class Tables:
    """Projection tables in one SQLite connection, to be read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def hold(self) -> int:
        """Read on as of now, whatever is written meanwhile; the position of the log that the tables stand at."""
        self._connection.execute("begin")
        return int(
            self._connection.execute("select coalesce(min(position), 0) from projection_checkpoints").fetchone()[0]
        )

    def rows(self, table: str, order_by: str | None = None) -> list[dict[str, Any]]:
        """Every row of a public table as Decimal, datetime, date, bool; `order_by` as in "changed_at desc, symbol"."""
        named = table_named(table)
        return typed(named, self._connection.execute(select(named, order_by)))

    def fingerprint(self, table: str) -> str:
        """SHA-256 of all rows of a table, as stored and in the order of its key: the same for the same log."""
        return fingerprint(self._connection.execute(select(table_named(table))))

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Projected(Tables):
    """Projections in memory, of the part of a log that was given."""


def project(rows: Iterable[Row], *, only: Sequence[str] | None = None) -> Projected:
    """All projections (or `only` those named) of `rows` of a log, from its first event on."""
    projections = projections_named(only)
    connection = _connect(":memory:")
    with closing_on_error(connection):
        connection.execute("begin")
        _make(connection, projections)
        account, reads = Account(), readers(projections)
        with localcontext(ARITHMETIC):
            for batch in _batches(rows):
                for sql, parameters in statements(batch, account, reads):
                    connection.execute(sql, parameters)
        connection.execute("commit")
    return Projected(connection)


class Projector:
    """The projections of one ledger; they are as new as the last `catch_up`."""

    def __init__(self, ledger_path: str | Path, *, only: Sequence[str] | None = None) -> None:
        self._ledger = Path(ledger_path)
        self._projections = projections_named(only)
        self._memory: sqlite3.Connection | None = None
        self._is_made = False

    @property
    def cache_path(self) -> Path:
        return self._ledger.with_name(self._ledger.name + ".cache") / "projections.db"

    def catch_up(self) -> int:
        """Take in what the log has that the tables have not; the position of the log they stand at then."""
        with closing(_Log(self._ledger)) as log:
            self._is_made = True
            if self._memory is None:
                position = self._catch_up_on_disk(log)
                if position is not None:
                    return position
                self._memory = _connect(":memory:")
            return _catch_up(self._memory, log, self._projections)

    def rebuild(self) -> int:
        """Forget everything and read the whole log again."""
        self.close()
        _remove(self.cache_path)
        return self.catch_up()

    def connect(self) -> sqlite3.Connection:
        """A connection of the caller's own that can only read the tables; the first time they are caught up for it."""
        if not self._is_made:
            self.catch_up()
        if self._memory is not None:
            copy = sqlite3.connect(":memory:", isolation_level=None)
            self._memory.backup(copy)
            copy.execute("pragma query_only = on")
            return copy
        return _connect(_uri(self.cache_path, "ro"))

    def rows(self, table: str, order_by: str | None = None) -> list[dict[str, Any]]:
        """See `Tables.rows`."""
        with Tables(self.connect()) as tables:
            return tables.rows(table, order_by)

    def fingerprint(self, table: str) -> str:
        """See `Tables.fingerprint`."""
        with Tables(self.connect()) as tables:
            return tables.fingerprint(table)

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _catch_up_on_disk(self, log: "_Log") -> int | None:
        """None where the directory of the cache cannot be used. A damaged file is removed and made again."""
        path = self.cache_path
        for _attempt in range(2):
            try:
                path.parent.mkdir(exist_ok=True)
                with closing(_connect(_uri(path, "rwc"))) as cache:
                    cache.execute("pragma journal_mode = wal")
                    cache.execute("pragma synchronous = normal")
                    return _catch_up(cache, log, self._projections)
            except OSError:
                return None  # read-only or not a directory: memory will do
            except sqlite3.Error as error:
                if error.sqlite_errorcode in _HELD or not _remove(path):
                    return None
        return None


# --- the log, read in short pieces ------------------------------------------------------------------------------------


class _Log:
    """A ledger file opened to read. Each piece is one short read, so that the writer's WAL can be checkpointed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._streams: dict[int, str] = {}
        self._types: dict[int, str] = {}
        with self._readable():
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        mode = "ro"
        while True:
            connection = sqlite3.connect(_uri(self._path, mode), uri=True, isolation_level=None, timeout=WAIT_SECONDS)
            try:
                connection.execute("select 1 from events limit 1").close()  # opening alone reads nothing
            except sqlite3.Error as error:
                connection.close()
                # In a directory that cannot be written SQLite has no place for the index of the WAL. Where there is no
                # WAL, nobody writes, and it is not needed.
                wal = self._path.with_name(self._path.name + "-wal")
                if mode != "ro" or error.sqlite_errorcode != sqlite3.SQLITE_CANTOPEN or not self._is_at_rest(wal):
                    raise
                mode = "ro&immutable=1"
            else:
                return connection

    def _is_at_rest(self, wal: Path) -> bool:
        return self._path.is_file() and not wal.exists()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerUnreadable(
                f"The ledger {self._path} cannot be read: {error}. It has to be a ledger file made by mqd-ledger; "
                "check the path, or restore the file from a backup."
            ) from error

    def hash_at(self, position: int) -> bytes | None:
        with self._readable():
            row = self._connection.execute("select hash from events where position = ?", (position,)).fetchone()
        return bytes(row[0]) if row else None

    def last_position(self) -> int:
        with self._readable():
            return int(self._connection.execute("select coalesce(max(position), 0) from events").fetchone()[0])

    def after(self, position: int, until: int) -> list[LogRow]:
        with self._readable():
            rows = self._connection.execute(
                "select position, stream, type, occurred_at, recorded_at, correlation, causation, payload from events "
                "where position > ? and position <= ? order by position limit ?",
                (position, until, BATCH),
            ).fetchall()
        try:
            return self._named(rows)
        except KeyError:  # a name that is new since the last piece
            with self._readable():
                self._streams = dict(self._connection.execute("select id, name from streams"))
                self._types = dict(self._connection.execute("select id, name from types"))
        try:
            return self._named(rows)
        except KeyError as error:
            raise LedgerUnreadable(
                f"The ledger {self._path} has events of stream or type number {error}, which has no name in it: the file is "
                "damaged. Restore it from a backup."
            ) from error

    def _named(self, rows: list[Any]) -> list[LogRow]:
        streams, types = self._streams, self._types
        return [(row[0], streams[row[1]], types[row[2]], *row[3:]) for row in rows]

    def close(self) -> None:
        self._connection.close()


def _batches(rows: Iterable[Row]) -> Iterator[Sequence[LogRow]]:
    batch: list[LogRow] = []
    for row in rows:
        batch.append((row[0], row[1], row[3], row[4], row[5], row[6], row[7], row[8]))
        if len(batch) >= BATCH and len(ready := settled(batch)) == len(batch):
            yield ready
            batch = []
    yield settled(batch)


# --- catching up ------------------------------------------------------------------------------------------------------


class _Checkpoint(NamedTuple):
    position: int
    hash: bytes
    account: str


def _catch_up(cache: sqlite3.Connection, log: _Log, projections: Sequence[Projection]) -> int:
    head = log.last_position()
    checkpoints = _read_checkpoints(cache, projections)
    if all(_fits(checkpoints.get(each.NAME), log) == head for each in projections):
        return head
    while True:
        cache.execute("begin immediate")  # another process that catches up waits here, then finds it done
        try:
            position, more = _take_batch(cache, log, projections)
        except BaseException:
            with suppress(sqlite3.Error):
                cache.execute("rollback")
            raise
        cache.execute("commit")
        if not more:
            return position


def _read_checkpoints(cache: sqlite3.Connection, projections: Sequence[Projection]) -> dict[str, _Checkpoint]:
    for statement in _BOOKKEEPING:
        cache.execute(statement)
    versions = {each.NAME: _version(each) for each in projections}
    rows = cache.execute("select projection, version, position, hash, account from projection_checkpoints")
    return {name: _Checkpoint(*rest) for name, version, *rest in rows if versions.get(name) == version}


def _version(projection: Projection) -> str:
    return f"{ACCOUNT_VERSION}.{projection.VERSION}"


def _fits(checkpoint: _Checkpoint | None, log: _Log) -> int:
    """Where a projection stands in this very log; -1 where it does not."""
    if checkpoint is None:
        return -1
    if not checkpoint.position:
        return 0
    return checkpoint.position if log.hash_at(checkpoint.position) == checkpoint.hash else -1


def _take_batch(cache: sqlite3.Connection, log: _Log, projections: Sequence[Projection]) -> tuple[int, bool]:
    """Bring those that are furthest behind a batch further; where they stand then, and whether there is more to do."""
    checkpoints = _read_checkpoints(cache, projections)
    stale = [each for each in projections if _fits(checkpoints.get(each.NAME), log) < 0]
    _make(cache, stale)
    for each in stale:
        checkpoints[each.NAME] = _Checkpoint(0, GENESIS, Account().to_json())
    position = min(checkpoint.position for checkpoint in checkpoints.values())
    behind = [each for each in projections if checkpoints[each.NAME].position == position]
    ahead = [checkpoint.position for checkpoint in checkpoints.values() if checkpoint.position > position]
    rows = settled(log.after(position, min(ahead, default=2**62)))
    account = from_json(checkpoints[behind[0].NAME].account)
    with localcontext(ARITHMETIC):
        for sql, parameters in statements(rows, account, readers(behind)):
            cache.execute(sql, parameters)
    reached = _Checkpoint(position, checkpoints[behind[0].NAME].hash, account.to_json())
    if rows:
        reached = reached._replace(position=account.position, hash=log.hash_at(account.position) or GENESIS)
    cache.executemany(
        "insert or replace into projection_checkpoints values (?, ?, ?, ?, ?)",
        [(each.NAME, _version(each), *reached) for each in behind],
    )
    return reached.position, bool(rows) and (bool(ahead) or len(rows) >= BATCH - 1)


def _make(connection: sqlite3.Connection, projections: Sequence[Projection]) -> None:
    """Empty tables for `projections`, whatever stood there."""
    for statement in _BOOKKEEPING:
        connection.execute(statement)
    for table in (table for projection in projections for table in projection.TABLES):
        connection.execute(f"drop table if exists {table.name}")
        for sql in table.create:
            connection.execute(sql)
        connection.execute('delete from projection_columns where "table" = ?', (table.name,))
        if table.public:
            connection.executemany(
                "insert into projection_columns values (?, ?, ?)",
                [(table.name, column, str(kind)) for column, kind in table.columns.items()],
            )


# --- small things -----------------------------------------------------------------------------------------------------


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"


def _connect(where: str) -> sqlite3.Connection:
    connection = sqlite3.connect(where, uri=where != ":memory:", isolation_level=None, timeout=WAIT_SECONDS)
    for name, (arguments, function) in FUNCTIONS.items():
        connection.create_function(name, arguments, function, deterministic=True)
    return connection


@contextmanager
def closing_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _remove(path: Path) -> bool:
    """Whether the cache is gone; where somebody holds it open on Windows it stays."""
    try:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError:
        return False
    return True
