"""What the trade_updates stream says, as commands to the ledger. Pure: one update, the state, and what follows from both.

Updates come twice, late, in another order and not at all. So nothing here is refused: what cannot be used is recorded as it came
(`ReportUnusable`), and the next comparison with the broker's books finds what it meant. Beside each update stands the order as it
is after it; `alpaca_orders.py` makes it known to the ledger first. Executions are in `alpaca_executions.py`.

To handle another event, add its row to `EVENTS`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

from commands import Command
from commands.broker_reports import (
    ReportCanceled,
    ReportCancelRejected,
    ReportExpired,
    ReportRejected,
    ReportReplaceRejected,
    ReportSubmitted,
    ReportUnknownStatus,
)
from commands.truth import ReportUnusable
from mqd_ledger.brokers.alpaca_executions import STREAM, Update, busted, corrected, filled
from mqd_ledger.brokers.alpaca_orders import introduced, order_commands, replaced_by, standing, unknown_status
from mqd_ledger.brokers.alpaca_reading import Raw, Unreadable, json_text, optional_text, order_of, storable, time_of
from mqd_ledger.state import State

__all__ = ["commands_of", "order_commands"]


def commands_of(update: object, state: State, at: datetime) -> list[Command]:
    """What one trade update means, given as the `data` of its frame or the frame itself; `at` is when it was received."""
    raw = update["data"] if isinstance(update, Mapping) and "data" in update else update
    if not isinstance(raw, Mapping) or not isinstance(raw.get("order"), Mapping) or not raw.get("event"):
        return [ReportUnusable(at, STREAM, json_text(update), "A trade update has an event and an order.")]
    try:
        return _commands_of(raw, state, at)
    except Unreadable as problem:
        return [ReportUnusable(at, STREAM, json_text(raw), str(problem))]


def _commands_of(raw: Raw, state: State, at: datetime) -> list[Command]:
    order = order_of(raw["order"])
    occurred_at = time_of(raw.get("timestamp")) or time_of(raw.get("at")) or order.updated_at
    introduction, is_followed = introduced(order, state, at)
    if not is_followed:
        return introduction
    handle = EVENTS.get(str(raw["event"]), _unknown_event)
    said = handle(Update(raw, order, at, occurred_at, state))
    return [*introduction, *said, *unknown_status(order, at)]


def _acknowledged(update: Update) -> list[Command]:
    order = update.order
    return [ReportSubmitted(update.at, update.occurred_at, order.client_order_id, order.broker_order_id)]


def _canceled(update: Update) -> list[Command]:
    reason = _reason(update, "canceled")
    return [ReportCanceled(update.at, update.occurred_at, update.order.client_order_id, reason)]


def _expired(update: Update) -> list[Command]:
    reason = _reason(update, "its time in force has ended")
    return [ReportExpired(update.at, update.occurred_at, update.order.client_order_id, reason)]


def _rejected(update: Update) -> list[Command]:
    reason = _reason(update, "rejected without a reason")
    return [ReportRejected(update.at, update.occurred_at, update.order.client_order_id, reason)]


def _cancel_rejected(update: Update) -> list[Command]:
    reason = _reason(update, "the cancel was rejected without a reason")
    return [ReportCancelRejected(update.at, update.occurred_at, update.order.client_order_id, reason)]


def _replace_rejected(update: Update) -> list[Command]:
    reason = _reason(update, "the replacement was rejected without a reason")
    return [ReportReplaceRejected(update.at, update.occurred_at, update.order.client_order_id, reason)]


def _reason(update: Update, otherwise: str) -> str:
    return optional_text(update.raw, "reason") or update.order.reason or otherwise


def _replaced(update: Update) -> list[Command]:
    return replaced_by(update.order, update.state, update.at, update.occurred_at)


def _unknown_event(update: Update) -> list[Command]:
    """What it says cannot be told from its name, but the order beside it can be read like any other."""
    event = storable(str(update.raw["event"]))
    unheard = ReportUnknownStatus(update.at, update.occurred_at, update.order.client_order_id, event)
    return [*standing(update.order, update.state, update.at), unheard]


# One row per event; every event is told with the order as it is afterwards.
EVENTS: Mapping[str, Callable[[Update], list[Command]]] = MappingProxyType(
    {
        "pending_new": _acknowledged,
        "accepted": _acknowledged,
        "new": _acknowledged,
        "partial_fill": filled,
        "fill": filled,
        "canceled": _canceled,
        "expired": _expired,
        "rejected": _rejected,
        "replaced": _replaced,
        "order_cancel_rejected": _cancel_rejected,
        "order_replace_rejected": _replace_rejected,
        "trade_bust": busted,
        "trade_correct": corrected,
        # The order is in the market, or will be again: news only where nothing was heard of it before.
        "pending_cancel": _acknowledged,
        "pending_replace": _acknowledged,
        "done_for_day": _acknowledged,
        "stopped": _acknowledged,
        "suspended": _acknowledged,
        "calculated": _acknowledged,
        "held": _acknowledged,
        "restated": _acknowledged,
    }
)
