"""What Alpaca says, as JSON objects, read into the shapes of `base.py`. Pure, and tolerant of everything that does not matter.

A field nobody here asks for is ignored, one that is missing or null counts as not said, and a status that nobody has heard of is
kept as text with no state. What cannot be done without (an id, a symbol, a quantity) makes one object unreadable, never the list
that it stands in: `read` returns the others, and a sentence for each that it could not read.

To learn a new order status, add its row to `STATUSES`. To read another field, add it to the function of its object.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from mqd_ledger.brokers.base import BrokerAccount, BrokerClock, BrokerFill, BrokerMovement, BrokerOrder, BrokerPosition
from mqd_ledger.errors import BadInput
from mqd_ledger.values import ARITHMETIC, EPOCH, ZERO, OrderState, OrderType, Side, TimeInForce, plain

Raw = Mapping[str, Any]
T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
SHOWN_MAX = 200  # characters of an object in a message
SMALLEST, LARGEST = -12, 15  # powers of ten that a number of shares or dollars is between


class Unreadable(BadInput):
    """An object of Alpaca's without something that nothing can be done without."""


class Status(NamedTuple):
    """What one of Alpaca's order statuses means here. `ended` names the field with the time of the end, of an order that ends."""

    state: OrderState
    ended: str = ""
    is_promised: bool = False  # the order is known, but not yet in the place of the one that it replaces


_S = OrderState
STATUSES: Mapping[str, Status] = MappingProxyType(
    {
        "pending_new": Status(_S.SUBMITTED, is_promised=True),
        "pending_review": Status(_S.SUBMITTED, is_promised=True),
        "accepted": Status(_S.SUBMITTED),
        "accepted_for_bidding": Status(_S.SUBMITTED),
        "new": Status(_S.SUBMITTED),
        "held": Status(_S.SUBMITTED),
        "partially_filled": Status(_S.PARTIALLY_FILLED),
        "filled": Status(_S.FILLED, "filled_at"),
        "done_for_day": Status(_S.SUBMITTED),  # a GTC order is back in the next session
        "calculated": Status(_S.SUBMITTED),  # its settlement is being worked out; fills say how much there was
        "stopped": Status(_S.SUBMITTED),
        "suspended": Status(_S.SUBMITTED),
        "pending_cancel": Status(_S.SUBMITTED),
        "pending_replace": Status(_S.SUBMITTED),
        "canceled": Status(_S.CANCELED, "canceled_at"),
        "expired": Status(_S.EXPIRED, "expired_at"),
        "rejected": Status(_S.REJECTED, "failed_at"),
        "replaced": Status(_S.CANCELED, "replaced_at"),
    }
)
SIDES: Mapping[str, Side] = MappingProxyType(
    {"buy": Side.BUY, "sell": Side.SELL, "sell_short": Side.SELL, "buy_to_cover": Side.BUY}
)
BLOCKS = ("trading_blocked", "account_blocked", "trade_suspended_by_user")


# --- one value ---------------------------------------------------------------------------------------------------------------


def text(raw: Raw, name: str) -> str:
    """A text that has to be there."""
    value = raw.get(name)
    if not isinstance(value, str) or not value:
        raise Unreadable(f"Found {name} {value!r}; a text is needed.")
    return storable(value)


def optional_text(raw: Raw, name: str) -> str:
    value = raw.get(name)
    return storable(value) if isinstance(value, str) else ""


def storable(words: str) -> str:
    """What the log can hold: JSON may have halves of characters, of which UTF-8 knows nothing."""
    return words.encode("utf-8", "backslashreplace").decode()


def optional_number(raw: Raw, name: str) -> Decimal | None:
    """A number written as text or as a JSON number, exactly as it was written."""
    value = raw.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise Unreadable(f"Found {name} {value!r}; a number is needed.")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise Unreadable(f"Found {name} {value!r}; a number is needed.") from None
    if not number.is_finite():
        raise Unreadable(f"Found {name} {value!r}; a finite number is needed.")
    if not number:
        return ZERO
    if not SMALLEST <= number.adjusted() <= LARGEST or len(number.as_tuple().digits) > ARITHMETIC.prec:
        raise Unreadable(
            f"Found {name} {str(value)[:60]!r}, which is no number of shares or dollars; nothing is computed with it."
        )
    return number


