"""What can be asked in SQL: the views over events, as data.

To add one: a row in `VIEWS` that says of which events it is made and how each column comes out of the stored JSON. Times in views
are UTC. Money is DECIMAL(38,9), made from the decimal text of the event: it never passes through a float, and only what lies
behind the ninth decimal is rounded (the text itself is in `payload`).

What has to be folded rather than read (orders, positions, equity, …) comes from the tables of `projections`; a view of the same
name as one of those takes its place.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from mqd_ledger import events as e
from mqd_ledger.envelope import stored_names
from mqd_ledger.warehouse import duck

MONEY = "decimal(38,9)"
ENVELOPE: Mapping[str, str] = MappingProxyType(
    {
        "position": "bigint",
        "stream": "varchar",
        "version": "bigint",
        "type": "varchar",
        "occurred_at": "timestamp",
        "recorded_at": "timestamp",
        "correlation": "bigint",
        "causation": "bigint",
        "payload": "varchar",
        "hash": "varchar",
    }
)


class Field(NamedTuple):
    """A column from the JSON: where it stands there (of several, the first that is there), and its type."""

    paths: tuple[str, ...]
    type: str


class View(NamedTuple):
    """`types` are the events it is made of. `columns`: name -> a field, or SQL over the columns of `events`."""

    types: tuple[type[e.Event], ...]
    columns: Mapping[str, Field | str]


def _text(*paths: str) -> Field:
    return Field(paths, "varchar")


def _money(*paths: str) -> Field:
    return Field(paths, MONEY)


def _whole(path: str) -> Field:
    return Field((path,), "bigint")


def _time(path: str) -> Field:
    return Field((path,), "timestamp")


_EVENT = {"position": "position", "occurred_at": "occurred_at"}
_ENTRY = {**_EVENT, "entry": "split_part(type, '.', 1)"}
_BAR: Mapping[str, Field | str] = {
    "position": "position",
    "symbol": _text("bar.symbol"),
    "interval": _text("bar.interval"),
    "start_at": _time("bar.start_at"),
    "open": _money("bar.open"),
    "high": _money("bar.high"),
    "low": _money("bar.low"),
    "close": _money("bar.close"),
    "volume": _whole("bar.volume"),
    "provider": _text("bar.provider"),
    "occurred_at": "occurred_at",
    "recorded_at": "recorded_at",
}
_CAUSES = {"correlation": "correlation", "causation": "causation"}
_REASONS = """coalesce(array_to_string(from_json(payload->'$.reasons', '["varchar"]'), ' '), '')"""
_FAILED_CHECKS = """array_to_string([c.name for c in from_json(payload->'$.checks',
    '[{"name": "varchar", "passed": "boolean"}]') if not c.passed], ', ')"""
_VERDICT = "case when type like 'OrderApproved.%' then 'APPROVED' else 'DENIED' end"

VIEWS: Mapping[str, View] = MappingProxyType(
    {
        "bars": View((e.BarClosed,), _BAR),
        "bars_aggregated": View((e.BarAggregated,), _BAR),
        "bars_corrected": View((e.BarCorrected,), _BAR),
        "quotes": View(
            (e.QuoteTaken,),
            {
                **_EVENT,
                "symbol": _text("symbol"),
                "bid": _money("bid"),
                "bid_size": _whole("bid_size"),
                "ask": _money("ask"),
                "ask_size": _whole("ask_size"),
                "provider": _text("provider"),
                "recorded_at": "recorded_at",
            },
        ),
        "feed": View(
            (e.FeedStale, e.FeedRecovered, e.FeedGapFilled, e.SymbolStatusChanged),
            {
                **_ENTRY,
                "feed": _text("feed"),
                "symbol": _text("symbol"),
                "halted": Field(("halted",), "boolean"),
                "status": _text("status"),
                "first_start_at": _time("first_start_at"),
                "last_start_at": _time("last_start_at"),
                "bars": _whole("bars"),
                "reason": _text("reason"),
            },
        ),
        "sessions": View(
            (e.SessionOpened, e.SessionEnding, e.SessionClosed),
            {**_ENTRY, "session": _text("session"), "closes_at": _time("closes_at"), "policy": _text("policy")},
        ),
        "bars_rejected": View(
            (e.BarRejected,),
            {
                **_EVENT,
                "symbol": _text("symbol"),
                "line": _whole("line"),
                "reason": _text("reason"),
                "raw": _text("raw"),
            },
        ),
        "signals": View(
            (e.SignalRaised,),
            {
                **_EVENT,
                "strategy": _text("strategy"),
                "symbol": _text("symbol"),
                "direction": _text("direction"),
                "reason": _text("reason"),
                "quantity": _money("quantity"),
                "notional": _money("notional"),
                "stop_price": _money("stop_price"),
                "target_price": _money("target_price"),
                "confidence": _text("confidence"),
                **_CAUSES,
            },
        ),
        "order_requests": View(
            (e.OrderRequested,),
            {
                **_EVENT,
                "client_order_id": _text("client_order_id"),
                "strategy": _text("strategy"),
                "symbol": _text("symbol"),
                "side": _text("side"),
                "order_type": _text("order_type"),
                "quantity": _money("quantity"),
                "notional": _money("notional"),
                "limit_price": _money("limit_price"),
                "stop_price": _money("stop_price"),
                "trail_price": _money("trail_price"),
                "trail_percent": _money("trail_percent"),
                "time_in_force": _text("time_in_force"),
                "extended_hours": Field(("extended_hours",), "boolean"),
                **_CAUSES,
            },
        ),
        "risk_decisions": View(
            (e.OrderApproved, e.OrderDenied),
            {
                "position": "position",
                "client_order_id": _text("client_order_id"),
                "decided_at": "occurred_at",
                "verdict": _VERDICT,
                "reasons": _REASONS,
                "failed_checks": _FAILED_CHECKS,
                "checks_count": "json_array_length(payload, '$.checks')::bigint",
                "checks": _text("checks"),
                **_CAUSES,
            },
        ),
        "fills": View(
            (e.OrderFilled,),
            {
                **_EVENT,
                "client_order_id": _text("client_order_id"),
                "execution_id": _text("execution_id"),
                "symbol": _text("symbol"),
                "side": _text("side"),
                "last_quantity": _money("last_quantity"),
                "last_price": _money("last_price"),
                "commission": _money("commission"),
                "filled_quantity": _money("filled_quantity"),
                "leaves_quantity": _money("leaves_quantity"),
                "cumulative_quantity": _money("cumulative_quantity"),
                "stated_at": _text("stated_at"),
                **_CAUSES,
            },
        ),
        "replacements": View(
            (e.ReplaceRequested, e.OrderReplaced, e.ReplaceRejected),
            {
                **_ENTRY,
                "client_order_id": _text("client_order_id"),
                "replacement_id": _text("replacement_id"),
                "broker_order_id": _text("broker_order_id"),
                "quantity": _money("quantity"),
                "limit_price": _money("limit_price"),
                "stop_price": _money("stop_price"),
                "time_in_force": _text("time_in_force"),
                "reason": _text("reason"),
                **_CAUSES,
            },
        ),
        "lot_entries": View(
            (e.LotOpened, e.LotClosed, e.LotReopened),
            {
                **_ENTRY,
                "lot_id": _text("lot_id"),
                "symbol": _text("symbol"),
                "strategy": _text("strategy"),
                "execution_id": _text("execution_id"),
                "quantity": _money("quantity"),
                "cost_price": _money("cost_price"),
                "cost_basis": _money("cost_basis"),
                "price": _money("price"),
                "realized_pnl": _money("realized_pnl"),
                "opened_at": _time("opened_at"),
                "cause": _text("cause"),
            },
        ),
        # A fee is stored as what we pay; here it is what it does to the cash.
        "cash": View(
            (e.CashMoved, e.FeeCharged),
            {
                **_ENTRY,
                "id": _text("movement_id", "fee_id"),
                "kind": _text("kind"),
                "amount": f"(payload->>'$.amount')::{MONEY} * case when type like 'FeeCharged.%' then -1 else 1 end",
                "reason": _text("reason"),
            },
        ),
        "runs": View(
            (e.RunStarted, e.RunEnded),
            {
                **_ENTRY,
                "run": _whole("run"),
                "mode": _text("mode"),
                "code_version": _text("code_version"),
                "source_kind": _text("source.kind"),
                "source_name": _text("source.name"),
                "source_sha256": _text("source.sha256"),
                "strategies": _text("strategies"),
                "policy": _text("policy"),
                "reason": _text("reason"),
            },
        ),
        "control": View(
            (
                e.TradingHalted,
                e.TradingReduced,
                e.TradingResumed,
                e.KillSwitchActivated,
                e.KillSwitchCompleted,
                e.PositionCloseRequested,
            ),
            {
                **_ENTRY,
                "operator": _text("operator"),
                "reason": _text("reason", "detail"),
                "symbol": _text("symbol"),
            },
        ),
        "recovery": View(
            (e.RecoveryStarted, e.RecoveryStepTaken),
            {
                **_ENTRY,
                "run": _whole("run"),
                "step": _whole("step"),
                "name": _text("name"),
                "passed": Field(("passed",), "boolean"),
                "detail": _text("detail"),
            },
        ),
        "adjustments": View(
            (e.AdjustmentBooked,),
            {
                **_EVENT,
                "difference_id": _text("difference_id"),
                "symbol": _text("symbol"),
                "quantity": _money("quantity"),
                "price": _money("price"),
                "amount": _money("amount"),
                "operator": _text("operator"),
                "reason": _text("reason"),
            },
        ),
        # The way to the broker, whose account it leads to, and what came from there and could not be used.
        "connection": View(
            (e.AccountAttached, e.BrokerUnreachable, e.BrokerReachable, e.BrokerReportIgnored),
            {
                **_ENTRY,
                "what": _text("what", "account_number"),
                "detail": _text("detail", "reason", "environment"),
                "raw": _text("raw"),
            },
        ),
    }
)

# One row per check of each decision.
RISK_CHECKS = """select position, client_order_id, decided_at, verdict, c.name as name, c.passed as passed, c.allowed as allowed,
    c.inputs as inputs from (select *, unnest(from_json(checks,
    '[{"name": "varchar", "passed": "boolean", "allowed": "varchar", "inputs": "json"}]')) as c from risk_decisions)"""
_RISK_CHECKS_COLUMNS = ("position", "client_order_id", "decided_at", "verdict", "name", "passed", "allowed", "inputs")


def statements() -> list[str]:
    """What makes the views where `events` is there."""
    made = [f"create view {name} as {_select(view)}" for name, view in VIEWS.items()]
    return [*made, f"create view risk_checks as {RISK_CHECKS}"]


def _select(view: View) -> str:
    """All that a view needs is taken out of the JSON at once: half the time of one by one."""
    paths = list(
        dict.fromkeys(path for each in view.columns.values() if isinstance(each, Field) for path in each.paths)
    )
    columns = ", ".join(f"{_expression(each, paths)} as {duck.name(name)}" for name, each in view.columns.items())
    fields = ", ".join(duck.text(f"$.{path}") for path in paths)
    types = ", ".join(duck.text(name) for name in stored_names(*view.types))
    return (
        f"select {columns} from (select *, json_extract_string(payload, [{fields}]) as field from events "
        f"where type in ({types}))"
    )


def _expression(column: Field | str, paths: list[str]) -> str:
    if isinstance(column, str):
        return column
    places = [f"field[{paths.index(path) + 1}]" for path in column.paths]
    value = places[0] if len(places) == 1 else f"coalesce({', '.join(places)})"
    return value if column.type == "varchar" else f"({value})::{column.type}"


def names() -> tuple[str, ...]:
    """Of `events` and all views over it; not of the projections."""
    return ("events", *VIEWS, "risk_checks")


def columns_of(name: str) -> tuple[str, ...]:
    if name == "events":
        return tuple(ENVELOPE)
    return _RISK_CHECKS_COLUMNS if name == "risk_checks" else tuple(VIEWS[name].columns)
