"""What should an operator have been told? Denials, rejections, anomalies, bad bars, stopped strategies, halts.

To add one: a row in `_ALERTS` with its level, its kind, whom it is about and what it says.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mqd_ledger import events as e
from projections.shape import Kind, Meta, Statement, Table, at

NAME = "alerts"
VERSION = 1

ALERTS = Table(
    "alerts",
    key=("position",),
    columns={
        "position": Kind.INTEGER,  # in the log
        "raised_at": Kind.TIME,
        "level": Kind.TEXT,  # info, warning, critical
        "kind": Kind.TEXT,
        "subject": Kind.TEXT,  # an order, a symbol, a strategy, an operator
        "message": Kind.TEXT,
    },
)
TABLES = (ALERTS,)


class _Alert(NamedTuple):
    level: str
    kind: str
    subject: Callable[[Any], str]
    message: Callable[[Any], str]


def _order(event: e.OrderEvent) -> str:
    return event.client_order_id


def _operator(event: e.ControlEvent) -> str:
    return event.operator


def _reason(event: Any) -> str:
    return str(event.reason)


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
    }
)
READS = tuple(_ALERTS)


def apply(event: e.Event, meta: Meta) -> Iterator[Statement]:
    alert = _ALERTS[type(event)]
    message = alert.message(event)
    yield ALERTS.insert, (meta.position, at(event.occurred_at), alert.level, alert.kind, alert.subject(event), message)
