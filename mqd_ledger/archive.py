"""Export a whole log to JSON Lines or Parquet, and make a ledger of such an export again, event for event and hash for hash.

A line of JSON Lines is one event: the envelope's fields in order, times as ISO-8601 UTC, `payload` the exact JSON text that was
stored, `hash` in hex. Every export and every import checks the chain as it goes. Both appear whole or not at all. An export that
was cut off at the end of a line is a shorter log with a good chain: compare the head that an import returns with the export's.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec

from mqd_ledger.chain import Head, Row, check
from mqd_ledger.errors import BadInput, ChainBroken
from mqd_ledger.store import open_ledger
from mqd_ledger.values import from_microseconds, microseconds
from mqd_ledger.warehouse import parquet
from mqd_ledger.warehouse.whole import appearing_whole

BATCH = 10_000  # events of one transaction of an import

_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _Line(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    position: int
    stream: str
    version: int
    type: str
    occurred_at: _Time
    recorded_at: _Time
    correlation: int
    causation: int
    payload: msgspec.Raw
    hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


_encode_line = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode


# --- out -----------------------------------------------------------------------------------------------------------------


def export_jsonl(ledger: Path, out: Path) -> Head:
    """Write the log to `out`, replacing it; the head of what was written."""
    return _export(ledger, out, _write_lines)


def export_parquet(ledger: Path, out: Path) -> Head:
    """The same as one Parquet file with the same columns."""
    return _export(ledger, out, parquet.write_rows)


def _export(ledger: Path, out: Path, write: Callable[[Iterable[Row], Path], None]) -> Head:
    head = Head()

    def checked(rows: Iterable[Row]) -> Iterator[Row]:
        nonlocal head
        for row in rows:
            head = check((row,), head)
            if row[8][:1] != b"{":
                raise BadInput(
                    f"Event {row[0]} ({row[3]} of stream {row[1]}) holds no JSON object: another application wrote it. "
                    "Only a copy of the whole file (`mqd-ledger backup`) keeps such events."
                )
            yield row

    with closing(open_ledger(ledger, "read")) as recorder:
        try:
            with appearing_whole(out) as temporary:
                write(checked(recorder.read()), temporary)
        except OSError as error:
            raise BadInput(
                f"{out} cannot be written: {error}. Give a file in a directory that exists and has room."
            ) from error
    return head


def _write_lines(rows: Iterable[Row], path: Path) -> None:
    with path.open("wb") as file:
        for row in rows:
            position, stream, version, kind, occurred_at, recorded_at, correlation, causation, payload, digest = row
            line = _Line(
                position,
                stream,
                version,
                kind,
                from_microseconds(occurred_at),
                from_microseconds(recorded_at),
                correlation,
                causation,
                msgspec.Raw(payload),
                digest.hex(),
            )
            file.write(_encode_line(line) + b"\n")


# --- back in -------------------------------------------------------------------------------------------------------------

Placed = tuple[int, Row]  # the line or row of the source, and the event there


def import_archive(source: Path, ledger: Path) -> Head:
    """Make a new ledger of an export. Nothing is made if one event does not fit, and nothing is ever overwritten."""
    _refuse_existing(ledger)
    part = ledger.with_name(f".{ledger.name}.{os.getpid()}.new")
    try:
        is_parquet = parquet.is_parquet(source)
    except OSError as error:
        raise BadInput(f"{source} cannot be read: {error}. Give a file that `mqd-ledger export` wrote.") from error
    placed = enumerate(parquet.read_rows(source), 1) if is_parquet else _read_lines(source)
    try:
        with closing(open_ledger(part, "create")) as recorder:
            for batch in _checked(placed, f"{source}, {'row' if is_parquet else 'line'}"):
                recorder.append(batch)
            head = recorder.head()
        if not head.position:
            raise BadInput(f"{source} holds no events. Give a file that `mqd-ledger export` wrote.")
        _refuse_existing(ledger)
        part.replace(ledger)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            part.with_name(part.name + suffix).unlink(missing_ok=True)
    return head


def _refuse_existing(ledger: Path) -> None:
    if ledger.exists():
        raise BadInput(f"{ledger} exists already, and an import never overwrites a ledger. Give the name of a new one.")
    wal = ledger.with_name(ledger.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        raise BadInput(
            f"{wal} is left from a ledger of that name and may hold its last events; SQLite would mix them into the new one. "
            "Move it away together with what is left of that ledger, or give another name."
        )


def _checked(placed: Iterable[Placed], where: str) -> Iterator[list[Row]]:
    """Batches of events whose chain holds so far."""
    waiting = iter(placed)
    head = Head()
    versions: dict[str, int] = {}
    number = 0

    def keep(batch: list[Row]) -> Iterator[Row]:
        nonlocal number
        for place, row in islice(waiting, BATCH):
            number = place
            batch.append(row)
            yield row
            _, stream, version, kind, *_ = row
            expected = versions.get(stream, 0) + 1
            if version != expected:
                raise ChainBroken(
                    f"Event {row[0]} ({kind}) is version {version} of stream {stream}, but {expected} comes next."
                )
            versions[stream] = version

    while True:
        batch: list[Row] = []
        try:
            head = check(keep(batch), head)
        except ChainBroken as error:
            raise ChainBroken(f"{where} {number}: {error}") from error
        if not batch:
            return
        yield batch


def _read_lines(source: Path) -> Iterator[Placed]:
    with source.open("rb") as file:
        for number, text in enumerate(file, 1):
            try:
                line = _decode_line(text)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise BadInput(
                    f"{source}, line {number} is not an event: {error}. A line is a JSON object with "
                    f"{', '.join(_Line.__struct_fields__)}; export the ledger again, or find out who changed the file."
                ) from error
            yield (
                number,
                (
                    line.position,
                    line.stream,
                    line.version,
                    line.type,
                    microseconds(line.occurred_at),
                    microseconds(line.recorded_at),
                    line.correlation,
                    line.causation,
                    bytes(line.payload),
                    bytes.fromhex(line.hash),
                ),
            )
