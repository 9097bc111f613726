"""The read side: each table says what happened, exactly, and says the same however often reading was interrupted."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.base import Command
from commands.broker_reports import (
    ReportAbsent,
    ReportCanceled,
    ReportRejected,
    ReportReplaced,
    ReportReplaceRejected,
    ReportSubmitted,
    ReportUnknownOrder,
)
from commands.cash import ReportCash, ReportFee
from commands.control import (
    ActivateKillSwitch,
    CompleteKillSwitch,
    CreateLedger,
    HaltTrading,
    ResumeTrading,
    StartRun,
    StopStrategy,
)
from commands.executions import ReportBust, ReportCorrection, ReportFill
from commands.market import (
    AggregateBar,
    CloseSession,
    EndSession,
    OpenSession,
    ReportBadBar,
    ReportBar,
    ReportCorrectedBar,
    ReportFeedRecovered,
    ReportFeedStale,
    ReportQuote,
    ReportSymbolStatus,
)
from commands.trading import CancelOrder, ClosePosition, RaiseSignal, ReplaceOrder, SubmitOrder
from commands.truth import (
    CASH,
    AcceptDifference,
    ReportAgreement,
    ReportDifference,
    ReportReachable,
    ReportUnreachable,
    ReportUnusable,
    StartRecovery,
    TakeRecoveryStep,
)
from mqd_ledger import events as e
from mqd_ledger import projector as projector_module
from mqd_ledger.audit.redecide import redecide
from mqd_ledger.chain import GENESIS, Row, digest
from mqd_ledger.engine import Engine, Recorded
from mqd_ledger.envelope import decode, encode
from mqd_ledger.errors import BadInput, CommandRefused, LedgerUnreadable
from mqd_ledger.events import STORED_NAME, STREAM_OF, Event
from mqd_ledger.policy import Limits, Policy
from mqd_ledger.projector import Projector, project
from mqd_ledger.state import State
from mqd_ledger.values import (
    Bar,
    DifferenceKind,
    Direction,
    OrderType,
    Side,
    TimeInForce,
    from_microseconds,
    microseconds,
)
from projections import PROJECTIONS, TABLES, orders
from projections.shape import Kind

D = Decimal
NINE_THIRTY = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)  # a Monday
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)

# Wide open: here the books are of interest, not the gate.
OPEN_GATE = Policy(
    limits=Limits(
        session="any",
        stale_after=None,
        daily_loss_max=None,
        position_notional_max=None,
        position_percent_max=None,
        exposure_max=None,
        positions_max=None,
        orders_per_day_max=None,
        duplicate_window=None,
        order_notional_min=None,
        short_selling=True,
    )
)


class Recorder:
    """A journal that keeps the rows of the log."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.versions: dict[str, int] = {}

    def record(self, events: Sequence[Event], recorded_at: datetime, causation: int = 0, correlation: int = 0) -> int:
        first = len(self.rows) + 1
        for position, event in enumerate(events, first):
            stream = STREAM_OF[type(event)](event)
            self.versions[stream] = version = self.versions.get(stream, 0) + 1
            payload = encode(event)
            envelope = (
                position,
                stream,
                version,
                STORED_NAME[type(event)],
                microseconds(event.occurred_at),
                microseconds(recorded_at),
                correlation or first,
                causation if position == first else first,
            )
            previous = self.rows[-1][9] if self.rows else GENESIS
            self.rows.append((*envelope, payload, digest(previous, envelope, payload)))
        return first


def _flat_bar(symbol: str, price: Decimal, start_at: datetime) -> Bar:
    return Bar(symbol, "1m", start_at, price, price, price, price, 1000, "synthetic")


class Desk:
    """An engine without reactors: commands in, rows of the log out."""

    def __init__(self, policy: Policy = OPEN_GATE, deposit: str = "100000") -> None:
        self.journal = Recorder()
        self.state = State()
        self.engine = Engine(self.state, self.journal)
        self.at = NINE_THIRTY
        source = e.Source("synthetic", "test", "")
        self.do(
            CreateLedger(self.at, "desk"),
            StartRun(self.at, "paper", "test", source, (), policy),
            ReportCash(self.at, "first", "DEPOSIT", D(deposit), "to begin with"),
            *(ReportBar(self.at, _flat_bar(symbol, D(10), self.at - MINUTE)) for symbol in ("SYNA", "SYNB")),
        )

    def do(self, *commands: Command) -> list[Event]:
        return [event for command in commands for event in self.engine.handle(command)]

    def wait(self, time: timedelta = MINUTE) -> datetime:
        self.at += time
        return self.at

    def bar(self, close: str, symbol: str = "SYNA") -> None:
        bar = _flat_bar(symbol, D(close), self.at.replace(second=0, microsecond=0))
        self.do(ReportBar(self.wait(), bar))

    def order(self, side: Side, quantity: str, symbol: str = "SYNA", strategy: str = "") -> str:
        command = SubmitOrder(self.at, symbol, side, OrderType.MARKET, D(quantity), strategy=strategy)
        requested = self.do(command)[0]
        assert isinstance(requested, e.OrderRequested)
        return requested.client_order_id

    def fill(self, order: str, execution: str, quantity: str, price: str, commission: str = "0") -> None:
        of = self.state.orders[order]
        self.do(
            ReportFill(self.at, self.at, order, execution, of.symbol, of.side, D(quantity), D(price), D(commission))
        )

    def trade(self, side: Side, quantity: str, price: str, strategy: str = "", commission: str = "0") -> str:
        order = self.order(side, quantity, strategy=strategy)
        self.do(ReportSubmitted(self.at, self.at, order, f"broker-{order}"))
        self.fill(order, f"x-{order}", quantity, price, commission)
        return order


SCHEMA = """
pragma journal_mode = wal;
create table streams(id integer primary key, name text not null unique);
create table types(id integer primary key, name text not null unique);
create table events(position integer primary key, stream integer not null, version integer not null,
    type integer not null, occurred_at integer not null, recorded_at integer not null, correlation integer not null,
    causation integer not null, payload text not null, hash blob not null);
"""


