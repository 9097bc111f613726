"""What holds for every broker, whether it lives in this process or is spoken to over a socket: the same wishes, the same books."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from msgspec import structs

from commands import Command
from commands.market import ReportBar
from commands.trading import CancelOrder, ReplaceOrder
from mqd_ledger import events as e
from mqd_ledger.brokers.alpaca import AlpacaBroker, answer_commands
from mqd_ledger.brokers.alpaca_rest import AlpacaRest, Budget
from mqd_ledger.brokers.alpaca_updates import commands_of
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.brokers.simulated import SimulatedBroker
from mqd_ledger.desk.outbox import Outbox
from mqd_ledger.engine import Engine, Reaction
from mqd_ledger.errors import CommandRefused
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.loopback.switches import Switches
from mqd_ledger.orders import Order
from mqd_ledger.policy import Simulation
from mqd_ledger.values import Bar, OrderState
from tests.dsl import MINUTE, OPEN, OPENING, D, Desk, books_balance, kinds, submit
from tests.loopback import KEY, SECRET, Listening, minutes, opened, until, updates

PRICES = {"SPY": "100 100 98 98 103 103 101", "QQQ": "200 200 200 200 200 200 200"}


class BrokerDesk(Desk):
    """A ledger and one broker; time passes a minute at a time, and each minute's bars close at its end."""

    def __init__(self, *, partial: bool) -> None:
        simulation = Simulation(participation_percent_max=D(10)) if partial else Simulation()
        super().__init__(structs.replace(OPEN, simulation=simulation))
        self.bars = minutes(**PRICES)

    def minute(self) -> None:
        bars = [bar for bar in self.bars if bar.start_at == self.at]
        self.at += MINUTE
        self.pass_minute(bars)
        self.settle()

    def pass_minute(self, bars: Sequence[Bar]) -> None:
        raise NotImplementedError

    def settle(self) -> None:
        """Whatever the broker has said by now has been heard."""

    def say_again(self) -> None:
        """Whatever the broker has said is said once more."""
        raise NotImplementedError

    def wish(self, command: Command) -> None:
        self.do(command)

    def buy(self, text: str) -> Order:
        self.wish(submit(text, self.at))
        self.settle()
        return list(self.state.orders.values())[-1]

    def cancel(self, order: Order) -> None:
        self.wish(CancelOrder(self.at, order.client_order_id, "changed our mind"))
        self.settle()

    def replace(self, order: Order, **changes: Any) -> None:
        self.wish(ReplaceOrder(self.at, order.client_order_id, "another price", **changes))
        self.settle()

    def about(self, order: Order) -> list[str]:
        """The events of an order, by their names, from the sending on."""
        of_order = [
            event for event in self.tape.events if getattr(event, "client_order_id", "") == order.client_order_id
        ]
        return kinds(of_order)[3:]


class Heard:
    """The simulated broker, and a list of what it says."""

    def __init__(self, broker: SimulatedBroker) -> None:
        self.broker = broker
        self.said: list[Command] = []

    @property
    def reactions(self) -> dict[type[e.Event], Reaction]:
        return {event_type: self.listen(reaction) for event_type, reaction in self.broker.reactions.items()}

    def listen(self, reaction: Reaction) -> Reaction:
        def answer(event: e.Event, at: datetime) -> Sequence[Command]:
            said = reaction(event, at)
            self.said += said
            return said

        return answer


class InProcess(BrokerDesk):
    def __init__(self, *, partial: bool) -> None:
        super().__init__(partial=partial)
        self.broker = Heard(SimulatedBroker(self.state))
        self.react(self.broker)

    def pass_minute(self, bars: Sequence[Bar]) -> None:
        self.do(*(ReportBar(bar.end_at, bar) for bar in bars))

    def say_again(self) -> None:
        self.do(*list(self.broker.said))


class OverASocket(BrokerDesk):
    def __init__(self, server: LoopbackServer, broker: AlpacaBroker, stream: Listening, *, partial: bool) -> None:
        super().__init__(partial=partial)
        self.server, self.broker, self.stream = server, broker, stream
        self.emitted: list[Any] = []
        self.heard = 0
        server.call(lambda: server.account().subscribers.append(self.emitted.append))
        self.outbox = Outbox(self.state)
        self.outbox.is_muted = False
        self.engine = Engine(self.state, self.tape, [self.outbox])

    def wish(self, command: Command) -> None:
        super().wish(command)
        for effect in self.outbox.take():
            answer = self.broker.perform(effect)
            self.do(*answer_commands(effect, answer, self.state, self.server.clock.now()))

    def pass_minute(self, bars: Sequence[Bar]) -> None:
        self.server.step()
        self.do(*(ReportBar(bar.end_at, bar) for bar in bars))

    def settle(self) -> None:
        until(lambda: len(self.stream.heard) >= len(self.emitted))
        while self.heard < len(self.stream.heard):
            frame = self.stream.heard[self.heard]
            self.heard += 1
            self.do(*commands_of(frame, self.state, self.server.clock.now()))

    def say_again(self) -> None:
        for frame in list(self.stream.heard):
            self.do(*commands_of(frame, self.state, self.server.clock.now()))


@contextmanager
def in_process(*, partial: bool) -> Iterator[BrokerDesk]:
    yield InProcess(partial=partial)


