"""A whole log as one Parquet file, and back: the columns of the envelope, the payload as the exact text that was stored.

Neither way holds the log in memory: it is written in parts beside the archive, which are then made one.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from mqd_ledger.chain import Row
from mqd_ledger.errors import BadInput
from mqd_ledger.warehouse import duck
from mqd_ledger.warehouse.sandbox import first_sentence

_BATCH = 10_000
_PART = 50_000  # events in memory at once while an archive is written
_ROW_GROUP = 20_480  # of the file: what a reader has to hold
_WRITTEN = """position, stream, version, type, make_timestamptz(occurred_at) as occurred_at,
    make_timestamptz(recorded_at) as recorded_at, correlation, causation, payload, lower(hex(hash)) as hash"""
_READ = """position::bigint, stream::varchar, version::bigint, type::varchar, epoch_us(occurred_at), epoch_us(recorded_at),
    correlation::bigint, causation::bigint, encode(payload), unhex(hash)"""
COLUMNS = (
    "position",
    "stream",
    "version",
    "type",
    "occurred_at",
    "recorded_at",
    "correlation",
    "causation",
    "payload",
    "hash",
)


def is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Rows of a log, in order."""
    waiting = iter(rows)
    # On Windows DuckDB may let go of a file only a moment later; what is left is in a directory for such things.
    with (
        TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True) as folder,
        duck.connect() as connection,
    ):
        connection.execute("set threads = 1")
        parts: list[Path] = []
        while batch := [(*row[:8], row[8].decode(), row[9]) for row in islice(waiting, _PART)]:
            parts.append(Path(folder) / f"{len(parts)}.parquet")
            duck.append(connection, "part", [batch])
            _copy(connection, f"select {_WRITTEN} from part", parts[-1])
            connection.execute("drop table part")
        if not parts:
            connection.execute(f"create table part {duck.RAW}")
        _copy(connection, f"from read_parquet({duck.files(parts)})" if parts else f"select {_WRITTEN} from part", path)


def _copy(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    try:
        connection.execute(
            f"copy ({query}) to {duck.text(path)} (format parquet, compression zstd, row_group_size {_ROW_GROUP})"
        )
    except duckdb.Error as error:
        raise BadInput(f"{path} cannot be written: {first_sentence(error)}. Is the disk full?") from error


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of an archive, in its order; BadInput where it is none."""
    with duck.connect() as connection:
        connection.execute("set threads = 1")
        try:
            source = f"read_parquet({duck.files([path])})"
            found = [row[0] for row in connection.execute(f"describe from {source}").fetchall()]
            missing = [column for column in COLUMNS if column not in found]
            if missing:
                raise BadInput(
                    f"{path} is no archive of a ledger: it has no column {', '.join(missing)}. "
                    f"An archive has {', '.join(COLUMNS)}, as `mqd-ledger export` writes them."
                )
            connection.execute(f"select {_READ} from {source}")
            while batch := connection.fetchmany(_BATCH):
                yield from batch
        except duckdb.Error as error:
            raise BadInput(f"{path} cannot be read as an archive: {first_sentence(error)}") from error
