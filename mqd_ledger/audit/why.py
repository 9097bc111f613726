"""Why an order was sent, or was not: the causal chain from bar to signal to every risk check to fills to profit."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mqd_ledger import events as e
from mqd_ledger.engine import Recorded
from mqd_ledger.envelope import decode, stored_names
from mqd_ledger.errors import BadInput
from mqd_ledger.log import LogReader
from mqd_ledger.values import LotCause, from_microseconds, plain


class Step(NamedTuple):
    """One event of the story: where it stands, when it happened, what it says, and its particulars."""

    position: int
    at: datetime
    event: str
    text: str
    details: tuple[tuple[str, str], ...]


class Explanation(NamedTuple):
    client_order_id: str
    steps: tuple[Step, ...]


def explain(ledger: Path, order: str) -> Explanation:
    """The story of an order, given by its client_order_id or the end of it."""
    with LogReader.open(ledger) as log:
        client_order_id = _find(log, order, ledger)
        story = {recorded.position: recorded for recorded in _story(log, client_order_id)}
    return Explanation(client_order_id, tuple(_step(story[position]) for position in sorted(story)))


def _story(log: LogReader, client_order_id: str) -> Iterator[Recorded]:
    """What led to the order, its own life, its books; of a replacement, first the same of the order that it replaced."""
    own = _stream(log, f"order-{client_order_id}")
    if not own or not isinstance(own[0].event, e.OrderRequested | e.OrderAdopted):
        for replaced in log.replay(types=stored_names(e.OrderReplaced)):
            if isinstance(replaced.event, e.OrderReplaced) and replaced.event.replacement_id == client_order_id:
                yield from _story(log, replaced.event.client_order_id)
    if own:
        yield from _causes(log, own[0])
        yield from own
        yield from _books(log, own)


def _find(log: LogReader, order: str, ledger: Path) -> str:
    if log.stream(f"order-{order}"):
        return order
    born = log.replay(types=stored_names(e.OrderRequested, e.OrderAdopted, e.OrderReplaced))
    names = [
        event.replacement_id if isinstance(event, e.OrderReplaced) else event.client_order_id
        for event in (recorded.event for recorded in born)
        if isinstance(event, e.OrderEvent)
    ]
    ending = [name for name in names if name.endswith(order)]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise BadInput(f"{len(ending)} orders end in {order!r}: {', '.join(ending[:5])}… Give more of the id.")
    known = f"It holds {len(names)} orders, {names[0]} to {names[-1]}" if names else "It holds no order yet"
    raise BadInput(f"There is no order {order!r} in {ledger}. {known}; `mqd-ledger orders` lists them.")


def _stream(log: LogReader, name: str) -> list[Recorded]:
    return [
        Recorded(row[0], from_microseconds(row[5]), row[6], row[7], decode(row[3], row[8])) for row in log.stream(name)
    ]


def _causes(log: LogReader, recorded: Recorded) -> Iterator[Recorded]:
    """Back along the causation to the input that began it."""
    while recorded.causation:
        recorded = next(log.replay(after=recorded.causation - 1, upto=recorded.causation))
        yield recorded


def _books(log: LogReader, own: list[Recorded]) -> Iterator[Recorded]:
    """The lots that the order's executions opened and closed, and what later became of those it opened."""
    fills = [recorded.event for recorded in own if isinstance(recorded.event, e.OrderFilled | e.ExecutionCorrected)]
    if not fills:
        return
    executions = {fill.execution_id for fill in fills}
    lots = set(executions)
    parted = ""  # the adjustment that puts a lot of ours into another
    for recorded in _stream(log, f"lots-{fills[0].symbol}"):
        entry = recorded.event
        assert isinstance(entry, e.LotEvent)
        if isinstance(entry, e.LotOpened) and entry.execution_id == parted and entry.lot_id != parted:
            lots.add(entry.lot_id)
        if entry.execution_id not in executions and entry.lot_id not in lots:
            continue
        parted = entry.execution_id if isinstance(entry, e.LotClosed) and entry.cause is LotCause.MERGE else ""
        lead = next(log.replay(after=recorded.causation - 1, upto=recorded.causation), None)
        if lead is not None and isinstance(lead.event, e.DifferenceFound | e.AdjustmentBooked):
            yield lead
        yield recorded


def _money(value: Any) -> str:
    return "" if value is None else plain(value)


def _checks(event: e.OrderApproved | e.OrderDenied) -> tuple[tuple[str, str], ...]:
    return tuple(
        (
            f"{'pass' if check.passed else 'FAIL'} {check.name}",
            ", ".join(f"{name} {value}" for name, value in check.inputs.items())
            + (f" (allowed {check.allowed})" if check.allowed is not None else ""),
        )
        for check in event.checks
    )


def _size(event: e.OrderRequested | e.OrderAdopted) -> str:
    return f"{plain(event.quantity)} shares of" if event.quantity is not None else f"${_money(event.notional)} of"


def _lot_closed(event: e.LotClosed) -> str:
    parts = {
        LotCause.TRADE: "closed",
        LotCause.MERGE: "put into another lot",
        LotCause.BUST: "undone",
        LotCause.ADJUSTMENT: "taken out by an adjustment",
    }
    what = f"{_money(event.quantity)} of lot {event.lot_id} {parts[event.cause]} at {_money(event.price)}"
    return f"{what}: realized P&L {_money(event.realized_pnl)}"


