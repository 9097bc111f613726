"""From rows of the log to the statements of every projection: decode, keep the account, hand each event to who reads it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mqd_ledger import events as e
from mqd_ledger.envelope import DECODERS, decode
from mqd_ledger.values import Anomaly, from_microseconds
from projections.account import BAR, Account, current_payload
from projections.shape import DayClosed, Meta, Projection, Statement

# position, stream, type, occurred_at, recorded_at, correlation, causation, payload
LogRow = tuple[int, str, str, int, int, int, int, str | bytes]

Apply = Callable[[Any, Meta], Iterator[Statement]]

# Bars are told apart by their stored name, so that most are never decoded.
_BARS = frozenset(name for name in DECODERS if name == BAR or name.startswith("BarClosed."))
_BUST = e.STORED_NAME[e.ExecutionBusted]


def readers(projections: Sequence[Projection]) -> Mapping[type[e.Event], tuple[Apply, ...]]:
    """Who reads which class of event."""
    classes = dict.fromkeys(cls for projection in projections for cls in projection.READS)
    return {cls: tuple(each.apply for each in projections if cls in each.READS) for cls in classes}


def settled(rows: Sequence[LogRow]) -> Sequence[LogRow]:
    """Rows without a bust at their end: whether it undid a booked execution is said by the event after it."""
    return rows[:-1] if rows and rows[-1][2] == _BUST else rows


def statements(
    rows: Sequence[LogRow], account: Account, reads: Mapping[type[e.Event], tuple[Apply, ...]]
) -> Iterator[Statement]:
    """What `rows` (settled, following on `account`) change in the tables; `account` stands after them in the end."""
    symbols: dict[str, str] = {}
    for index, row in enumerate(rows):
        position, stream, name, occurred_at, recorded_at, correlation, causation, payload = row
        if occurred_at >= account.day_ends_at:
            yield from _day_closed(account, reads)
            account.start_day(occurred_at)
        elif occurred_at > account.last_at:
            account.last_at = occurred_at
        account.position = position
        if name in _BARS:
            symbol = symbols.get(stream)
            if symbol is None:
                symbol = symbols[stream] = stream.removeprefix("bars-").rpartition("-")[0]
            account.bar(symbol, stream, occurred_at, payload if name == BAR else current_payload(name, payload))
            continue
        event = decode(name, payload)
        if isinstance(event, e.ExecutionBusted) and _never_booked(rows[index + 1]):
            continue  # there is nothing to undo
        account.take(event)
        applies = reads.get(type(event))
        if applies:
            trade_date = account.trade_date(occurred_at)
            meta = Meta(position, stream, recorded_at, correlation, causation, trade_date, account.day, account)
            for apply in applies:
                yield from apply(event, meta)
    yield from _day_closed(account, reads)


def _never_booked(following: LogRow) -> bool:
    """A bust of an execution that we never heard of is followed by that anomaly, and books nothing."""
    event = decode(following[2], following[7])
    return isinstance(event, e.OrderAnomalyFound) and event.anomaly is Anomaly.UNKNOWN_EXECUTION


def _day_closed(account: Account, reads: Mapping[type[e.Event], tuple[Apply, ...]]) -> Iterator[Statement]:
    if not account.day:
        return
    event = DayClosed(from_microseconds(account.last_at), account.day)
    meta = Meta(account.position, "", account.last_at, 0, 0, account.day, account.day, account)
    for apply in reads.get(DayClosed, ()):
        yield from apply(event, meta)