def write(path: Path, rows: Iterable[Row]) -> Path:
    """Add rows to a ledger file."""
    with closing(sqlite3.connect(path)) as ledger:
        if not ledger.execute("select count(*) from sqlite_master").fetchone()[0]:
            ledger.executescript(SCHEMA)
        rows = list(rows)
        for table, names in (("streams", [row[1] for row in rows]), ("types", [row[3] for row in rows])):
            ledger.executemany(f"insert or ignore into {table}(name) values (?)", [(name,) for name in names])
        ledger.executemany(
            "insert into events values (?, (select id from streams where name = ?), ?, "
            "(select id from types where name = ?), ?, ?, ?, ?, ?, ?)",
            [(*row[:8], row[8].decode(), row[9]) for row in rows],
        )
        ledger.commit()
    return path


def rows_of(desk: Desk, table: str) -> list[dict[str, Any]]:
    with project(desk.journal.rows) as projected:
        return projected.rows(table)


def fingerprints(tables: Any) -> dict[str, str]:
    return {name: tables.fingerprint(name) for name in TABLES}


# --- what the tables say -----------------------------------------------------------------------------------------------


def test_an_order_ends_up_with_its_sums_and_its_state() -> None:
    desk = Desk()
    order = desk.order(Side.BUY, "3", strategy="vwap")
    desk.do(ReportSubmitted(desk.wait(), desk.at, order, "b-1"))
    desk.fill(order, "x-1", "1", "10.10", "0.01")
    (row,) = rows_of(desk, "orders")
    assert (row["state"], row["leaves_quantity"], row["approved"], row["attempts"]) == (
        "PARTIALLY_FILLED",
        D(2),
        True,
        1,
    )
    desk.fill(order, "x-2", "2", "10.25", "0.02")
    (row,) = rows_of(desk, "orders")
    assert (row["state"], row["filled_quantity"], row["leaves_quantity"]) == ("FILLED", D(3), D(0))
    assert (row["average_fill_price"], row["filled_notional"], row["commission"]) == (D("10.2"), D("30.6"), D("0.03"))
    assert (row["requested_at"], row["submitted_at"]) == (NINE_THIRTY, NINE_THIRTY + MINUTE)
    assert (row["strategy"], row["executions"], row["broker_order_id"]) == ("vwap", 2, "b-1")


def test_an_order_that_has_ended_keeps_its_first_reason() -> None:
    desk = Desk()
    order = desk.order(Side.BUY, "1")
    desk.do(ReportCanceled(desk.at, desk.at, order, "by the user"), ReportRejected(desk.at, desk.at, order, "too late"))
    (row,) = rows_of(desk, "orders")
    assert (row["state"], row["reason"]) == ("CANCELED", "by the user")


def test_every_step_of_an_order_is_told_with_its_surprise() -> None:
    desk = Desk()
    order = desk.order(Side.BUY, "2")
    desk.fill(order, "x-1", "1", "10")  # faster than the acknowledgement
    desk.do(ReportSubmitted(desk.at, desk.at, order, "b-1"))
    desk.do(ReportCanceled(desk.at, desk.at, order, "by the user"))
    desk.fill(order, "x-2", "1", "10")  # crossed the cancel on the wire
    steps = [
        (row["from_state"], row["trigger"], row["to_state"], row["anomaly"])
        for row in rows_of(desk, "order_transitions")
    ]
    assert steps == [
        (None, "requested", "PENDING", None),
        ("PENDING", "partial fill", "PARTIALLY_FILLED", "FILL_BEFORE_ACKNOWLEDGEMENT"),
        ("PARTIALLY_FILLED", "acknowledged", "PARTIALLY_FILLED", None),
        ("PARTIALLY_FILLED", "canceled", "CANCELED", None),
        ("CANCELED", "full fill", "CANCELED", "FILL_AFTER_CANCEL"),
    ]


def test_profit_goes_to_its_day_symbol_and_strategy_exactly() -> None:
    desk = Desk()
    desk.trade(Side.BUY, "0.3", "0.10", "vwap", commission="0.1")
    desk.trade(Side.SELL, "0.1", "0.20", "vwap", commission="0.2")
    desk.trade(Side.SELL, "0.2", "0.05", "vwap")
    desk.wait(DAY)
    desk.trade(Side.SELL, "1", "5")
    desk.trade(Side.BUY, "1", "4", commission="0.5")
    desk.do(ReportFee(desk.at, "fee-1", "SEC", D("0.07"), "on sales"))
    vwap, fees, own = sorted(rows_of(desk, "pnl_daily"), key=lambda row: (row["trade_date"], row["symbol"]))
    assert (vwap["trade_date"], vwap["symbol"], vwap["strategy"]) == (date(2026, 1, 5), "SYNA", "vwap")
    # As floats, 0.1 + 0.2 would be 0.30000000000000004.
    assert (vwap["realized_pnl"], vwap["commissions"]) == (D("0.00"), D("0.3"))
    assert (vwap["closings"], vwap["wins"], vwap["losses"]) == (2, 1, 1)
    assert (fees["trade_date"], fees["symbol"], fees["fees"]) == (date(2026, 1, 6), "", D("0.07"))
    assert (own["strategy"], own["realized_pnl"], own["commissions"]) == ("", D(1), D("0.5"))


def test_a_fill_reported_after_midnight_belongs_to_its_trade_date_but_to_the_new_days_limits() -> None:
    desk = Desk()
    bought = desk.order(Side.BUY, "1")
    desk.fill(bought, "x-1", "1", "10")
    sold = desk.order(Side.SELL, "1")
    before_midnight = desk.at
    desk.wait(DAY)
    desk.bar("11")
    desk.do(ReportFill(desk.at, before_midnight, sold, "x-2", "SYNA", Side.SELL, D(1), D(12)))
    assert [row["trade_date"] for row in rows_of(desk, "pnl_daily")] == [date(2026, 1, 5)]
    assert [row["realized_pnl"] for row in rows_of(desk, "daily_limits")] == [D(0), D(2)]
    assert desk.state.day.realized_pnl == D(2)


