"""How the tables are asked: which there are, in which order their rows come, and what their values mean."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import msgspec

from mqd_ledger.errors import BadInput
from mqd_ledger.values import from_microseconds
from projections import PROJECTIONS, TABLES
from projections.shape import Kind, Projection, Table

_TYPED: Mapping[Kind, Callable[[Any], Any]] = MappingProxyType(
    {
        Kind.TEXT: str,
        Kind.INTEGER: int,
        Kind.DECIMAL: Decimal,
        Kind.TIME: from_microseconds,
        Kind.DATE: date.fromisoformat,
        Kind.BOOLEAN: bool,
    }
)


def projections_named(only: Sequence[str] | None) -> tuple[Projection, ...]:
    unknown = sorted(set(only or ()) - set(PROJECTIONS))
    if unknown:
        raise BadInput(f"There is no projection {', '.join(unknown)}. There are {', '.join(PROJECTIONS)}.")
    return tuple(each for name, each in PROJECTIONS.items() if only is None or name in only)


def table_named(name: str) -> Table:
    table = TABLES.get(name)
    if table is None:
        raise BadInput(f"There is no projection table {name!r}. There are {', '.join(TABLES)}.")
    return table


def select(table: Table, order_by: str | None = None) -> str:
    orders = [part.split() for part in order_by.split(",")] if order_by else [[column] for column in table.key]
    for order in orders:
        if not order or order[0] not in table.columns or order[1:] not in ([], ["asc"], ["desc"]):
            raise BadInput(
                f"{table.name} cannot be ordered by {' '.join(order)!r}: give columns of it, each with or without "
                f"asc or desc. It has {', '.join(table.columns)}."
            )
    ordering = ", ".join(" ".join(order) for order in orders)
    return " ".join(("select", ", ".join(table.columns), "from", table.name, "order by", ordering))


def typed(table: Table, rows: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Rows as stored -> Decimal, datetime, date, bool by column name."""
    read = [(name, _TYPED[kind]) for name, kind in table.columns.items()]
    return [
        {name: None if value is None else to_type(value) for (name, to_type), value in zip(read, row, strict=True)}
        for row in rows
    ]


def fingerprint(rows: Iterable[tuple[Any, ...]]) -> str:
    """SHA-256 of rows as stored, in the order given."""
    digest = sha256()
    for row in rows:
        digest.update(msgspec.json.encode(row) + b"\n")
    return digest.hexdigest()
