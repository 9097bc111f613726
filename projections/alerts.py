"""What should an operator have been told? Denials, anomalies, stopped strategies, halts, silence, differences, a broken connection.

To add one: a row in `_ALERTS` with its level, its kind, whom it is about and what it says.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mqd_ledger import events as e
from projections.shape import Kind, Meta, Statement, Table, amount, at

NAME = "alerts"
VERSION = 2

ALERTS = Table(
    "alerts",
    key=("position",),
    columns={
        "position": Kind.INTEGER,  # in the log
        "raised_at": Kind.TIME,
        "level": Kind.TEXT,  # info, warning, critical
        "kind": Kind.TEXT,
        "subject": Kind.TEXT,  # an order, a symbol, a strategy, an operator, what is down
        "message": Kind.TEXT,
    },
)
TABLES = (ALERTS,)


class _Alert(NamedTuple):
    level: str | Callable[[Any], str]  # an empty one: nothing to tell
    kind: str
    subject: Callable[[Any], str]
    message: Callable[[Any], str]


def _order(event: e.OrderEvent) -> str:
    return event.client_order_id


def _operator(event: e.ControlEvent) -> str:
    return event.operator


def _reason(event: Any) -> str:
    return str(event.reason)


def _detail(event: Any) -> str:
    return str(event.detail)


def _difference(event: e.DifferenceFound) -> str:
    what = f"{event.difference_id} {event.kind}: the broker has {event.theirs}, the ledger {event.ours}"
    return f"{what}; it waits to be accepted" if event.needs_acceptance else what


def _adjustment(event: e.AdjustmentBooked) -> str:
    shares = f"{amount(event.quantity)} at {amount(event.price)}" if event.quantity else ""
    cash = f"{amount(event.amount)} of cash" if event.amount or not shares else ""
    what = ", ".join(filter(None, (shares, cash)))
    return f"{event.difference_id}: {what}, by {event.operator}: {event.reason}"


def _closes(event: e.SessionOpened) -> str:
    return f"until {event.closes_at:%Y-%m-%dT%H:%M:%SZ}"


_ALERTS: Mapping[type[e.Event], _Alert] = MappingProxyType(
    {
        e.OrderDenied: _Alert("warning", "order_denied", _order, lambda event: " ".join(event.reasons)),
        e.OrderRejected: _Alert("warning", "order_rejected", _order, _reason),
        e.OrderExpired: _Alert("info", "order_expired", _order, _reason),
        e.CancelRejected: _Alert("warning", "cancel_rejected", _order, _reason),
        e.OrderAnomalyFound: _Alert("critical", "anomaly", _order, lambda event: f"{event.anomaly}: {event.detail}"),
        e.BarRejected: _Alert(
            "warning",
            "bar_rejected",
            lambda event: event.symbol or "",
            lambda event: f"line {event.line}: {event.reason}" if event.line else event.reason,
        ),
        e.StrategyStopped: _Alert(
            "critical", "strategy_stopped", lambda event: event.strategy, lambda event: event.error
        ),
        e.TradingHalted: _Alert("critical", "trading_halted", _operator, _reason),
        e.TradingReduced: _Alert("warning", "trading_reduced", _operator, _reason),
        e.TradingResumed: _Alert("info", "trading_resumed", _operator, _reason),
        e.KillSwitchActivated: _Alert("critical", "kill_switch_activated", _operator, _reason),
        e.KillSwitchCompleted: _Alert("info", "kill_switch_completed", lambda _: "", _detail),
        e.PositionCloseRequested: _Alert(
            "warning",
            "position_close_requested",
            lambda event: event.symbol,
            lambda event: f"{event.operator}: {event.reason}",
        ),
        e.ReplaceRejected: _Alert("warning", "replace_rejected", _order, _reason),
        e.FeedStale: _Alert("critical", "feed_stale", lambda event: event.feed, _reason),
        e.FeedRecovered: _Alert("info", "feed_recovered", lambda event: event.feed, _reason),
        e.SymbolStatusChanged: _Alert(
            lambda event: "warning" if event.halted else "info",
            "symbol_status",
            lambda event: event.symbol,
            lambda event: f"{event.status}: {event.reason}",
        ),
        e.SessionOpened: _Alert("info", "session_opened", lambda event: event.session, _closes),
        e.SessionEnding: _Alert("info", "session_ending", lambda event: event.session, lambda event: event.policy),
        e.SessionClosed: _Alert("info", "session_closed", lambda event: event.session, lambda event: event.policy),
        e.RecoveryStepTaken: _Alert(
            lambda event: "" if event.passed else "critical", "recovery_failed", lambda event: event.name, _detail
        ),
        e.DifferenceFound: _Alert(
            lambda event: "critical" if event.needs_acceptance else "warning",
            "difference_found",
            lambda event: event.subject,
            _difference,
        ),
        e.DifferenceCleared: _Alert(
            "info",
            "difference_cleared",
            lambda event: event.subject,
            lambda event: f"{event.difference_id}: {event.reason}",
        ),
        e.AdjustmentBooked: _Alert("warning", "adjustment_booked", lambda event: event.symbol or "cash", _adjustment),
        e.BrokerUnreachable: _Alert("critical", "broker_unreachable", lambda event: event.what, _detail),
        e.BrokerReachable: _Alert("info", "broker_reachable", lambda event: event.what, _detail),
        e.BrokerReportIgnored: _Alert("critical", "report_ignored", lambda event: event.what, _reason),
    }
)
READS = tuple(_ALERTS)


def apply(event: e.Event, meta: Meta) -> Iterator[Statement]:
    alert = _ALERTS[type(event)]
    level = alert.level if isinstance(alert.level, str) else alert.level(event)
    if level:
        told = (level, alert.kind, alert.subject(event), alert.message(event))
        yield ALERTS.insert, (meta.position, at(event.occurred_at), *told)