def test_positions_and_lots_follow_the_books_through_zero_to_short() -> None:
    desk = Desk()
    first = desk.trade(Side.BUY, "2", "10")
    second = desk.trade(Side.BUY, "1", "13")
    (position,) = rows_of(desk, "positions")
    assert (position["side"], position["quantity"], position["average_price"]) == ("long", D(3), D(11))
    flipped = desk.trade(Side.SELL, "4", "12")
    (position,) = rows_of(desk, "positions")
    assert (position["side"], position["quantity"], position["cost_basis"]) == ("short", D(-1), D(-12))
    lots = {row["lot_id"]: row for row in rows_of(desk, "lots")}
    assert [(lots[f"x-{name}"]["state"], lots[f"x-{name}"]["realized_pnl"]) for name in (first, second, flipped)] == [
        ("CLOSED", D(4)),
        ("CLOSED", D(-1)),
        ("OPEN", D(0)),
    ]
    desk.trade(Side.BUY, "1", "12")
    assert rows_of(desk, "positions") == []


def test_a_bust_takes_everything_back() -> None:
    desk = Desk()
    order = desk.trade(Side.BUY, "2", "10", commission="1")
    desk.do(ReportBust(desk.at, desk.at, order, f"x-{order}", "SYNA", Side.BUY, D(2), D(10), D(1)))
    assert rows_of(desk, "positions") == []
    assert [row["status"] for row in rows_of(desk, "executions")] == ["BUSTED"]
    (row,) = rows_of(desk, "orders")
    assert (row["filled_quantity"], row["commission"], row["average_fill_price"]) == (D(0), D(0), None)
    assert rows_of(desk, "equity")[-1]["cash"] == desk.state.cash == D(100000)


def test_a_bust_of_an_execution_never_reported_books_nothing_but_is_told() -> None:
    desk = Desk()
    order = desk.trade(Side.BUY, "2", "10")
    before = [rows_of(desk, table) for table in ("orders", "executions", "positions", "pnl_daily", "strategies")]
    desk.do(ReportBust(desk.at, desk.at, order, "never-heard-of", "SYNA", Side.BUY, D(1), D(10), D(1)))
    after = [rows_of(desk, table) for table in ("orders", "executions", "positions", "pnl_daily", "strategies")]
    assert after == before
    assert rows_of(desk, "equity")[-1]["cash"] == desk.state.cash == D(99980)
    assert rows_of(desk, "alerts")[-1]["message"].startswith("UNKNOWN_EXECUTION: ")


def test_a_correction_replaces_the_execution_and_keeps_its_commission() -> None:
    desk = Desk()
    order = desk.trade(Side.BUY, "2", "10", commission="0.7")
    desk.do(ReportCorrection(desk.at, desk.at, order, f"x-{order}", "x-new", D(2), D("10.5")))
    old, new = rows_of(desk, "executions")
    assert (old["status"], old["replaced_by"]) == ("CORRECTED", "x-new")
    assert (new["status"], new["price"], new["commission"]) == ("BOOKED", D("10.5"), D("0.7"))
    (row,) = rows_of(desk, "orders")
    assert (row["average_fill_price"], row["executions"], row["commission"]) == (D("10.5"), 1, D("0.7"))


def test_equity_counts_every_bar_without_a_row_for_each() -> None:
    desk = Desk(deposit="1000")
    desk.bar("10")
    desk.trade(Side.BUY, "10", "10")
    for close in ("15", "12", "13"):
        desk.bar(close)
    desk.wait(DAY)
    desk.bar("14")
    cash, fill, monday, tuesday = rows_of(desk, "equity")
    assert (cash["kind"], fill["kind"], fill["equity"], fill["cash"]) == ("cash", "fill", D(1000), D(900))
    assert (monday["kind"], monday["trade_date"], monday["equity"]) == ("day", date(2026, 1, 5), D(1030))
    assert monday["valued_at"] == NINE_THIRTY + 4 * MINUTE
    # The peak of 1050 and the fall to 1020 were at bars that have no row.
    assert (monday["peak"], monday["drawdown"]) == (D(1050), D("0.019047619"))
    assert (monday["max_drawdown"], tuesday["market_value"]) == (D("0.028571429"), D(140))


def test_risk_decisions_hold_every_check_and_denials_raise_an_alert() -> None:
    desk = Desk(Policy(limits=Limits(session="any", stale_after=None, order_notional_min=D(100))))
    desk.bar("10")
    denied = desk.order(Side.BUY, "1")
    desk.order(Side.BUY, "20")
    no, yes = rows_of(desk, "risk_decisions")
    assert (no["client_order_id"], no["verdict"], yes["verdict"]) == (denied, "DENIED", "APPROVED")
    assert no["failed_checks"]
    assert no["reasons"]
    assert no["checks_count"] == yes["checks_count"] > 1
    alerts = [(row["level"], row["kind"], row["subject"], row["message"]) for row in rows_of(desk, "alerts")]
    assert alerts == [("warning", "order_denied", denied, no["reasons"])]
    (limits,) = rows_of(desk, "daily_limits")
    assert (limits["orders_requested"], limits["orders_approved"], limits["orders_denied"]) == (2, 1, 1)


def test_everything_an_operator_should_hear_is_an_alert() -> None:
    desk = Desk()
    desk.do(
        ReportBadBar(desk.at, "SYNA", 7, "SYNA,NaN", "close is not a number"),
        StopStrategy(desk.at, "vwap", "ZeroDivisionError"),
        HaltTrading(desk.at, "ann", "lunch"),
        ResumeTrading(desk.at, "ann", "lunch is over"),
        ReportUnknownOrder(desk.at, desk.at, "foreign", "b-9", "SYNA", Side.BUY, D(1)),
    )
    told = [(row["level"], row["kind"], row["subject"]) for row in rows_of(desk, "alerts")]
    assert told == [
        ("warning", "bar_rejected", "SYNA"),
        ("critical", "strategy_stopped", "vwap"),
        ("critical", "trading_halted", "ann"),
        ("info", "trading_resumed", "ann"),
        ("critical", "anomaly", "foreign"),
    ]
    (adopted,) = rows_of(desk, "orders")
    assert (adopted["state"], adopted["symbol"]) == ("SUBMITTED", "SYNA")


