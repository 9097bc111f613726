"""The kill switch ends with the broker's word that nothing is open, and never opens anything on its way there."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from commands.broker_reports import ReportCanceled, ReportRejected, ReportSubmitted
from commands.control import ActivateKillSwitch, CompleteKillSwitch, ResumeTrading, is_killing
from commands.executions import ReportFill
from commands.market import ReportBar
from commands.trading import CancelOrder
from mqd_ledger import events as e
from mqd_ledger.brokers.base import BrokerBooks
from mqd_ledger.errors import CommandRefused
from mqd_ledger.killing import KILL_SWITCH, breach, next_steps
from mqd_ledger.orders import TERMINAL
from mqd_ledger.values import OrderState, OrderType, Side
from tests.broker_account import Account, attached, handle, is_decided_again, look, operated, reconciler, resumed
from tests.dsl import D, Desk, bar, books_balance, kinds

SECOND = timedelta(seconds=1)
SETTLE = 10 * SECOND


class World:
    """A desk and a broker that does what it is told, as far as it is not told to fail; only its books speak."""

    def __init__(self, desk: Desk | None = None, account: Account | None = None) -> None:
        self.desk = desk or attached()
        self.account = account or Account()
        self.eyes = reconciler()
        self.stuck: set[str] = set()  # orders that a cancel does not reach
        self.rejections = 0  # closes that the broker still refuses
        self.is_open = True  # the market: else orders wait

    def trade(self, text: str, *, filled: bool = True) -> str:
        name = self.desk.order(text)
        self.account.place(name, text, self.desk.at)
        self.desk.do(ReportSubmitted(self.desk.at, self.desk.at, name, f"b-{name}"))
        if filled:
            self._execute(name)
        return name

    def _execute(self, name: str) -> None:
        order = self.account.orders[name]
        assert order.quantity is not None
        left = order.quantity - order.filled_quantity
        row = self.account.fill(name, str(left), "100", self.desk.at)
        if name not in self.desk.state.orders:
            return
        self.desk.do(
            ReportFill(
                self.desk.at, self.desk.at, name, f"x-{row.execution_id}", row.symbol, row.side, row.quantity, row.price,
                cumulative_quantity=row.cumulative_quantity,
            )
        )  # fmt: skip

    def kill(self) -> None:
        self.desk.at += SECOND
        self._obey(handle(self.desk, ActivateKillSwitch(self.desk.at, "trader", "enough")))

    def turn(self, books: BrokerBooks | None = None) -> list[e.Event]:
        """A look at the books, what is due after it, and what the broker then does."""
        self.desk.at += 2 * SECOND
        books = books or self.account.books(self.desk.at)
        events = look(self.desk, self.eyes, books)
        for command in next_steps(self.desk.state, books, self.desk.at, self.eyes.empty_since):
            events += handle(self.desk, command)
        self._obey(events)
        return events

    def turns(self, most: int = 60) -> Iterator[list[e.Event]]:
        for _ in range(most):
            if not is_killing(self.desk.state):
                return
            yield self.turn()

    def end(self) -> list[e.Event]:
        """Until the switch has completed."""
        events = [event for turn in self.turns() for event in turn]
        assert not is_killing(self.desk.state), "it never completes"
        return events

    def _obey(self, events: list[e.Event]) -> None:
        for event in events:
            if isinstance(event, e.CancelRequested) and event.client_order_id not in self.stuck:
                order = self.account.orders.get(event.client_order_id)
                if order is not None and order.state not in TERMINAL:
                    self.account.end(event.client_order_id, "canceled", self.desk.at)
            elif isinstance(event, e.OrderSent):
                self._take(event.client_order_id)
        for name, order in list(self.account.orders.items()):
            if self.is_open and order.order_type is OrderType.MARKET and order.state not in TERMINAL:
                self._execute(name)

    def _take(self, name: str) -> None:
        ours = self.desk.state.orders[name]
        assert ours.quantity is not None
        if self.rejections:
            self.rejections -= 1
            self.desk.do(ReportRejected(self.desk.at, self.desk.at, name, "insufficient qty available for order"))
            return
        held = self.account.held.get(ours.symbol, D(0))
        after = held + ours.signed(ours.quantity)
        assert abs(after) < abs(held), f"an order of the kill switch took {ours.symbol} from {held} to {after}"
        self.account.place(name, f"{ours.side} {ours.quantity} {ours.symbol}", self.desk.at)

    def is_empty(self) -> None:
        assert not [order for order in self.account.orders.values() if order.state not in TERMINAL]
        assert not any(self.account.held.values())
        assert not self.desk.state.positions
        assert not self.desk.state.working
        books_balance(self.desk.state)
        is_decided_again(self.desk)


def test_orders_go_first_then_positions_and_then_the_broker_is_asked() -> None:
    world = World()
    world.trade("BUY 10 SPY")
    world.trade("SELL 4 QQQ")
    resting = world.trade("SELL 10 SPY LIMIT 200", filled=False)
    world.kill()
    assert world.account.orders[resting].status == "canceled"
    events = world.end()
    assert kinds(events).count("PositionCloseRequested") == 2
    completed = events[-1]
    assert isinstance(completed, e.KillSwitchCompleted)
    assert "PA1 showed no open order and no position" in completed.detail
    world.is_empty()


def test_a_kill_switch_without_anything_to_close_still_asks_the_broker() -> None:
    """F11: also when it believes that nothing is open; and an answer from before proves nothing."""
    world = World()
    before = world.account.books(world.desk.at)
    world.kill()
    for _ in range(20):
        assert world.turn(before) == []
    assert kinds(world.end()) == ["KillSwitchCompleted"]


def test_what_the_broker_has_and_the_ledger_does_not_is_found_taken_over_and_closed() -> None:
    world = World()
    world.account.move("SPY", D(50), "100")
    world.account.place("by-hand", "BUY 3 QQQ LIMIT 1", world.desk.at)
    world.kill()
    events = world.end()
    assert "OrderAdopted" in kinds(events)
    assert world.account.orders["by-hand"].status == "canceled"
    booked = [event.operator for event in events if isinstance(event, e.AdjustmentBooked) and event.quantity]
    assert booked == [KILL_SWITCH]
    world.is_empty()


def test_what_the_ledger_has_and_the_broker_does_not_is_not_sold() -> None:
    """F4: sold by hand, and nothing tells how; selling it again would open a short position."""
    world = World()
    world.trade("BUY 10 SPY")
    world.account.move("SPY", D(-10), "101")
    world.kill()
    assert "OrderSent" not in kinds(world.end())
    world.is_empty()


def test_a_fill_that_wins_against_the_cancel_is_closed_too() -> None:
    world = World()
    name = world.trade("BUY 10 SPY LIMIT 100", filled=False)
    world.account.fill(name, "6", "100", world.desk.at + SECOND, told=False)
    world.kill()
    world.account.orders[name] = structs.replace(world.account.orders[name], status="canceled")
    world.end()
    world.is_empty()


def test_closes_that_fail_are_asked_for_again_later_and_later() -> None:
    world = World()
    world.trade("BUY 10 SPY")
    world.rejections = 5
    world.kill()
    asked = [world.desk.at for turn in world.turns(200) if "OrderSent" in kinds(turn)]
    waits = [(later - earlier) // SECOND for earlier, later in pairwise(asked)]
    assert len(asked) == 6
    assert waits == [6, 10, 20, 40, 80]
    assert not is_killing(world.desk.state)
    world.is_empty()


def test_a_close_that_waits_for_the_market_to_open_is_asked_for_once() -> None:
    world = World()
    world.trade("BUY 10 SPY")
    world.is_open = False
    world.kill()
    asked = [turn for turn in world.turns(50) if "OrderSent" in kinds(turn)]
    assert len(asked) == 1
    world.is_open = True
    world.end()
    world.is_empty()


def test_an_order_that_does_not_go_keeps_nothing_else_from_being_closed() -> None:
    world = World()
    world.trade("BUY 10 SPY")
    world.trade("BUY 10 QQQ")
    stuck = world.trade("BUY 1 SPY LIMIT 1", filled=False)
    world.stuck.add(stuck)
    world.kill()
    closed: dict[str, timedelta] = {}
    killed_at = world.desk.at
    for turn in world.turns(40):
        for event in turn:
            if isinstance(event, e.PositionCloseRequested):
                closed[event.symbol] = event.occurred_at - killed_at
    assert closed["QQQ"] < SETTLE
    assert closed["SPY"] >= 60 * SECOND
    assert is_killing(world.desk.state), "an order is still open"
    world.account.end(stuck, "canceled", world.desk.at)
    world.end()
    world.is_empty()


@pytest.mark.parametrize("size", ("4", "10", "14", "40"))
def test_a_close_that_would_do_more_than_close_is_taken_back(size: str) -> None:
    """While it waits for the market to open, somebody sells by hand: a part, all, or more than there was."""
    world = World()
    world.trade("BUY 10 SPY")
    world.is_open = False
    world.kill()
    for _ in range(3):
        world.turn()
    closing = next(name for name, order in world.account.orders.items() if order.state not in TERMINAL)
    world.account.place("by-hand", f"SELL {size} SPY", world.desk.at)
    world.account.fill("by-hand", size, "100", world.desk.at)
    assert "OrderSent" not in kinds(world.turn()), "not before the broker has taken it back"
    assert world.account.orders[closing].status == "canceled"
    world.is_open = True
    world.end()
    world.is_empty()


def test_a_close_waits_for_an_order_that_has_no_answer_yet() -> None:
    """It may have arrived, and then it is in the way: a broker takes no order against another one of ours."""
    world = World()
    world.trade("BUY 10 SPY")
    name = world.desk.order("BUY 1 SPY LIMIT 1")
    world.kill()
    for turn in world.turns():
        if "PositionCloseRequested" in kinds(turn):
            break
    assert world.desk.state.orders[name].state is OrderState.CANCELED
    assert world.desk.at >= world.desk.state.orders[name].requested_at + SETTLE
    world.end()
    world.is_empty()


def test_a_fill_that_nobody_has_told_yet_is_waited_for() -> None:
    """The last order is gone only now: positions in the broker's answers may be those from before its last fill."""
    world = World()
    name = world.trade("BUY 10 SPY LIMIT 100", filled=False)
    world.stuck.add(name)
    world.kill()
    for _ in range(10):
        world.turn()
    lagging = world.account.books(world.desk.at)
    row = world.account.fill(name, "6", "100", world.desk.at, told=False)
    untold = structs.replace(world.account.orders[name], status="canceled", filled_quantity=D(0))
    world.desk.do(ReportCanceled(world.desk.at, world.desk.at, name, "canceled"))
    for _ in range(4):
        books = structs.replace(lagging, asked_at=world.desk.at + 2 * SECOND, open_orders=(), orders=(untold,))
        world.turn(books)
        assert is_killing(world.desk.state)
    world.account.end(name, "canceled", world.desk.at)
    world.account.rows.append(row)
    world.end()
    world.is_empty()