def number(raw: Raw, name: str) -> Decimal:
    value = optional_number(raw, name)
    if value is None:
        raise Unreadable(f"Found no {name}; a number is needed.")
    return value


def positive(raw: Raw, name: str) -> Decimal:
    value = number(raw, name)
    if value <= 0:
        raise Unreadable(f"Found {name} {plain(value)}; a number above zero is needed.")
    return value


def time_of(value: object) -> datetime | None:
    """RFC 3339 as aware UTC, cut to microseconds; None for what is no time, or one that does not say where."""
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
        return at.astimezone(UTC) if at.tzinfo is not None and at.year >= EPOCH.year else None
    except (ValueError, OverflowError):
        return None


def time(raw: Raw, *names: str) -> datetime:
    """The first of some times that is there."""
    for name in names:
        at = time_of(raw.get(name))
        if at is not None:
            return at
    raise Unreadable(f"Found no usable {' or '.join(names)}; a time with its offset is needed.")


def _one_of(raw: Raw, name: str, enum: type[E]) -> E:
    value = raw.get(name)
    try:
        return enum(str(value).upper())
    except ValueError:
        raise Unreadable(f"Found {name} {value!r}; known are {', '.join(enum).lower()}.") from None


def _side(raw: Raw) -> Side:
    side = SIDES.get(str(raw.get("side")).lower())
    if side is None:
        raise Unreadable(f"Found side {raw.get('side')!r}; known are {', '.join(SIDES)}.")
    return side


# --- one object --------------------------------------------------------------------------------------------------------------


def state_of(status: str, filled_quantity: Decimal) -> OrderState | None:
    """None for a status that nobody here has heard of."""
    row = STATUSES.get(status)
    if row is None:
        return None
    is_part = row.state is OrderState.SUBMITTED and filled_quantity > 0
    return OrderState.PARTIALLY_FILLED if is_part else row.state


def order_of(raw: Raw) -> BrokerOrder:
    filled = optional_number(raw, "filled_qty") or ZERO
    status = optional_text(raw, "status")
    updated_at = time(raw, "updated_at", "submitted_at", "created_at")
    return BrokerOrder(
        text(raw, "id"),
        text(raw, "client_order_id"),
        text(raw, "symbol"),
        _side(raw),
        _one_of(raw, "type" if raw.get("type") else "order_type", OrderType),
        _one_of(raw, "time_in_force", TimeInForce),
        optional_number(raw, "qty"),
        optional_number(raw, "notional"),
        optional_number(raw, "limit_price"),
        optional_number(raw, "stop_price"),
        status,
        state_of(status, filled),
        filled,
        optional_number(raw, "filled_avg_price"),
        time_of(raw.get("created_at")) or updated_at,
        updated_at,
        optional_text(raw, "reject_reason") or optional_text(raw, "reason"),
        optional_text(raw, "replaces"),
        optional_text(raw, "replaced_by"),
        raw,
    )


def account_of(raw: Raw, environment: str) -> BrokerAccount:
    status = optional_text(raw, "status")
    blocks = [name for name in BLOCKS if raw.get(name) is True]
    if status.upper() != "ACTIVE":
        blocks.append(f"status {status or 'missing'}")
    return BrokerAccount(
        text(raw, "account_number"),
        environment,
        number(raw, "cash"),
        number(raw, "equity" if raw.get("equity") is not None else "portfolio_value"),
        number(raw, "buying_power"),
        bool(blocks),
        ", ".join(blocks),
    )