def test_an_operator_hears_of_the_feed_the_session_the_broker_and_the_kill_switch() -> None:
    desk = Desk()
    desk.do(
        ReportFeedStale(desk.at, "bars", "95 s"),
        ReportFeedRecovered(desk.at, "bars", "back"),
        ReportSymbolStatus(desk.at, desk.at, "SYNA", halted=True, status="Halt", reason="LUDP"),
        ReportSymbolStatus(desk.at, desk.at, "SYNA", halted=False, status="Resume", reason="over"),
        AggregateBar(desk.at, _flat_bar("SYNA", D(10), desk.at - MINUTE)),
        ReportCorrectedBar(desk.at, _flat_bar("SYNA", D(11), desk.at - MINUTE)),
        OpenSession(desk.at, "2026-01-05", desk.at + DAY),
        EndSession(desk.at, "2026-01-05", "cancel"),
        CloseSession(desk.at, "2026-01-05", "cancel"),
        StartRecovery(desk.at),
        TakeRecoveryStep(desk.at, 3, "fetch", passed=False, is_last=False, detail="no answer"),
        TakeRecoveryStep(desk.at, 7, "limits", passed=True, is_last=True, detail="fine"),
        ReportUnreachable(desk.at, "orders", "timeout"),
        ReportReachable(desk.at, "orders", "answers"),
        ReportUnusable(desk.at, "orders", "{", "no JSON"),
    )
    order = desk.order(Side.BUY, "1")
    desk.do(ReplaceOrder(desk.at, order, "more", D(2)))
    desk.do(ReportReplaceRejected(desk.at, desk.at, order, "not open"), ReportCanceled(desk.at, desk.at, order, "x"))
    desk.trade(Side.BUY, "5", "10")
    desk.do(ActivateKillSwitch(desk.at, "ann", "odd"), ClosePosition(desk.at, "SYNA", "kill switch", "odd"))
    desk.fill(list(desk.state.orders)[-1], "gone", "5", "10")
    desk.do(CompleteKillSwitch(desk.at, "nothing left"))
    told = [
        (row["level"], row["kind"], row["subject"], row["message"])
        for row in rows_of(desk, "alerts")
        if row["kind"] != "anomaly"
    ]
    assert told == [
        ("critical", "feed_stale", "bars", "95 s"),
        ("info", "feed_recovered", "bars", "back"),
        ("warning", "symbol_status", "SYNA", "Halt: LUDP"),
        ("info", "symbol_status", "SYNA", "Resume: over"),
        ("info", "session_opened", "2026-01-05", "until 2026-01-06T14:30:00Z"),
        ("info", "session_ending", "2026-01-05", "cancel"),
        ("info", "session_closed", "2026-01-05", "cancel"),
        ("critical", "recovery_failed", "fetch", "no answer"),
        ("critical", "broker_unreachable", "orders", "timeout"),
        ("info", "broker_reachable", "orders", "answers"),
        ("critical", "report_ignored", "orders", "no JSON"),
        ("warning", "replace_rejected", order, "not open"),
        ("critical", "kill_switch_activated", "ann", "odd"),
        ("warning", "position_close_requested", "SYNA", "kill switch: odd"),
        ("info", "kill_switch_completed", "", "nothing left"),
    ]


def test_a_difference_has_its_row_from_its_finding_to_its_end() -> None:
    desk = Desk()
    desk.trade(Side.BUY, "5", "10", "vwap")
    evidence = {"asked_at": "14:30", "average_price": "9.9"}
    desk.do(
        ReportDifference(desk.at, DifferenceKind.CASH, CASH, "99950", "99951", amount=D(1)),
        ReportDifference(desk.at, DifferenceKind.MANUAL_TRADE, "SYNA", "5", "1", D(-4), D(11), evidence=evidence),
        ReportDifference(desk.at, DifferenceKind.UNKNOWN, "SYNB", "0", "9", D(9), D(20)),
        ReportDifference(desk.wait(), DifferenceKind.UNKNOWN, "SYNB", "0", "8", D(8), D(20)),
        AcceptDifference(desk.at, "D2", "ann", "sold by phone"),
    )
    rows = {row["difference_id"]: row for row in rows_of(desk, "differences")}
    assert {name: (row["state"], row["settled_by"], row["reason"]) for name, row in rows.items()} == {
        "D1": ("BOOKED", "reconciliation", "under the threshold"),
        "D2": ("BOOKED", "ann", "sold by phone"),
        "D3": ("CLEARED", None, "D4 takes its place"),
        "D4": ("OPEN", None, None),
    }
    sold = rows["D2"]
    assert (sold["kind"], sold["subject"], sold["ours"], sold["theirs"]) == ("MANUAL_TRADE", "SYNA", "5", "1")
    assert (sold["quantity"], sold["price"], sold["worth"], sold["needs_acceptance"]) == (D(-4), D(11), D(44), True)
    assert (sold["evidence"], sold["settled_at"]) == ('{"asked_at":"14:30","average_price":"9.9"}', desk.at)
    (lot,) = [row for row in rows_of(desk, "lots") if row["symbol"] == "SYNA"]
    assert (lot["state"], lot["quantity"], lot["realized_pnl"]) == ("OPEN", D(1), D(4))
    (pnl,) = rows_of(desk, "pnl_daily")
    assert (pnl["strategy"], pnl["realized_pnl"], pnl["closings"], pnl["wins"]) == ("vwap", D(4), 1, 1)
    assert [row["kind"] for row in rows_of(desk, "equity")] == ["cash", "fill", "adjustment", "adjustment", "day"]
    told = [(row["level"], row["subject"], row["message"]) for row in rows_of(desk, "alerts")]
    assert ("warning", "cash", "D1: 1 of cash, by reconciliation: under the threshold") in told
    assert ("warning", "SYNA", "D2: -4 at 11, by ann: sold by phone") in told
    waits = "D2 MANUAL_TRADE: the broker has 1, the ledger 5; it waits to be accepted"
    assert ("critical", "SYNA", waits) in told