def _replacement(event: e.ReplaceRequested) -> str:
    changes = {"quantity": event.quantity, "limit": event.limit_price, "stop": event.stop_price}
    said = [f"{name} {plain(value)}" for name, value in changes.items() if value is not None]
    said += [event.time_in_force] if event.time_in_force is not None else []
    return f"to be replaced by {event.replacement_id} with {', '.join(said) or 'nothing else'}: {event.reason}"


def _replaced(event: e.OrderReplaced) -> str:
    prices = {"limit": event.limit_price, "stop": event.stop_price}
    said = "".join(f", {name} {plain(value)}" for name, value in prices.items() if value is not None)
    order = f"{plain(event.quantity)} shares{said} {event.time_in_force}"
    return f"replaced by {event.replacement_id}: {order}; the broker has it as {event.broker_order_id}"


def _adjustment(event: e.AdjustmentBooked) -> str:
    shares = f"{_money(event.quantity)} shares of {event.symbol} at {_money(event.price)}" if event.quantity else ""
    cash = f"{_money(event.amount)} of cash" if event.amount else ""
    booked = " and ".join(part for part in (shares, cash) if part) or "nothing"
    return f"{event.operator} booked {booked} for {event.difference_id}: {event.reason}"


# What each event says in one sentence; one that has no row here says its fields.
TEXTS: Mapping[type[e.Event], Callable[[Any], str]] = MappingProxyType(
    {
        e.BarClosed: lambda v: (
            f"{v.bar.symbol} closed at {_money(v.bar.close)} (open {_money(v.bar.open)}, high {_money(v.bar.high)}, "
            f"low {_money(v.bar.low)}, volume {v.bar.volume}, {v.bar.provider})"
        ),
        e.SignalRaised: lambda v: f"{v.strategy} wants {v.symbol} {v.direction}: {v.reason}",
        e.OrderRequested: lambda v: f"{v.side} {_size(v)} {v.symbol}, {v.order_type} {v.time_in_force}",
        e.OrderApproved: lambda v: f"the risk gate passed all {len(v.checks)} checks",
        e.OrderDenied: lambda v: f"the risk gate denied it: {'; '.join(v.reasons)}",
        e.PositionCloseRequested: lambda v: f"{v.symbol} closed because {v.reason} ({v.operator})",
        e.OrderSent: lambda v: (
            f"attempt {v.attempt} left for the broker"
            + (
                ": the one before never arrived, so the same order goes again under the same id"
                if v.attempt > 1
                else ""
            )
        ),
        e.OrderSubmitted: lambda v: f"the broker took it as {v.broker_order_id}",
        e.OrderRejected: lambda v: f"the broker rejected it: {v.reason}",
        e.OrderFilled: lambda v: (
            f"{_money(v.last_quantity)} filled at {_money(v.last_price)}, commission {_money(v.commission)}, "
            f"{_money(v.leaves_quantity)} left"
        ),
        e.CancelRequested: lambda v: f"cancel requested: {v.reason}",
        e.OrderCanceled: lambda v: f"canceled: {v.reason}",
        e.CancelRejected: lambda v: f"the cancel was rejected: {v.reason}",
        e.OrderExpired: lambda v: f"expired: {v.reason}",
        e.OrderAnomalyFound: lambda v: f"{v.anomaly}: {v.detail}",
        e.LotOpened: lambda v: f"lot of {_money(v.quantity)} opened at {_money(v.cost_price)}",
        e.LotClosed: _lot_closed,
        e.OrderAdopted: lambda v: (
            f"not sent from here: {v.side} {_size(v)} {v.symbol}, {v.order_type} {v.time_in_force}, {v.broker_order_id} there"
        ),
        e.ReplaceRequested: _replacement,
        e.OrderReplaced: _replaced,
        e.ReplaceRejected: lambda v: f"not replaced: {v.reason}",
        e.ExecutionBusted: lambda v: f"{_money(v.last_quantity)} at {_money(v.last_price)} undone ({v.execution_id})",
        e.ExecutionCorrected: lambda v: (
            f"{_money(v.previous_quantity)} at {_money(v.previous_price)} became {_money(v.last_quantity)} at "
            f"{_money(v.last_price)} ({v.previous_execution_id} is now {v.execution_id})"
        ),
        e.DifferenceFound: lambda v: (
            f"{v.difference_id} {v.kind}: {v.subject} is {v.theirs} at the broker, {v.ours} in the ledger"
        ),
        e.AdjustmentBooked: _adjustment,
        e.LotReopened: lambda v: (
            f"{_money(v.quantity)} of lot {v.lot_id} open again, {_money(v.realized_pnl)} taken back"
        ),
    }
)


def _step(recorded: Recorded) -> Step:
    event = recorded.event
    name = type(event).__name__
    text = TEXTS[type(event)](event) if type(event) in TEXTS else _fields(event)
    details = _checks(event) if isinstance(event, e.OrderApproved | e.OrderDenied) else ()
    return Step(recorded.position, event.occurred_at, name, text, details)


def _fields(event: e.Event) -> str:
    return ", ".join(
        f"{name} {getattr(event, name)}"
        for name in event.__struct_fields__
        if name not in ("occurred_at", "client_order_id")
    )