def position_of(raw: Raw) -> BrokerPosition:
    """The side decides about the sign: a short's quantity has been seen with and without its minus."""
    quantity = number(raw, "qty")
    side = optional_text(raw, "side").lower()
    if side in ("long", "short"):
        quantity = abs(quantity) if side == "long" else -abs(quantity)
    return BrokerPosition(
        text(raw, "symbol"), quantity, number(raw, "avg_entry_price"), optional_number(raw, "current_price")
    )


def fill_of(raw: Raw) -> BrokerFill:
    """Of an activity's id only what follows the local time is an identity. The time in it is New York's and not looked at."""
    return BrokerFill(
        text(raw, "id").rpartition("::")[2],
        text(raw, "order_id"),
        text(raw, "symbol"),
        _side(raw),
        positive(raw, "qty"),
        positive(raw, "price"),
        positive(raw, "cum_qty"),
        time(raw, "transaction_time"),
        raw,
    )


def movement_of(raw: Raw) -> BrokerMovement:
    """An activity that is no trade. Most of them have only a date: then it is its midnight, UTC."""
    at = time_of(raw.get("transaction_time")) or time_of(raw.get("created_at")) or _day(raw)
    return BrokerMovement(
        text(raw, "id"),
        text(raw, "activity_type"),
        optional_text(raw, "symbol"),
        optional_number(raw, "net_amount") or ZERO,
        optional_number(raw, "qty") or ZERO,
        at,
        optional_text(raw, "description"),
    )


def _day(raw: Raw) -> datetime:
    try:
        return datetime.fromisoformat(text(raw, "date")[:10]).replace(tzinfo=UTC)
    except ValueError:
        raise Unreadable(f"Found date {raw.get('date')!r}; a date such as 2026-01-05 is needed.") from None


def clock_of(raw: Raw) -> BrokerClock:
    is_open = raw.get("is_open")
    if not isinstance(is_open, bool):
        raise Unreadable(f"Found is_open {is_open!r}; true or false is needed.")
    return BrokerClock(time(raw, "timestamp"), is_open, time(raw, "next_open"), time(raw, "next_close"))


# --- many objects ------------------------------------------------------------------------------------------------------------


class Read(NamedTuple, Generic[T]):
    """What could be read of a list, and a sentence for each object that could not."""

    items: tuple[T, ...]
    problems: tuple[str, ...]


def read(rows: object, what: str, one: Callable[[Raw], T]) -> Read[T]:
    """A list of objects, one by one; `what` names one of them for a person."""
    if not isinstance(rows, list | tuple):
        return Read((), (f"Instead of a list of {what}s Alpaca sent {shown(rows)}.",))
    items: list[T] = []
    problems: list[str] = []
    for row in rows:
        try:
            items.append(one(row) if isinstance(row, Mapping) else _no_object(row))
        except Unreadable as problem:
            problems.append(f"Unreadable {what}: {problem} It was {shown(row)}.")
    return Read(tuple(items), tuple(problems))


def _no_object(row: object) -> Any:
    raise Unreadable(f"Found {type(row).__name__}; an object is needed.")


def json_text(raw: object) -> str:
    """As it came, or as near to it as can be written."""
    return storable(json.dumps(raw, default=str, ensure_ascii=False))


def shown(raw: object) -> str:
    """An object as a message shows it."""
    whole = json_text(raw)
    return whole if len(whole) <= SHOWN_MAX else f"{whole[:SHOWN_MAX]}…"


def in_order(fills: Iterable[BrokerFill]) -> tuple[BrokerFill, ...]:
    """The earliest first, but those of one order by their cumulative quantity: within a millisecond their times do not tell."""
    latest: dict[str, datetime] = {}
    keyed: list[tuple[datetime, str, Decimal, str, BrokerFill]] = []
    for fill in sorted(fills, key=lambda fill: (fill.broker_order_id, fill.cumulative_quantity, fill.execution_id)):
        order = fill.broker_order_id
        at = latest[order] = max(fill.occurred_at, latest.get(order, fill.occurred_at))
        keyed.append((at, order, fill.cumulative_quantity, fill.execution_id, fill))
    keyed.sort(key=lambda row: row[:4])
    return tuple(row[4] for row in keyed)