def test_answers_that_lag_close_nothing_and_prove_nothing() -> None:
    world = World()
    world.trade("BUY 10 SPY")
    before = world.account.books(world.desk.at)
    empty = structs.replace(before, positions=())
    world.kill()
    assert world.turn(before) == []
    for _ in range(4):
        books = structs.replace(empty, asked_at=world.desk.at + SECOND)
        assert not {"OrderSent", "KillSwitchCompleted"} & set(kinds(world.turn(books)))
    world.end()
    world.is_empty()


def test_another_account_is_not_touched() -> None:
    world = World(account=Account(number="PA2"))
    world.trade("BUY 10 SPY")
    world.kill()
    books = world.account.books(world.desk.at + 2 * SETTLE)
    assert list(next_steps(world.desk.state, books, books.asked_at)) == []


def test_without_books_orders_are_asked_back_and_nothing_else() -> None:
    world = World()
    world.trade("BUY 10 SPY")
    world.trade("BUY 1 SPY LIMIT 1", filled=False)
    world.desk.do(ActivateKillSwitch(world.desk.at, "trader", "enough"))
    world.desk.state.orders["L-1-000002"].cancel_requested = False  # the broker refused it
    steps = list(next_steps(world.desk.state, None, world.desk.at))
    assert [type(step) for step in steps] == [CancelOrder]
    assert list(next_steps(attached().state, None, world.desk.at)) == []


