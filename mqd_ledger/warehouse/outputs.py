"""Write the answer to a query for another program: CSV, JSON or Parquet.

In CSV and JSON money is decimal text, times are ISO-8601 with Z, bytes are hex; what is not there is empty in CSV and null in JSON.
A file appears whole or not at all.
"""

import csv
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TextIO

import msgspec

from mqd_ledger.errors import BadInput
from mqd_ledger.values import iso
from mqd_ledger.warehouse import duck
from mqd_ledger.warehouse.query import Result
from mqd_ledger.warehouse.whole import appearing_whole

Format = Literal["csv", "json", "parquet"]


def write_result(result: Result, out: Path | TextIO, form: Format) -> None:
    """`out` is a file to make or replace, or an open text stream (not for Parquet)."""
    if form not in {*_TEXTS, "parquet"}:
        raise BadInput(f"A result cannot be written as {form!r}; allowed are {', '.join(_TEXTS)}, parquet.")
    if isinstance(out, Path):
        try:
            with appearing_whole(out) as temporary:
                _write_file(result, temporary, form)
        except OSError as error:
            raise BadInput(f"{out} cannot be written: {error}. Give a file in a directory that exists.") from error
    elif form == "parquet":
        raise BadInput("Parquet is not text: give the name of a file to write it to.")
    else:
        _TEXTS[form](result, out)


def _write_file(result: Result, path: Path, form: Format) -> None:
    if form == "parquet":
        _parquet(result, path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        _TEXTS[form](result, file)


def _csv(result: Result, out: TextIO) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(result.columns)
    writer.writerows([_csv_cell(value) for value in row] for row in result.rows)


def _csv_cell(value: Any) -> Any:
    plain = _plain(value)
    if isinstance(plain, dict | list):
        return msgspec.json.encode(plain).decode()
    return str(plain).lower() if isinstance(plain, bool) else plain


def _json(result: Result, out: TextIO) -> None:
    """An array with an object per row, a row per line."""
    out.write("[")
    for number, row in enumerate(result.rows):
        values = dict(zip(result.columns, map(_plain, row), strict=True))
        out.write(",\n" if number else "\n")
        out.write(msgspec.json.encode(values).decode())
    out.write("\n]\n")


_TEXTS: Mapping[str, Callable[[Result, TextIO], None]] = MappingProxyType({"csv": _csv, "json": _json})


def _plain(value: Any) -> Any:
    """As a program reads it: numbers that are exact, text, true and false, lists and objects."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            return f"{value:f}"
        case datetime():
            return iso(value if value.tzinfo else value.replace(tzinfo=UTC))
        case date():
            return value.isoformat()
        case bytes():
            return value.hex()
        case list() | tuple():
            return [_plain(each) for each in value]
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case _:
            return str(value)


def _parquet(result: Result, path: Path) -> None:
    """With the types of the query; through text, which is exact for every one of them but lists and objects: those as JSON."""
    stored = [duck.name(f"column {number}") for number in range(len(result.columns))]
    casts = [
        f"{place}::{kind} as {duck.name(column)}" if _is_simple(kind) else f"{place} as {duck.name(column)}"
        for place, kind, column in zip(stored, result.types, result.columns, strict=True)
    ]
    with duck.connect() as connection:
        connection.execute(f"create table result ({', '.join(f'{place} varchar' for place in stored)})")
        appender = connection.appender("result")
        appender.append_rows([tuple(_text_cell(value) for value in row) for row in result.rows])
        appender.flush()
        connection.execute(
            f"copy (select {', '.join(casts)} from result) to {duck.text(path)} (format parquet, compression zstd)"
        )


def _is_simple(kind: str) -> bool:
    return not kind.endswith("]") and not kind.startswith(("STRUCT", "MAP", "UNION", "ENUM", "BLOB", "JSON", '"'))


def _text_cell(value: Any) -> str | None:
    plain = _csv_cell(value)
    return None if plain is None else str(plain)