def test_a_lot_that_an_adjustment_took_out_says_so_and_a_split_keeps_the_position_where_it_was() -> None:
    desk = Desk()
    desk.trade(Side.BUY, "4", "10", "vwap")
    opened_at = desk.at
    desk.wait(DAY)
    desk.do(ReportDifference(desk.at, DifferenceKind.CORPORATE_ACTION, "SYNA", "4", "8", D(4)))
    (position,) = rows_of(desk, "positions")
    assert (position["quantity"], position["average_price"], position["opened_at"]) == (D(8), D(5), opened_at)
    desk.do(ReportDifference(desk.at, DifferenceKind.UNKNOWN, "SYNA", "8", "0", D(-8), D(3)))
    assert sorted(row["state"] for row in rows_of(desk, "lots")) == ["ADJUSTED", "MERGED"]
    assert rows_of(desk, "positions") == []


def test_income_is_profit_of_its_day_and_no_deposit() -> None:
    desk = Desk(deposit="1000")
    desk.do(ReportCash(desk.at, "d-1", "DIVIDEND", D("2.5"), "SYNA"), ReportCash(desk.at, "i", "INTEREST", D(-1), ""))
    (row,) = rows_of(desk, "pnl_daily")
    assert (row["symbol"], row["strategy"], row["income"], row["realized_pnl"]) == ("", "", D("1.5"), D(0))
    (limits,) = rows_of(desk, "daily_limits")
    assert (limits["start_equity"], limits["equity"], limits["pnl"]) == (D(1000), D("1001.5"), D("1.5"))
    assert rows_of(desk, "equity")[-1]["peak"] == D("1002.5")


def test_a_replaced_order_and_its_replacement_point_at_each_other() -> None:
    desk = Desk()
    old = desk.order(Side.BUY, "5", strategy="vwap")
    desk.do(ReportSubmitted(desk.at, desk.at, old, "b-1"))
    desk.fill(old, "x-1", "1", "10")
    desk.do(ReplaceOrder(desk.wait(), old, "less", D(3)))
    new = desk.state.orders[old].replacement_id
    (row,) = rows_of(desk, "orders")
    assert (row["state"], row["replacement_id"]) == ("PARTIALLY_FILLED", new)
    desk.do(ReportReplaced(desk.at, desk.at, old, new, "b-2", D(3), None, None, TimeInForce.DAY))
    desk.fill(new, "x-2", "3", "10", commission="0.5")
    first, second = rows_of(desk, "orders")
    assert (first["state"], first["reason"], first["replacement_id"]) == ("CANCELED", f"replaced by {new}", new)
    assert (second["state"], second["replaces"], second["strategy"], second["attempts"]) == ("FILLED", old, "vwap", 1)
    assert (second["quantity"], second["broker_order_id"], second["requested_at"]) == (D(3), "b-2", desk.at)
    steps = [
        (row["client_order_id"], row["trigger"], row["to_state"])
        for row in rows_of(desk, "order_transitions")
        if row["trigger"] in ("replaced", "replacement")
    ]
    assert steps == [(old, "replaced", "CANCELED"), (new, "replacement", "SUBMITTED")]
    (strategy,) = rows_of(desk, "strategies")
    assert (strategy["executions"], strategy["commissions"]) == (2, D("0.5"))
    assert [row["strategy"] for row in rows_of(desk, "pnl_daily")] == ["vwap"]


def test_each_strategy_has_its_own_account_of_itself() -> None:
    desk = Desk()
    desk.bar("10")
    desk.do(RaiseSignal(desk.at, "vwap", "SYNA", Direction.LONG, "cheap", quantity=D(5)))
    desk.do(RaiseSignal(desk.at, "vwap", "SYNA", Direction.LONG, "still cheap", quantity=D(5)))
    (order,) = desk.state.orders
    desk.fill(order, "x-1", "5", "10", "0.5")
    desk.trade(Side.SELL, "5", "9", "vwap")
    (row,) = rows_of(desk, "strategies")
    assert (row["strategy"], row["signals"], row["signals_ignored"], row["orders"]) == ("vwap", 2, 1, 2)
    assert (row["executions"], row["realized_pnl"], row["commissions"]) == (2, D(-5), D("0.5"))
    assert (row["wins"], row["losses"], row["stopped"]) == (0, 1, None)


# --- any history at all --------------------------------------------------------------------------------------------------

PRICES = st.sampled_from(["9.5", "10", "10.01", "11.37", "0.1"])
QUANTITIES = st.sampled_from(["1", "2", "0.3", "0.123456789"])
SIDES = st.sampled_from([Side.BUY, Side.SELL])
SYMBOLS = st.sampled_from(["SYNA", "SYNB"])
PICK = st.integers(0, 7)
SIGNS = st.sampled_from([1, -1])


def _pick(desk: Desk, number: int) -> str:
    return list(desk.state.orders)[number % len(desk.state.orders)]


def _bust(desk: Desk, number: int, price: str) -> Command:
    known = list(desk.state.executions)
    name = known[number % len(known)] if known and number < 7 else f"never-{number}"
    execution = desk.state.executions.get(name)
    if execution is None:
        order = _pick(desk, number)
        of = desk.state.orders[order]
        return ReportBust(desk.at, desk.at, order, name, of.symbol, of.side, D(1), D(price))
    of = desk.state.orders[execution.client_order_id]
    quantity = abs(execution.signed_quantity)
    return ReportBust(
        desk.at, desk.at, of.client_order_id, name, of.symbol, of.side, quantity, execution.price, execution.commission
    )


def _correct(desk: Desk, number: int, quantity: str, price: str, name: str) -> Command:
    known = list(desk.state.executions)
    previous = known[number % len(known)] if known else "none"
    order = desk.state.executions[previous].client_order_id if known else _pick(desk, number)
    return ReportCorrection(desk.at, desk.at, order, previous, name, D(quantity), D(price))


def _quote(desk: Desk, symbol: str, price: str) -> object:
    when = desk.wait(MINUTE / 10)
    return desk.do(ReportQuote(when, when, symbol, D(price), 1, D(price) + D("0.02"), 1, "synthetic"))


def _corrected_bar(desk: Desk, symbol: str, price: str) -> object:
    last = desk.state.last_bars[symbol, "1m"]
    return desk.do(ReportCorrectedBar(desk.at, _flat_bar(symbol, D(price), last)))