def test_a_restart_at_any_event_goes_on_to_the_same_end() -> None:
    whole = World()
    whole.trade("BUY 10 SPY")
    whole.trade("SELL 4 QQQ")
    whole.trade("SELL 10 SPY LIMIT 200", filled=False)
    whole.account.move("IWM", D(50), "100")
    before = len(whole.desk.tape.recorded)
    orders, rows, held = dict(whole.account.orders), list(whole.account.rows), dict(whole.account.held)
    cash, at = whole.account.cash, whole.desk.at
    whole.kill()
    whole.end()
    for upto in range(before + 1, len(whole.desk.tape.recorded)):
        if whole.desk.tape.recorded[upto].causation:
            continue  # a command's events are written together
        account = Account(
            cash, dict(held), {"SPY": D(1000), "QQQ": D(-400), "IWM": D(5000)}, dict(whole.account.prices)
        )
        account.orders, account.rows = dict(orders), list(rows)
        world = World(resumed(whole.desk.tape.recorded[:upto]), account)
        _done_by_then(world, before, at + SECOND)
        world.end()
        world.is_empty()


def _done_by_then(world: World, since: int, at: object) -> None:
    """What the broker had done when the process was killed: all that was recorded had gone out."""
    recorded = [one.event for one in world.desk.tape.recorded[since:]]
    for event in recorded:
        if isinstance(event, e.CancelRequested) and world.account.orders[event.client_order_id].state not in TERMINAL:
            world.account.end(event.client_order_id, "canceled", event.occurred_at)
        elif isinstance(event, e.OrderSent):
            ours = world.desk.state.orders[event.client_order_id]
            world.account.place(event.client_order_id, f"{ours.side} {ours.quantity} {ours.symbol}", event.occurred_at)
            world.account.fill(event.client_order_id, str(ours.quantity), "100", event.occurred_at)


