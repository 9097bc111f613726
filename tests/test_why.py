"""The story of one order, as `why` tells it: what led to it, what became of it, and what others did to its shares."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from commands.base import Command
from commands.broker_reports import ReportAbsent, ReportReplaced, ReportReplaceRejected, ReportSubmitted
from commands.cash import ReportCash
from commands.control import CreateLedger, StartRun
from commands.executions import ReportBust, ReportCorrection, ReportFill
from commands.market import ReportBar
from commands.trading import ClosePosition, ReplaceOrder
from commands.truth import AcceptDifference, ReportDifference
from mqd_ledger import events as e
from mqd_ledger.audit.as_of import as_of
from mqd_ledger.audit.verify import verify
from mqd_ledger.audit.why import TEXTS, explain
from mqd_ledger.engine import Engine
from mqd_ledger.errors import BadInput
from mqd_ledger.events import Event
from mqd_ledger.log import EventLog
from mqd_ledger.state import State
from mqd_ledger.values import DifferenceKind, TimeInForce
from tests.dsl import BUY, MINUTE, OPEN, OPENING, SOURCE, D, bar, submit

SECOND = timedelta(seconds=1)
FIRST, SECOND_ID = "L-1-000001", "L-1-000002"


class Book:
    """An engine on a ledger in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.at = path, OPENING
        self.log = EventLog.create(path, durability="normal")
        self.state = State()
        self.engine = Engine(self.state, self.log)
        self.do(
            CreateLedger(self.at, "L"),
            ReportCash(self.at, "opening", "DEPOSIT", D(100000), "to begin with"),
            StartRun(self.at, "paper", "0", SOURCE, (), OPEN),
            ReportBar(self.at, bar("SPY 14:29 100")),
        )

    def do(self, *commands: Command) -> list[Event]:
        return [event for command in commands for event in self.engine.handle(command)]

    def told(self, order: str) -> list[str]:
        """The story, one line a step; the checks of the gate are in the details."""
        self.log.commit()
        return [f"{step.event}: {step.text}" for step in explain(self.path, order).steps]

    def fill(self, order: str, name: str, quantity: str, price: str, at: datetime | None = None) -> None:
        of = self.state.orders[order]
        sizes = D(quantity), D(price)
        self.do(ReportFill(self.at, at or self.at, order, name, of.symbol, of.side, *sizes))


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "a.ledger")
    yield book
    book.log.commit()
    book.log.close()
    failed = [finding for finding in verify(book.path) if not finding.passed]
    assert failed == []


def test_an_order_that_was_sent_twice_and_replaced_and_its_replacement(book: Book) -> None:
    book.do(submit("BUY 10 SPY LIMIT 99"), ReportAbsent(book.at + 11 * SECOND, book.at + 11 * SECOND, FIRST))
    book.at += MINUTE
    book.do(
        ReportSubmitted(book.at, book.at, FIRST, "b-1"),
        ReplaceOrder(book.at, FIRST, "it ran away", limit_price=D(101)),
        ReportReplaceRejected(book.at, book.at, FIRST, "pending"),
        ReplaceOrder(book.at, FIRST, "it still runs", D(8), D(102)),
    )
    third = "L-1-000003"
    assert (
        book.told(FIRST)[-1] == f"ReplaceRequested: to be replaced by {third} with quantity 8, limit 102: it still runs"
    )
    book.do(ReportReplaced(book.at, book.at, FIRST, third, "b-2", D(8), D(102), None, TimeInForce.DAY))
    story = [
        "OrderRequested: BUY 10 shares of SPY, LIMIT DAY",
        "OrderApproved: the risk gate passed all 17 checks",
        "OrderSent: attempt 1 left for the broker",
        "OrderSent: attempt 2 left for the broker: the one before never arrived, so the same order goes again under the same id",
        "OrderSubmitted: the broker took it as b-1",
        f"ReplaceRequested: to be replaced by {SECOND_ID} with limit 101: it ran away",
        "ReplaceRejected: not replaced: pending",
        f"ReplaceRequested: to be replaced by {third} with quantity 8, limit 102: it still runs",
        f"OrderReplaced: replaced by {third}: 8 shares, limit 102 DAY; the broker has it as b-2",
    ]
    assert book.told(FIRST) == story
    assert book.told(third) == story, "before anything was told of it"
    book.fill(third, "x", "8", "101")
    assert book.told("000003") == [
        *story,
        "OrderFilled: 8 filled at 101, commission 0, 0 left",
        "LotOpened: lot of 8 opened at 101",
    ]
    with pytest.raises(BadInput, match=f"There is no order '{SECOND_ID}'.*holds 2 orders, {FIRST} to {third}"):
        book.told(SECOND_ID)