@contextmanager
def over_a_socket(*, partial: bool) -> Iterator[BrokerDesk]:
    switches = Switches(partial_percent=100 if partial else 0)
    with opened(minutes(**PRICES), switches=switches) as server, updates(server) as stream:
        rest = AlpacaRest(Keys(KEY, SECRET, "loopback"), server.rest_url, "loopback", budget=Budget())
        desk = OverASocket(server, AlpacaBroker(rest, server.clock.now), stream, partial=partial)
        yield desk
        books = desk.broker.books([], OPENING, desk.at)
        assert {position.symbol: position.quantity for position in books.positions} == desk.state.positions
        assert books.account.cash == desk.state.cash
        working = {order.client_order_id for orders in desk.state.working.values() for order in orders.values()}
        assert {order.client_order_id for order in books.open_orders} == working
        assert {fill.execution_id for fill in books.fills} == desk.state.executions.keys()
        rest.close()


Opening = Callable[..., Any]


@pytest.fixture(params=[in_process, over_a_socket])
def broker(request: pytest.FixtureRequest) -> Opening:
    opening: Opening = request.param
    return opening


@pytest.fixture
def desk(broker: Opening) -> Iterator[BrokerDesk]:
    with broker(partial=False) as made:
        yield made
        books_balance(made.state)


def test_a_market_order_fills_whole(desk: BrokerDesk) -> None:
    order = desk.buy("BUY 10 SPY")
    desk.minute()
    assert desk.about(order) == ["OrderSubmitted", "OrderFilled"]
    assert (order.state, order.filled_quantity, order.average_fill_price) == (OrderState.FILLED, D(10), D(100))
    assert desk.state.positions == {"SPY": 10}


def test_a_limit_order_rests_until_the_market_comes_to_it(desk: BrokerDesk) -> None:
    order = desk.buy("BUY 10 SPY LIMIT 99")
    desk.minute()
    desk.minute()
    assert order.state is OrderState.SUBMITTED
    desk.minute()
    assert (order.state, order.average_fill_price) == (OrderState.FILLED, D(98))
    assert desk.about(order) == ["OrderSubmitted", "OrderFilled"]


def test_a_resting_order_is_canceled_and_stays_so(desk: BrokerDesk) -> None:
    order = desk.buy("BUY 10 SPY LIMIT 99")
    desk.minute()
    desk.cancel(order)
    assert desk.about(order) == ["OrderSubmitted", "CancelRequested", "OrderCanceled"]
    desk.minute()
    desk.minute()
    assert (order.state, order.filled_quantity) == (OrderState.CANCELED, D(0))


def test_a_filled_order_is_not_canceled(desk: BrokerDesk) -> None:
    order = desk.buy("BUY 10 SPY")
    desk.minute()
    with pytest.raises(CommandRefused, match="FILLED already"):
        desk.cancel(order)
    assert desk.about(order) == ["OrderSubmitted", "OrderFilled"]


def test_an_order_that_the_broker_does_not_take_is_rejected_with_its_reason(desk: BrokerDesk) -> None:
    order = desk.buy("SELL 10 SPY TRAILING_STOP 2")
    assert desk.about(order) == ["OrderRejected"]
    assert order.state is OrderState.REJECTED
    reasons = [event.reason for event in desk.tape.events if isinstance(event, e.OrderRejected)]
    assert "trailing_stop" in reasons[0].lower()


def test_a_replaced_order_gives_way_to_one_at_the_other_price(desk: BrokerDesk) -> None:
    order = desk.buy("BUY 10 SPY LIMIT 90")
    desk.minute()
    desk.replace(order, limit_price=D(99), quantity=D(7))
    assert desk.about(order) == ["OrderSubmitted", "ReplaceRequested", "OrderReplaced"]
    assert order.state is OrderState.CANCELED
    desk.minute()
    desk.minute()
    new = desk.state.orders[order.replacement_id]
    assert (new.state, new.filled_quantity, new.limit_price) == (OrderState.FILLED, D(7), D(99))
    assert desk.state.positions == {"SPY": 7}


def test_an_immediate_order_that_finds_nothing_is_over(desk: BrokerDesk) -> None:
    order = desk.buy("BUY 10 SPY LIMIT 90 IOC")
    desk.minute()
    assert desk.about(order) == ["OrderSubmitted", "OrderCanceled"]
    assert order.filled_quantity == 0


def test_a_partial_fill_leaves_the_rest_at_work(broker: Opening) -> None:
    with broker(partial=True) as desk:
        order = desk.buy("BUY 150 SPY")
        seen = set()
        for _ in range(3):
            desk.minute()
            seen.add(order.state)
        assert order.state is OrderState.FILLED
        assert desk.about(order) == ["OrderSubmitted", "OrderFilled", "OrderFilled"]
        fills = [event for event in desk.tape.events if isinstance(event, e.OrderFilled)]
        assert 0 < fills[0].filled_quantity < 150
        assert [fill.leaves_quantity for fill in fills] == [150 - fills[0].last_quantity, 0]
        assert desk.state.positions == {"SPY": 150}
        books_balance(desk.state)


def test_what_is_said_twice_changes_nothing(desk: BrokerDesk) -> None:
    desk.buy("BUY 10 SPY")
    resting = desk.buy("BUY 5 QQQ LIMIT 190")
    desk.minute()
    desk.cancel(resting)
    before = len(desk.tape.recorded)
    desk.say_again()
    assert kinds(desk.tape.events[before:]) == []


def test_two_orders_of_one_symbol_are_two_orders(desk: BrokerDesk) -> None:
    first = desk.buy("BUY 10 SPY")
    second = desk.buy("BUY 5 SPY LIMIT 99")
    desk.minute()
    assert (first.state, second.state) == (OrderState.FILLED, OrderState.SUBMITTED)
    desk.minute()
    desk.minute()
    assert (second.state, second.average_fill_price) == (OrderState.FILLED, D(98))
    assert desk.state.positions == {"SPY": 15}
    closing = desk.buy("SELL 15 SPY")
    desk.minute()
    assert closing.state is OrderState.FILLED
    assert desk.state.positions == {}
