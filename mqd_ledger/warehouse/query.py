"""Answer a question in SQL over a ledger: always fresh, read-only, in a sandbox, safe while another process trades.

`events` is the union of the sealed segments and of the events since, read from the ledger in one go at each query. The tables of
projections that a query names are caught up and loaded beside it. Nothing stays open afterwards.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event, Timer
from types import MappingProxyType
from typing import Any, NamedTuple

import duckdb

from mqd_ledger.errors import BadInput
from mqd_ledger.warehouse import duck, views
from mqd_ledger.warehouse.sandbox import Query, first_sentence, read_only
from mqd_ledger.warehouse.segments import Progress, sealed
from mqd_ledger.warehouse.tail import LedgerFile

ROWS_MAX = 1_000_000
ATTEMPTS = 3
_BATCH = 10_000

# How a projection's column is stored, and what it becomes; see `projections.shape.Kind`.
_KINDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "text": ("varchar", "{}"),
        "integer": ("bigint", "{}"),
        "decimal": ("varchar", f"{{}}::{views.MONEY}"),
        "time": ("bigint", "make_timestamp({})"),
        "date": ("varchar", "{}::date"),
        "boolean": ("bigint", "{}::boolean"),
    }
)


class Result(NamedTuple):
    """Rows of a query. Times are aware UTC, money is Decimal; `types` are DuckDB's names. No two columns share a name."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def run_query(
    ledger: Path, sql: str, *, seconds: float = 60, rows_max: int = ROWS_MAX, progress: Progress | None = None
) -> Result:
    """BadInput names what is wrong with the SQL and what there is. `seconds` is for the query, not for first-time sealing."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with duck.connect() as connection:
                query = read_only(connection, sql)
                _load(connection, ledger, query, progress)
                _lock(connection)
                return _run(connection, query, seconds, rows_max)
        except duckdb.IOException as error:  # another process took a segment into a larger one meanwhile
            if attempt == ATTEMPTS:
                raise BadInput(f"The query could not be answered: {first_sentence(error)}") from error
    raise AssertionError("the last attempt returns or raises")


def views_help() -> dict[str, tuple[str, ...]]:
    """Everything that can stand behind FROM, with its columns."""
    own = {name: views.columns_of(name) for name in views.names()}
    return own | {name: tuple(table.columns) for name, table in _projection_tables().items() if name not in own}


# --- making ready --------------------------------------------------------------------------------------------------------


def _load(connection: duckdb.DuckDBPyConnection, ledger: Path, query: Query, progress: Progress | None) -> None:
    with LedgerFile(ledger) as log:
        segments = sealed(ledger, log, progress)
        connection.execute("create schema raw")  # what people see are the views
        duck.append(connection, "raw.tail", log.chunks(segments[-1].last if segments else 0))
    paths = [segment.path for segment in segments]
    connection.execute(f"create view events as {_union(paths)}")
    for statement in views.statements():
        connection.execute(statement)
    if query.tables - set(views.names()):
        _load_projections(connection, ledger, query.tables)
    connection.execute(f"set allowed_paths = {duck.files(paths)}")


def _union(paths: Sequence[Path]) -> str:
    tail = f"select {duck.TYPED} from raw.tail"
    if not paths:
        return tail
    return f"select * from read_parquet({duck.files(paths)}) union all {tail}"


def _projection_tables() -> Mapping[str, Any]:
    from projections import TABLES  # a third of the start-up, and most queries do without

    return TABLES


def _load_projections(connection: duckdb.DuckDBPyConnection, ledger: Path, mentioned: frozenset[str]) -> None:
    wanted = [name for name in _projection_tables() if name in mentioned and name not in views.names()]
    if not wanted:
        return
    from mqd_ledger.projector import Projector
    from projections import PROJECTIONS

    only = [name for name, each in PROJECTIONS.items() if any(table.name in wanted for table in each.TABLES)]
    projector = Projector(ledger, only=only)
    projector.catch_up()
    with closing(projector), closing(projector.connect()) as tables:
        for name in wanted:
            columns = _projection_tables()[name].columns
            reading = tables.execute(f"select {', '.join(map(duck.name, columns))} from {name}")
            _load_table(connection, name, columns, iter(partial(reading.fetchmany, _BATCH), []))


def _load_table(
    connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, str], batches: Iterable[list[Any]]
) -> None:
    """`columns`: name -> kind. Stored as SQLite has it, seen as what it means."""
    stored = ", ".join(f"{duck.name(column)} {_KINDS[kind][0]}" for column, kind in columns.items())
    typed = ", ".join(
        f"{_KINDS[kind][1].format(duck.name(column))} as {duck.name(column)}" for column, kind in columns.items()
    )
    connection.execute(f"create table raw.{name} ({stored})")
    appender = connection.appender(f"raw.{name}")
    for rows in batches:
        appender.append_rows(rows)
    appender.flush()
    connection.execute(f"create view {name} as select {typed} from raw.{name}")


def _lock(connection: duckdb.DuckDBPyConnection) -> None:
    """From here on a query reaches nothing but what was loaded."""
    connection.execute("set python_enable_replacements = false")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    connection.execute("begin transaction read only")


# --- running -------------------------------------------------------------------------------------------------------------


@contextmanager
def _time_limit(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    over = Event()

    def stop() -> None:
        over.set()
        connection.interrupt()

    timer = Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        if not over.is_set():
            raise KeyboardInterrupt from error
        raise BadInput(
            f"The query was stopped after {seconds:g} seconds. Ask for less (a where, a limit), or give it more time."
        ) from error
    finally:
        timer.cancel()


def _run(connection: duckdb.DuckDBPyConnection, query: Query, seconds: float, rows_max: int) -> Result:
    rows: list[tuple[Any, ...]] = []
    try:
        with _time_limit(connection, seconds):
            connection.execute(query.sql)
            described = connection.description or []
            while batch := connection.fetchmany(_BATCH):
                rows += batch
                if len(rows) > rows_max:
                    raise BadInput(f"The query gives more than {rows_max:,} rows. Add a limit, or export the ledger.")
    except duckdb.IOException:
        raise
    except duckdb.Error as error:
        raise BadInput(_explained(error, query)) from error
    types = tuple(str(column[1]) for column in described)
    return Result(_distinct([column[0] for column in described]), types, _aware(rows, types))


def _distinct(columns: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for column in columns:
        candidate, number = column, 0
        while candidate in found:
            number += 1
            candidate = f"{column}_{number}"
        found.append(candidate)
    return tuple(found)


def _aware(rows: list[tuple[Any, ...]], types: Sequence[str]) -> list[tuple[Any, ...]]:
    """Timestamps are UTC; say so."""
    places = [index for index, name in enumerate(types) if name.startswith("TIMESTAMP")]
    if not places:
        return rows
    aware = []
    for row in rows:
        values = list(row)
        for index in places:
            if isinstance(values[index], datetime):
                at: datetime = values[index]
                values[index] = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        aware.append(tuple(values))
    return aware


# --- what went wrong -----------------------------------------------------------------------------------------------------

_UNKNOWN_TABLE = re.compile(r"Table with name \S+ does not exist")
_UNKNOWN_COLUMN = re.compile(r"Referenced (column|table) .* not found|does not have a column named")


def _explained(error: duckdb.Error, query: Query) -> str:
    said = first_sentence(error)
    if _UNKNOWN_TABLE.search(said):
        return f"{said.split(' Did you mean')[0]} There are {', '.join(views_help())}."
    if _UNKNOWN_COLUMN.search(said):
        known = views_help()
        columns = [f"{name} has {', '.join(known[name])}." for name in sorted(query.tables) if name in known]
        return " ".join([said.rstrip(".") + ".", *columns])
    if isinstance(error, duckdb.OutOfMemoryException):
        return f"The query needs more than {duck.MEMORY} of memory. Ask for fewer columns or rows."
    return f"The query cannot be answered: {said}"
