"""`evolve`: how one more event changes the State.

It checks no rule, for the event has happened. To make an event count, write its function in the file of its kind and put it in
`EVOLVE`; the package does not load while a row is missing.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mqd_ledger import events as e
from mqd_ledger.evolve import books, control, market, orders
from mqd_ledger.evolve.periods import start_day
from mqd_ledger.orders import Trigger
from mqd_ledger.state import State
from mqd_ledger.values import TradingState


def evolve(state: State, event: e.Event) -> None:
    """Make `state` know `event`."""
    if event.occurred_at >= state.day.ends_at:
        start_day(state, event.occurred_at)
    EVOLVE[type(event)](state, event)


def _nothing(_state: State, _event: e.Event) -> None:
    """For events that no decision looks back to."""


EVOLVE: Mapping[type[e.Event], Callable[[State, Any], None]] = {
    e.BarClosed: market.bar_closed,
    e.BarRejected: market.bar_rejected,
    e.LedgerCreated: market.ledger_created,
    e.RunStarted: market.run_started,
    e.RunEnded: market.run_ended,
    e.SignalRaised: _nothing,
    e.SignalIgnored: _nothing,
    e.StrategyStopped: market.strategy_stopped,
    e.OrderRequested: orders.requested,
    e.OrderApproved: orders.approved,
    e.OrderDenied: orders.denied,
    e.OrderSent: orders.sent,
    e.OrderSubmitted: orders.submitted,
    e.OrderRejected: orders.moves(Trigger.REJECTED),
    e.OrderFilled: orders.filled,
    e.CancelRequested: orders.cancel_requested,
    e.OrderCanceled: orders.moves(Trigger.CANCELED),
    e.CancelRejected: orders.cancel_rejected,
    e.OrderExpired: orders.moves(Trigger.EXPIRED),
    e.OrderAdopted: orders.adopted,
    e.ExecutionBusted: orders.busted,
    e.ExecutionCorrected: orders.corrected,
    e.OrderAnomalyFound: orders.anomaly_found,
    e.LotOpened: books.lot_opened,
    e.LotClosed: books.lot_closed,
    e.LotReopened: books.lot_reopened,
    e.CashMoved: books.cash_moved,
    e.FeeCharged: books.fee_charged,
    e.TradingHalted: control.trading(TradingState.HALTED),
    e.TradingReduced: control.trading(TradingState.REDUCING),
    e.TradingResumed: control.trading(TradingState.ACTIVE),
    e.BarCorrected: market.bar_corrected,
    e.BarAggregated: _nothing,
    e.QuoteTaken: market.quote_taken,
    e.SymbolStatusChanged: market.symbol_status_changed,
    e.FeedStale: market.feed_stale,
    e.FeedRecovered: market.feed_recovered,
    e.FeedGapFilled: _nothing,
    e.SessionOpened: market.session_opened,
    e.SessionEnding: market.session_ending,
    e.SessionClosed: market.session_closed,
    e.ReplaceRequested: orders.replace_requested,
    e.OrderReplaced: orders.replaced,
    e.ReplaceRejected: orders.replace_rejected,
    e.KillSwitchActivated: control.kill_switch_activated,
    e.KillSwitchCompleted: control.kill_switch_completed,
    e.PositionCloseRequested: control.close_requested,
    e.AccountAttached: control.account_attached,
    e.RecoveryStarted: control.recovery_started,
    e.RecoveryStepTaken: control.recovery_step_taken,
    e.DifferenceFound: control.difference_found,
    e.DifferenceCleared: control.difference_cleared,
    e.AdjustmentBooked: books.adjustment_booked,
    e.BrokerUnreachable: control.broker_unreachable,
    e.BrokerReachable: control.broker_reachable,
    e.BrokerReportIgnored: _nothing,
}
if missing := [cls.__name__ for cls in e.TYPES.values() if cls not in EVOLVE]:
    raise TypeError(f"evolve.EVOLVE has no row for {', '.join(missing)}: say what they change, or `_nothing`")