def _replace(desk: Desk, number: int, quantity: str, how: int) -> None:
    order = _pick(desk, number)
    desk.do(ReplaceOrder(desk.at, order, "dreamt", D(quantity)))
    new = desk.state.orders[order].replacement_id
    if how % 3 == 0:
        desk.do(ReportReplaceRejected(desk.at, desk.at, order, "not open"))
    elif new and how % 3 == 1:
        desk.do(ReportReplaced(desk.at, desk.at, order, new, f"b-{new}", D(quantity), None, None, TimeInForce.DAY))


def _differ(desk: Desk, symbol: str, change: Decimal, price: Decimal, kind: str = "UNKNOWN") -> object:
    ours = desk.state.positions.get(symbol, D(0))
    theirs = ours + change
    return desk.do(ReportDifference(desk.at, DifferenceKind(kind), symbol, str(ours), str(theirs), change, price))


def _split(desk: Desk, symbol: str, ratio: Decimal) -> None:
    change = (desk.state.positions.get(symbol, D(0)) * (ratio - 1)).quantize(D("1e-9"))
    if change:
        _differ(desk, symbol, change, D(0), "CORPORATE_ACTION")


def _differ_in_cash(desk: Desk, amount: Decimal) -> object:
    ours, theirs = str(desk.state.cash), str(desk.state.cash + amount)
    return desk.do(ReportDifference(desk.at, DifferenceKind.CASH, CASH, ours, theirs, amount=amount))


def _settle(desk: Desk, number: int, *, accept: bool) -> None:
    if not desk.state.differences:
        return
    found = list(desk.state.differences.values())[number % len(desk.state.differences)]
    if accept:
        desk.do(AcceptDifference(desk.at, found.difference_id, "ann", "looked"))
    else:
        desk.do(ReportAgreement(desk.at, found.subject, "agreed"))


def _kill(desk: Desk, *, done: bool) -> None:
    desk.do(ActivateKillSwitch(desk.at, "ann", "dreamt"))
    if done:
        desk.do(CompleteKillSwitch(desk.at, "nothing left"))
    desk.do(ResumeTrading(desk.at, "ann", "awake"))


Step = Callable[[Desk, int], object]
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(lambda p, s: lambda desk, _n: desk.bar(p, s), PRICES, SYMBOLS),
    st.builds(lambda p, s: lambda desk, _n: desk.bar(p, s), PRICES, SYMBOLS),
    st.builds(lambda s, q, y: lambda desk, n: desk.order(s, q, y, "vwap" if n % 2 else ""), SIDES, QUANTITIES, SYMBOLS),
    st.builds(
        lambda i, q, p: lambda desk, n: desk.fill(_pick(desk, i), f"x-{n}", q, p, "0.01"), PICK, QUANTITIES, PRICES
    ),
    st.builds(
        lambda i, q, p: lambda desk, n: desk.fill(_pick(desk, i), f"x-{n}", q, p, "0.01"), PICK, QUANTITIES, PRICES
    ),
    st.builds(
        lambda i: lambda desk, _n: desk.do(ReportSubmitted(desk.at, desk.at, _pick(desk, i), f"b-{_pick(desk, i)}")),
        PICK,
    ),
    st.builds(lambda i: lambda desk, _n: desk.do(ReportCanceled(desk.at, desk.at, _pick(desk, i), "user")), PICK),
    st.builds(lambda i: lambda desk, _n: desk.do(CancelOrder(desk.at, _pick(desk, i), "user")), PICK),
    st.builds(lambda i, p: lambda desk, _n: desk.do(_bust(desk, i, p)), PICK, PRICES),
    st.builds(lambda i, q, p: lambda desk, n: desk.do(_correct(desk, i, q, p, f"c-{n}")), PICK, QUANTITIES, PRICES),
    st.builds(lambda q: lambda desk, n: desk.do(ReportFee(desk.at, f"fee-{n}", "SEC", D(q), "fee")), QUANTITIES),
    st.builds(lambda q: lambda desk, n: desk.do(ReportCash(desk.at, f"c-{n}", "WITHDRAWAL", -D(q), "out")), QUANTITIES),
    st.builds(lambda h: lambda desk, _n: desk.wait(timedelta(hours=h)), st.integers(1, 30)),
    st.builds(lambda p, s: lambda desk, _n: _quote(desk, s, p), PRICES, SYMBOLS),
    st.builds(lambda p, s: lambda desk, _n: _corrected_bar(desk, s, p), PRICES, SYMBOLS),
    st.builds(lambda i, q: lambda desk, n: _replace(desk, i, q, n), PICK, QUANTITIES),
    st.builds(lambda i: lambda desk, _n: desk.do(ReportAbsent(desk.at, desk.at, _pick(desk, i))), PICK),
    st.builds(lambda s: lambda desk, _n: desk.do(ClosePosition(desk.at, s, "ann", "home")), SYMBOLS),
    st.builds(lambda q, p, s, n: lambda desk, _n: _differ(desk, s, n * D(q), D(p)), QUANTITIES, PRICES, SYMBOLS, SIGNS),
    st.builds(lambda r, s: lambda desk, _n: _split(desk, s, D(r)), st.sampled_from(["2", "0.5", "1.5", "0"]), SYMBOLS),
    st.builds(lambda q, n: lambda desk, _n: _differ_in_cash(desk, n * D(q)), st.sampled_from(["0.5", "60"]), SIGNS),
    st.builds(lambda i, accept: lambda desk, _n: _settle(desk, i, accept=accept), PICK, st.booleans()),
    st.builds(
        lambda q, n: lambda desk, m: desk.do(ReportCash(desk.at, f"d-{m}", "DIVIDEND", n * D(q), "")), QUANTITIES, SIGNS
    ),
    st.builds(lambda done: lambda desk, _n: _kill(desk, done=done), st.booleans()),
)


