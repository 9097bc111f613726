"""Read the ledger for queries: the newest events, always fresh, in short reads that the writer never waits for.

Only the standard library's `sqlite3` touches the file. A second copy of SQLite in the writer's process, or a plain `open()`, would
drop that process's locks on it, and with them commits that were acknowledged.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mqd_ledger.errors import LedgerUnreadable

CHUNK = 10_000  # rows of one short read
WAIT_SECONDS = 60

# position, stream, version, type, occurred_at, recorded_at, correlation, causation, payload, hash; times in microseconds.
EventRow = tuple[int, str, int, str, int, int, int, int, str, bytes]

# Bytes that are no text were written by another application on the same recorders; JSON shows them in hex.
_ROWS = f"""
    select position, streams.name, version, types.name, occurred_at, recorded_at, correlation, causation,
        case typeof(payload) when 'text' then payload else json_quote(hex(payload)) end, hash
    from events cross join streams on streams.id = events.stream cross join types on types.id = events.type
    where position > ? and position <= ? order by position limit {CHUNK}"""
_NO_END = 2**63 - 1


class LedgerFile:
    """A ledger opened only to be read. Between two reads no transaction is open, so that the writer's WAL can be emptied."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise LedgerUnreadable(
                f"There is no ledger {path}. Give the path of one, or make one with `mqd-ledger init`."
            )
        with self._readable():
            self._connection = self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = self._open("ro")
        try:
            connection.execute("select 1 from events limit 1").fetchall()  # opening alone reads nothing
        except sqlite3.Error as error:
            connection.close()
            # Where the directory is read-only SQLite has no place for the WAL's index. Without a WAL nobody writes, and
            # none is needed.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN or self._wal.exists():
                raise
            return self._open("ro&immutable=1")
        return connection

    def _open(self, mode: str) -> sqlite3.Connection:
        uri = self._path.absolute().as_uri()
        if not uri.startswith("file:///"):
            uri = uri.replace("file://", "file:////", 1)  # \\server\share
        return sqlite3.connect(f"{uri}?mode={mode}", uri=True, isolation_level=None, timeout=WAIT_SECONDS)

    @property
    def _wal(self) -> Path:
        return self._path.with_name(self._path.name + "-wal")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerUnreadable(
                f"The ledger {self._path} cannot be read: {error}. It has to be a ledger file made by mqd-ledger; check the "
                "path, or restore the file from a backup."
            ) from error

    def _all(self, sql: str, *parameters: int) -> list[Any]:
        with self._readable():
            return self._connection.execute(sql, parameters).fetchall()

    def last_position(self) -> int:
        return int(self._all("select coalesce(max(position), 0) from events")[0][0])

    def hash_at(self, position: int) -> str:
        """In hex; "" where the log does not reach so far."""
        rows = self._all("select hash from events where position = ?", position)
        return bytes(rows[0][0]).hex() if rows else ""

    def chunks(self, after: int = 0, until: int = _NO_END) -> Iterator[list[EventRow]]:
        """Events `after` < position <= `until` in order, a short read each; without `until` to the end as it is then."""
        while after < until:
            rows: list[EventRow] = self._all(_ROWS, after, until)
            if rows:
                yield rows
                after = rows[-1][0]
            if len(rows) < CHUNK:
                return

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
