"""What a projection is: tables as data, and a pure function from one event to the SQL that takes it in.

A projection never decides and never raises on what it reads: it has happened. It yields statements; `mqd_ledger/projector.py`
runs them, once per event, together with the place in the log up to which it has read. Amounts are kept as decimal text and
added by the exact functions of `FUNCTIONS`, because SQL's own sum would make floats of them.
"""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from mqd_ledger.events import Event
from mqd_ledger.orders import TRANSITIONS, Trigger
from mqd_ledger.values import QUANTITY_STEP, ZERO, OrderState, microseconds, plain
from projections.account import Account

Statement = tuple[str, tuple[str | int | None, ...]]


class Kind(StrEnum):
    """How a column's value is to be read, whatever SQLite stores."""

    TEXT = "text"
    INTEGER = "integer"
    DECIMAL = "decimal"  # stored as text without exponent
    TIME = "time"  # stored as microseconds since 1970 UTC
    DATE = "date"  # stored as ISO text
    BOOLEAN = "boolean"  # stored as 0 and 1


class Table(NamedTuple):
    """One table. `key` is its primary key and the order in which its rows are read. A table that is not `public` only helps."""

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, Kind]
    public: bool = True
    indexes: tuple[str, ...] = ()

    @property
    def create(self) -> tuple[str, ...]:
        """What makes the table."""
        stored = {Kind.INTEGER: "integer", Kind.TIME: "integer", Kind.BOOLEAN: "integer"}
        columns = [f"{name} {stored.get(kind, 'text')}" for name, kind in self.columns.items()]
        key = f"primary key ({', '.join(self.key)})"
        return (
            f"create table {self.name} ({', '.join((*columns, key))}) without rowid",
            *(f"create index {self.name}_{column} on {self.name} ({column})" for column in self.indexes),
        )

    @property
    def insert(self) -> str:
        """A row in the order of the columns; one that is there already is left alone."""
        marks = ", ".join("?" * len(self.columns))
        return " ".join(("insert or ignore into", self.name, "(", ", ".join(self.columns), ") values (", marks, ")"))


class Meta(NamedTuple):
    """What is known of an event besides itself.

    `trade_date` is the trading day on which it happened; `day` is the one in which we were when we learned it, as the risk gate
    counts: they differ for what is reported late. `account` stands after the event.
    """

    position: int
    stream: str
    recorded_at: int  # microseconds
    correlation: int
    causation: int
    trade_date: str
    day: str
    account: Account


class DayClosed(Event, frozen=True, gc=False):
    """Never in the log: the reader's word that a trading day is over, or how it stands at the end of what there is to read."""

    day: str


class Projection(Protocol):
    """A module of this package. A new VERSION makes it build itself anew from the log."""

    @property
    def NAME(self) -> str: ...  # noqa: N802 - it is a module's constant
    @property
    def VERSION(self) -> int: ...  # noqa: N802
    @property
    def READS(self) -> tuple[type[Event], ...]: ...  # noqa: N802
    @property
    def TABLES(self) -> tuple[Table, ...]: ...  # noqa: N802
    @property
    def apply(self) -> Callable[[Any, Meta], Iterator[Statement]]: ...


# --- values on their way into a table ---------------------------------------------------------------------------------


def amount(number: Decimal) -> str:
    """The one text of a number: no exponent, no trailing zeros, no minus before zero."""
    return plain(number) if number else "0"


def amount_or_none(number: Decimal | None) -> str | None:
    return None if number is None else amount(number)


def ratio(number: Decimal) -> str:
    """What a division gives, to 9 decimals."""
    return amount(number.quantize(QUANTITY_STEP))


at = microseconds


# --- what SQL cannot do exactly by itself -----------------------------------------------------------------------------


def decimal_add(left: str, right: str) -> str:
    return amount(Decimal(left) + Decimal(right))


def decimal_ratio(numerator: str, denominator: str) -> str | None:
    """NULL where the denominator is zero."""
    divisor = Decimal(denominator)
    return ratio(Decimal(numerator) / divisor) if divisor else None


def decimal_left(whole: str | None, part: str) -> str:
    """What is missing to the whole, never below zero; zero where the whole is not known."""
    return "0" if whole is None else amount(max(ZERO, Decimal(whole) - Decimal(part)))


def order_state(state: str, trigger: str) -> str:
    """The state after a trigger by the table of transitions. What the table does not list changes nothing."""
    row = TRANSITIONS.get((OrderState(state), Trigger(trigger)))
    return state if row is None else str(row.to)


def order_anomaly(state: str, trigger: str) -> str | None:
    row = TRANSITIONS.get((OrderState(state), Trigger(trigger)))
    return None if row is None or row.anomaly is None else str(row.anomaly)


FUNCTIONS: Mapping[str, tuple[int, Callable[..., str | None]]] = MappingProxyType(
    {
        "decimal_add": (2, decimal_add),
        "decimal_ratio": (2, decimal_ratio),
        "decimal_left": (2, decimal_left),
        "order_state": (2, order_state),
        "order_anomaly": (2, order_anomaly),
    }
)