def live(steps: Sequence[Step]) -> Desk:
    desk = Desk(deposit="100")
    desk.order(Side.BUY, "2")
    for number, step in enumerate(steps):
        with suppress(CommandRefused):  # a report that makes no sense leaves no trace
            step(desk, number)
    return desk


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=5, max_size=40))
def test_after_any_history_the_tables_agree_with_the_state_that_decides(steps: list[Step]) -> None:
    desk = live(steps)
    state = desk.state
    with project(desk.journal.rows) as tables:
        last, limits = tables.rows("equity", "position desc")[0], tables.rows("daily_limits")
        assert (last["cash"], last["equity"], last["peak"]) == (state.cash, state.equity, state.peak_equity)
        assert abs(last["max_drawdown"] - state.max_drawdown) < D("0.000000001")
        today = limits[-1]
        assert (today["orders_approved"], today["realized_pnl"]) == (state.day.orders, state.day.realized_pnl)
        assert (today["start_equity"], today["consecutive_losses"]) == (
            state.day.start_equity,
            state.consecutive_losses,
        )
        assert {row["symbol"]: row["quantity"] for row in tables.rows("positions")} == state.positions
        for row in tables.rows("orders"):
            order = state.orders[row["client_order_id"]]
            assert (row["state"], row["filled_quantity"], row["executions"] >= 0) == (
                order.state,
                order.filled_quantity,
                True,
            )
            assert (row["filled_notional"], row["leaves_quantity"]) == (order.filled_notional, order.leaves_quantity)
        daily, own = tables.rows("pnl_daily"), tables.rows("strategies")
        for total, column in ((state.realized_pnl, "realized_pnl"), (state.commissions, "commissions")):
            assert sum(row[column] for row in daily) == sum(row[column] for row in own) == total
            assert sum(row[column] for row in limits) == total
        assert sum(row["income"] for row in daily) == state.income
        found = {row["difference_id"]: row["state"] for row in tables.rows("differences")}
        assert len(found) == state.differences_total
        assert {name for name, stands in found.items() if stands == "OPEN"} == set(state.differences)
        assert sum(row["fees"] for row in daily) == sum(row["fees"] for row in limits) == state.fees
        booked = [row["commission"] for row in tables.rows("executions") if row["status"] == "BOOKED"]
        assert sum(booked) == state.commissions
        held = [(row["lot_id"], row["quantity"]) for row in tables.rows("lots") if row["state"] == "OPEN"]
        assert sorted(held) == sorted((lot.lot_id, lot.quantity) for lots in state.lots.values() for lot in lots)
    redecide(
        Recorded(row[0], from_microseconds(row[5]), row[6], row[7], decode(row[3], row[8])) for row in desk.journal.rows
    )


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=5, max_size=30), data=st.data())
def test_reading_in_pieces_gives_what_reading_at_once_gives(
    steps: list[Step], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = live(steps).journal.rows
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows) - 1), max_size=4)))
    path = tmp_path_factory.mktemp("pieces") / "desk.ledger"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projector_module, "BATCH", data.draw(st.integers(2, 50)))
        projector = Projector(path)
        for first, last in zip((0, *cuts), (*cuts, len(rows)), strict=True):
            write(path, rows[first:last])
            projector.catch_up()
        assert projector.catch_up() == len(rows)
        with project(rows) as at_once:
            assert fingerprints(projector) == fingerprints(at_once)


# --- the cache -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    for day in range(3):
        for minute in range(5):
            desk.bar(f"1{minute}.{day}")
        desk.trade(Side.BUY, "2", "10.5", "vwap", commission="0.01")
        desk.trade(Side.SELL, "1", "10.7", "vwap", commission="0.01")
        desk.wait(DAY)
    return desk


@pytest.fixture
def ledger(desk: Desk, tmp_path: Path) -> Path:
    return write(tmp_path / "my desk #1 50%.ledger", desk.journal.rows)


def test_catching_up_twice_changes_nothing(ledger: Path, desk: Desk) -> None:
    projector = Projector(ledger)
    assert projector.catch_up() == len(desk.journal.rows)
    before = fingerprints(projector), projector.cache_path.stat().st_mtime_ns
    assert projector.catch_up() == len(desk.journal.rows)
    assert Projector(ledger).catch_up() == len(desk.journal.rows)
    assert (fingerprints(projector), projector.cache_path.stat().st_mtime_ns) == before


def test_the_cache_equals_a_rebuild_and_a_projection_in_memory(ledger: Path, desk: Desk) -> None:
    projector = Projector(ledger)
    projector.catch_up()
    built = fingerprints(projector)
    projector.rebuild()
    with project(desk.journal.rows) as memory:
        assert built == fingerprints(projector) == fingerprints(memory)


def test_a_fingerprint_shows_one_changed_digit(ledger: Path) -> None:
    projector = Projector(ledger)
    before = projector.fingerprint("executions")
    with closing(sqlite3.connect(projector.cache_path)) as cache:
        cache.execute("update executions set price = '10.50' where price = '10.5'")  # even the same number
        cache.commit()
    assert projector.fingerprint("executions") != before
    assert projector.rebuild()
    assert projector.fingerprint("executions") == before


