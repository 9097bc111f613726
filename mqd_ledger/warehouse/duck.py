"""DuckDB as it is used here: no extension is ever fetched, nothing is written to the working directory, times are UTC."""

from collections.abc import Iterable
from pathlib import Path

import duckdb

from mqd_ledger.warehouse.tail import EventRow

MEMORY = "2GB"

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "memory_limit": MEMORY,
    "temp_directory": "",  # what does not fit into memory fails; a cache or a query never fills the disk
}

# How the appender takes rows of the log, and how they are seen from then on.
RAW = """(position bigint, stream varchar, version bigint, type varchar, occurred_at bigint, recorded_at bigint,
    correlation bigint, causation bigint, payload varchar, hash blob)"""
TYPED = """position, stream, version, type, make_timestamp(occurred_at) as occurred_at,
    make_timestamp(recorded_at) as recorded_at, correlation, causation, payload, lower(hex(hash)) as hash"""


def connect(database: Path | None = None) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:" if database is None else str(database), config=_CONFIG)
    connection.execute("set TimeZone = 'UTC'")
    return connection


def append(connection: duckdb.DuckDBPyConnection, table: str, chunks: Iterable[list[EventRow]]) -> int:
    """Events into a table of shape `RAW`; how many there were."""
    connection.execute(f"create table {table} {RAW}")
    appender = connection.appender(table)
    count = 0
    for rows in chunks:
        appender.append_rows(rows)
        count += len(rows)
    appender.flush()
    return count


def text(value: str | Path) -> str:
    """A string as SQL writes it."""
    plain = value.as_posix() if isinstance(value, Path) else value
    return "'" + plain.replace("'", "''") + "'"


def files(paths: Iterable[Path]) -> str:
    """Files as SQL lists them. A file whose name looks like a pattern stands for itself as long as it is there."""
    return f"[{', '.join(map(text, paths))}]"


def name(value: str) -> str:
    """A column's or a table's name as SQL writes it."""
    return '"' + value.replace('"', '""') + '"'