def test_a_position_that_somebody_closed(book: Book) -> None:
    book.do(submit("BUY 10 SPY"))
    book.fill(FIRST, "x", "10", "100")
    book.do(ClosePosition(book.at, "SPY", "ann", "going home"))
    book.fill(SECOND_ID, "y", "10", "101")
    assert book.told(SECOND_ID) == [
        "PositionCloseRequested: SPY closed because going home (ann)",
        "OrderRequested: SELL 10 shares of SPY, MARKET DAY",
        "OrderApproved: the risk gate passed all 1 checks",
        "OrderSent: attempt 1 left for the broker",
        "OrderFilled: 10 filled at 101, commission 0, 0 left",
        "OrderAnomalyFound: FILL_BEFORE_ACKNOWLEDGEMENT: full fill while the order was PENDING",
        "LotClosed: 10 of lot x closed at 101: realized P&L 10",
    ]


def test_what_adjustments_and_splits_did_to_the_shares_of_an_order(book: Book) -> None:
    book.do(submit("BUY 10 SPY"), ReportSubmitted(book.at, book.at, FIRST, "b"))
    book.fill(FIRST, "x", "10", "100")
    book.do(ReportDifference(book.at, DifferenceKind.CORPORATE_ACTION, "SPY", "10", "20", D(10)))
    book.do(ReportDifference(book.at, DifferenceKind.MANUAL_TRADE, "SPY", "20", "15", D(-5), D(51)))
    book.do(AcceptDifference(book.at, "D2", "ann", "sold by phone"))
    book.do(submit("SELL 15 SPY"))
    book.fill(SECOND_ID, "y", "15", "52")
    assert book.told(FIRST)[-8:] == [
        "OrderFilled: 10 filled at 100, commission 0, 0 left",
        "LotOpened: lot of 10 opened at 100",
        "DifferenceFound: D1 CORPORATE_ACTION: SPY is 20 at the broker, 10 in the ledger",
        "LotClosed: 10 of lot x put into another lot at 100: realized P&L 0",
        "LotOpened: lot of 20 opened at 50",
        "AdjustmentBooked: ann booked -5 shares of SPY at 51 for D2: sold by phone",
        "LotClosed: 5 of lot L-D1-1 taken out by an adjustment at 51: realized P&L 5",
        "LotClosed: 15 of lot L-D1-1 closed at 52: realized P&L 30",
    ]


def test_an_execution_that_was_corrected_and_then_undone(book: Book) -> None:
    book.do(submit("BUY 2 SPY"), ReportSubmitted(book.at, book.at, FIRST, "b"))
    book.fill(FIRST, "x", "2", "100")
    book.do(
        ReportCorrection(book.at, book.at, FIRST, "x", "y", D(1), D(101)),
        ReportBust(book.at, book.at, FIRST, "y", "SPY", BUY, D(1), D(101)),
    )
    story = book.told(FIRST)
    assert "ExecutionCorrected: 2 at 100 became 1 at 101 (x is now y)" in story
    assert "LotOpened: lot of 1 opened at 101" in story
    assert "ExecutionBusted: 1 at 101 undone (y)" in story
    assert story[-1] == "LotClosed: 1 of lot y undone at 101: realized P&L 0"


def test_every_event_of_an_order_and_of_lots_has_its_sentence(book: Book) -> None:
    told = {cls for cls in e.TYPES.values() if issubclass(cls, e.OrderEvent | e.LotEvent)}
    assert told - set(TEXTS) == set()


# --- as of an instant ------------------------------------------------------------------------------------------------------


def test_by_event_time_a_broker_whose_clock_is_behind_is_not_believed_before_we_asked(book: Book) -> None:
    """Its first reports are of a time at which the order had not been asked for yet."""
    book.at += MINUTE
    early = book.at - SECOND
    book.do(submit("BUY 2 SPY", book.at), ReportSubmitted(book.at + SECOND, early, FIRST, "b"))
    book.fill(FIRST, "x", "2", "100", early)
    book.log.commit()
    before = as_of(book.path, book.at - SECOND / 2, "event")
    assert (before["orders"], before["lots"], before["cash"]) == ([], [], D(100000))
    after = as_of(book.path, book.at, "event")
    assert ([row["state"] for row in after["orders"]], after["cash"]) == (["FILLED"], D(99800))


def test_as_of_an_instant_adjustments_count(book: Book) -> None:
    book.at += MINUTE
    book.do(ReportDifference(book.at, DifferenceKind.OPENING, "SPY", "0", "5", D(5), D(90)))
    book.log.commit()
    for by in ("recorded", "event"):
        then, now = (as_of(book.path, when, by) for when in (OPENING, book.at))
        assert ([row["symbol"] for row in then["positions"]], then["equity"]) == ([], D(100000))
        assert ([row["quantity"] for row in now["positions"]], now["equity"]) == ([D(5)], D(100050))