def test_a_new_version_builds_itself_anew(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    projector = Projector(ledger)
    before = fingerprints(projector)
    with closing(sqlite3.connect(projector.cache_path)) as cache:
        cache.execute("update orders set symbol = 'OLD'")  # what an older version wrote
        cache.commit()
    projector.catch_up()
    assert {row["symbol"] for row in projector.rows("orders")} == {"OLD"}
    monkeypatch.setattr(orders, "VERSION", orders.VERSION + 1)
    projector.catch_up()
    assert fingerprints(projector) == before


def test_a_restored_ledger_is_noticed_by_its_chain(ledger: Path, desk: Desk, tmp_path: Path) -> None:
    Projector(ledger).catch_up()
    other = Desk(deposit="555")
    for _ in range(len(desk.journal.rows)):
        other.bar("20")
    ledger.unlink()
    for suffix in ("-wal", "-shm"):
        ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
    write(ledger, other.journal.rows)
    projector = Projector(ledger)
    assert projector.catch_up() == len(other.journal.rows)
    assert projector.rows("orders") == []
    assert projector.rows("equity")[-1]["equity"] == D(555)


def test_an_older_backup_with_fewer_events_is_noticed_too(ledger: Path, desk: Desk, tmp_path: Path) -> None:
    Projector(ledger).catch_up()
    shorter = desk.journal.rows[:10]
    with closing(sqlite3.connect(ledger)) as file:
        file.execute("delete from events where position > 10")
        file.commit()
    projector = Projector(ledger)
    assert projector.catch_up() == 10
    with project(shorter) as expected:
        assert fingerprints(projector) == fingerprints(expected)


@pytest.mark.parametrize("damage", (b"", b"not a database at all, but long enough to look" * 50, None))
def test_a_damaged_or_deleted_cache_is_made_again(ledger: Path, damage: bytes | None) -> None:
    projector = Projector(ledger)
    before = fingerprints(projector)
    path = projector.cache_path
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    fresh = Projector(ledger)
    fresh.catch_up()
    assert fingerprints(fresh) == before
    assert path.read_bytes().startswith(b"SQLite format 3")


def test_a_cache_whose_pages_are_torn_is_made_again(ledger: Path) -> None:
    projector = Projector(ledger)
    before = fingerprints(projector)
    content = bytearray(projector.cache_path.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    projector.cache_path.write_bytes(content)
    for suffix in ("-wal", "-shm"):
        projector.cache_path.with_name(projector.cache_path.name + suffix).unlink(missing_ok=True)
    fresh = Projector(ledger)
    fresh.catch_up()
    assert fingerprints(fresh) == before


def test_where_nothing_can_be_written_the_tables_are_built_in_memory(ledger: Path, desk: Desk) -> None:
    ledger.with_name(ledger.name + ".cache").write_bytes(b"")  # a file stands where the directory would
    projector = Projector(ledger)
    assert projector.catch_up() == len(desk.journal.rows)
    with project(desk.journal.rows) as expected:
        assert fingerprints(projector) == fingerprints(expected)
    more = Desk()
    more.journal, more.state, more.engine, more.at = desk.journal, desk.state, desk.engine, desk.at
    known = len(desk.journal.rows)
    more.trade(Side.SELL, "1", "9")
    write(ledger, desk.journal.rows[known:])
    assert projector.catch_up() == len(desk.journal.rows)
    with project(desk.journal.rows) as expected:
        assert fingerprints(projector) == fingerprints(expected)
    projector.close()


def test_a_part_of_the_projections_can_run_ahead_of_the_others(ledger: Path, desk: Desk) -> None:
    Projector(ledger, only=["orders", "equity"]).catch_up()
    projector = Projector(ledger)
    projector.catch_up()
    with project(desk.journal.rows) as expected:
        assert fingerprints(projector) == fingerprints(expected)


def test_the_connection_of_a_reader_cannot_write(ledger: Path) -> None:
    with closing(Projector(ledger).connect()) as connection:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("delete from orders")
        kinds = connection.execute('select "table", "column", kind from projection_columns').fetchall()
    assert {(table, column): kind for table, column, kind in kinds} == {
        (table.name, column): kind for table in TABLES.values() for column, kind in table.columns.items()
    }


def test_a_missing_or_foreign_ledger_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnreadable, match="cannot be read"):
        Projector(tmp_path / "none.ledger").catch_up()
    (tmp_path / "text.ledger").write_text("hello, this is no database" * 100, encoding="utf-8")
    with pytest.raises(LedgerUnreadable, match="not a database"):
        Projector(tmp_path / "text.ledger").catch_up()
    assert not (tmp_path / "none.ledger.cache").exists()


def test_unknown_tables_columns_and_projections_are_named_with_what_there_is(ledger: Path) -> None:
    projector = Projector(ledger)
    with pytest.raises(BadInput, match=r"'order'.*orders"):
        projector.rows("order")
    with pytest.raises(BadInput, match=r"drop table.*has client_order_id"):
        projector.rows("orders", "drop table orders")
    with pytest.raises(BadInput, match=r"no projection fun. There are alerts"):
        Projector(ledger, only=["fun"])
    newest = projector.rows("orders", "requested_at desc, client_order_id")
    assert newest[0]["requested_at"] == max(row["requested_at"] for row in newest)


def test_every_column_named_for_a_time_or_a_date_is_one() -> None:
    for table in TABLES.values():
        for column, kind in table.columns.items():
            assert (kind is Kind.TIME) == column.endswith("_at"), (table.name, column)
            assert (kind is Kind.DATE) == column.endswith("_date"), (table.name, column)
    assert set(PROJECTIONS) >= {"orders", "pnl", "equity"}


CATCH_UP_FOR_EVER = """
import sys
from mqd_ledger import projector
projector.BATCH = 7
while True:
    reader = projector.Projector(sys.argv[1])
    print("begin", flush=True)
    reader.rebuild()
    print("built", flush=True)
"""


def test_a_reader_killed_at_any_moment_goes_on_to_the_same_rows(ledger: Path, desk: Desk) -> None:
    with project(desk.journal.rows) as expected:
        wanted = fingerprints(expected)
    for kill in range(3):
        arguments = [sys.executable, "-c", CATCH_UP_FOR_EVER, str(ledger)]
        root = Path(__file__).parent.parent
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, encoding="utf-8", cwd=root) as child:
            assert child.stdout is not None
            for _ in range(2 * kill + 1):  # in the first building, and in later ones
                child.stdout.readline()
            while not Projector(ledger).cache_path.exists():
                assert child.poll() is None
            child.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
        projector = Projector(ledger)
        assert projector.catch_up() == len(desk.journal.rows)
        assert fingerprints(projector) == wanted


def test_two_readers_at_once_give_the_rows_once(ledger: Path, desk: Desk) -> None:
    program = (
        "import sys; from mqd_ledger import projector as p; p.BATCH = 3; print(p.Projector(sys.argv[1]).catch_up())"
    )
    root = Path(__file__).parent.parent
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(ledger)], stdout=subprocess.PIPE, text=True, cwd=root)
        for _ in range(2)
    ]
    answers = [child.communicate()[0] for child in children]
    assert [int(answer) for answer in answers] == [len(desk.journal.rows)] * 2
    with project(desk.journal.rows) as expected:
        assert fingerprints(Projector(ledger)) == fingerprints(expected)


def test_the_read_side_touches_no_file_or_database_by_itself() -> None:
    program = "import sys, projections; print(sorted({'sqlite3', 'pathlib', 'duckdb', 'click'} & set(sys.modules)))"
    root = Path(__file__).parent.parent
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert answer.stdout.strip() == "[]"