HAPPENINGS = st.tuples(
    st.sampled_from(("resting", "filled", "by hand", "shares", "stuck")),
    st.sampled_from(("SPY", "QQQ")),
    st.sampled_from(Side),
    st.integers(1, 9),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(HAPPENINGS, max_size=8), st.lists(HAPPENINGS, max_size=4), st.integers(0, 4))
def test_whatever_is_open_and_happens_meanwhile_ends_empty(
    before: list[tuple[str, str, Side, int]], meanwhile: list[tuple[str, str, Side, int]], rejections: int
) -> None:
    world = World()
    for number, happening in enumerate(before):
        _happen(world, f"b{number}", *happening)
    world.rejections = rejections
    world.kill()
    for number, happening in enumerate(meanwhile):
        world.turn()
        if happening[0] in {"by hand", "shares"}:
            _happen(world, f"m{number}", *happening)
    for count, _ in enumerate(world.turns(200)):
        if count == 40:
            for name in world.stuck:
                world.account.end(name, "canceled", world.desk.at)
    assert not is_killing(world.desk.state)
    assert not world.desk.state.positions
    assert not any(world.account.held.values())


def _happen(world: World, name: str, what: str, symbol: str, side: Side, size: int) -> None:
    sign = 1 if side is Side.BUY else -1
    if what == "shares":
        world.account.move(symbol, Decimal(sign * size), "100")
    elif what == "by hand":
        world.account.place(name, f"{side} {size} {symbol}", world.desk.at)
        world.account.fill(name, str(size), "100", world.desk.at + SECOND)
    else:
        order = world.trade(f"{side} {size} {symbol} LIMIT 100", filled=what == "filled")
        if what == "stuck":
            world.stuck.add(order)


# --- what sets it off -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("allowed", "kills"), (("500", True), ("500.01", False), (None, False)))
def test_a_days_loss_sets_it_off_by_itself(allowed: str | None, kills: bool) -> None:
    desk = attached(operated(kill_at_daily_loss=None if allowed is None else D(allowed)))
    desk.trade("BUY 100 SPY", "100")
    desk.do(ReportBar(desk.at + 60 * SECOND, bar("SPY 14:30 95")))
    found = breach(desk.state, desk.at)
    assert (found is not None) is kills
    if found is not None:
        assert found.reason == "the day's loss is 500; allowed is less than 500"
        assert breach(desk.state, desk.at + timedelta(days=1)) is None, "yesterday's loss is not today's"
        desk.do(found)
        assert breach(desk.state, desk.at) is None, "once"


def test_what_it_set_off_can_only_be_lifted_once_it_is_done() -> None:
    world = World()
    world.trade("BUY 10 SPY")
    world.kill()
    with pytest.raises(CommandRefused, match="still at work"):
        world.desk.do(ResumeTrading(world.desk.at, "trader", "never mind"))
    with pytest.raises(CommandRefused, match="the ledger still has SPY"):
        world.desk.do(CompleteKillSwitch(world.desk.at, "somebody says so"))
    world.end()
    world.desk.do(ResumeTrading(world.desk.at, "trader", "looked at it"))
    assert world.desk.state.kill_switch is None
