"""Read and write bars in Parquet, with DuckDB as the one that knows the format; nothing else of feeds imports it.

DuckDB turns every column into text as it reads (a double into the shortest text that means it, a decimal exactly),
so that rows of Parquet and of CSV go through the same tests and give the same bars. Results are fetched a few
thousand at a time.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import NamedTuple

import duckdb

from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.rows import Block, Item, Layout, read_rows
from mqd_ledger.values import Bar, microseconds, plain

BATCH = 4096
# No extension is ever fetched; insertion order is row order; a sort that outgrows the memory goes to disk.
SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "preserve_insertion_order": "true",
    "memory_limit": "512MB",
    "threads": "2",
    "temp_directory": f"{gettempdir()}/mqd-ledger-bars",  # made when needed; the default is a folder in the user's own
}


class Table(NamedTuple):
    path: Path
    names: list[str]
    texts: list[str]  # SQL that gives each column as text
    orders: list[str]  # SQL that gives each column in its natural order


def _source(path: Path) -> str:
    """A file's name as SQL, never as a pattern that may match others."""
    name = re.sub(r"([*?\[])", r"[\1]", path.as_posix()).replace("'", "''")
    return f"read_parquet('{name}', file_row_number = true)"


def _connect(database: str = ":memory:") -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(database, config=SETTINGS)
    connection.execute("set TimeZone = 'UTC'")
    return connection


def _sql_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _as_text(name: str, kind: str) -> str:
    column = _sql_name(name)
    text = f"cast({column} as varchar)"
    if kind == "TIMESTAMP WITH TIME ZONE":  # as "2024-01-17 14:30:00Z"
        text = f"cast({column} at time zone 'UTC' as varchar) || 'Z'"
    elif kind.startswith("TIMESTAMP"):
        text = f"cast(cast({column} as timestamp) as varchar)"
    return f"coalesce({text}, '')"


def look(path: Path) -> Table:
    try:
        with closing(_connect()) as connection:
            rows = connection.execute(f"describe select * exclude (file_row_number) from {_source(path)}").fetchall()
    except duckdb.Error as problem:
        raise BadInput(f"{path} cannot be read as Parquet: {_first_line(problem)}.") from problem
    names, kinds = [row[0] for row in rows], [row[1] for row in rows]
    texts = [_as_text(name, kind) for name, kind in zip(names, kinds, strict=True)]
    orders = [
        f"try_cast({_sql_name(name)} as timestamptz)" if kind == "VARCHAR" else _sql_name(name)
        for name, kind in zip(names, kinds, strict=True)
    ]
    return Table(path, names, texts, orders)


def _first_line(problem: Exception) -> str:
    return str(problem).strip().splitlines()[0].rstrip(".")


def _fetch(table: Table, query: str) -> Iterator[list[tuple[str, ...]]]:
    try:
        with closing(_connect()) as connection:
            result = connection.execute(query)
            while batch := result.fetchmany(BATCH):
                yield batch
    except duckdb.Error as problem:
        raise BadInput(f"{table.path} cannot be read as Parquet: {_first_line(problem)}.") from problem


def first_rows(table: Table, count: int) -> list[tuple[str, ...]]:
    query = f"select {', '.join(table.texts)} from {_source(table.path)} limit {count}"
    return [row for batch in _fetch(table, query) for row in batch]


def survey(table: Table, symbol: int, time: int) -> tuple[tuple[str, ...], bool]:
    """The file's symbols, and whether its rows are in order of time and symbol already."""
    name, at, source = _sql_name(table.names[symbol]), table.orders[time], _source(table.path)
    query = f"select distinct trim({name}) from {source} where trim({name}) <> '' order by 1"
    symbols = tuple(str(row[0]) for batch in _fetch(table, query) for row in batch)
    if len(symbols) < 2:
        return symbols, True
    query = (
        f"select count(*) from (select {at} as start_at, {name} as symbol, lag({at}) over () as start_before, "
        f"lag({name}) over () as symbol_before from {source}) "
        "where start_at is null or start_at < start_before or (start_at = start_before and symbol < symbol_before)"
    )
    [[(disordered,)]] = _fetch(table, query)
    return symbols, not disordered


def stream(table: Table, layout: Layout, order: tuple[int, int] | None) -> Iterator[Item]:
    """Every item of the file in order of time and symbol. `order` has the columns to sort by, if it is not so already.

    A row that goes back in time keeps its place behind the latest of its symbol, so that it is found out of order too.
    """
    columns = ", ".join(table.texts)
    if order is None:
        return read_rows(_blocks(_fetch(table, f"select {columns} from {_source(table.path)}")), layout)
    at, symbol = table.orders[order[0]], _sql_name(table.names[order[1]])
    query = (
        f"select file_row_number + 1, {columns} from (select *, max({at}) over (partition by {symbol} "
        f"order by file_row_number rows unbounded preceding) as latest_at from {_source(table.path)}) "
        f"order by latest_at nulls first, {symbol}, file_row_number"
    )
    return read_rows(_numbered_blocks(_fetch(table, query)), layout)


def _raw(_number: int, row: Sequence[str]) -> str:
    return ",".join(row)


def _blocks(batches: Iterable[Sequence[tuple[str, ...]]]) -> Iterator[Block]:
    number = 1
    for batch in batches:
        yield Block(range(number, number + len(batch)), batch, _raw)
        number += len(batch)


def _numbered_blocks(batches: Iterable[Sequence[tuple[str, ...]]]) -> Iterator[Block]:
    """Rows that begin with their number in the file."""
    for batch in batches:
        yield Block([int(row[0]) for row in batch], [row[1:] for row in batch], _raw)


def write(path: Path, bars: Iterable[Bar]) -> int:
    """Prices as DECIMAL(18,9), or with all 18 decimals if one of them needs more than nine."""
    rows = iter(bars)
    with TemporaryDirectory(prefix="mqd-bars-") as folder, closing(_connect(f"{folder}/bars.duckdb")) as connection:
        connection.execute(
            "create table bars (symbol varchar, interval varchar, start_us bigint, open varchar, high varchar, "
            "low varchar, close varchar, volume bigint, provider varchar)"
        )
        appender = connection.appender("bars")
        while batch := [_row(bar) for bar in islice(rows, BATCH)]:
            appender.append_rows(batch)
        appender.flush()
        prices = ("open", "high", "low", "close")
        decimals = ", ".join(f"max(length(split_part({name}, '.', 2)))" for name in prices)
        [(finest, written)] = connection.execute(f"select greatest({decimals}), count(*) from bars").fetchall()
        kind = "decimal(18, 9)" if finest <= 9 else "decimal(27, 18)"
        casts = ", ".join(f"cast({name} as {kind}) as {name}" for name in prices)
        target = path.as_posix().replace("'", "''")
        connection.execute(
            f"copy (select symbol, interval, make_timestamptz(start_us) as timestamp, {casts}, volume, provider "
            f"from bars) to '{target}' (format parquet, compression zstd)"
        )
    return int(written)


def _row(bar: Bar) -> tuple[str, str, int, str, str, str, str, int, str]:
    prices = plain(bar.open), plain(bar.high), plain(bar.low), plain(bar.close)
    return bar.symbol, bar.interval, microseconds(bar.start_at), *prices, bar.volume, bar.provider
