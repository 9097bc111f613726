"""The simulated broker: fills our orders against bars, inside the process, from the log's state alone.

**It cannot look ahead, by construction.** It is shown one closed bar at a time and keeps nothing of its own: which orders work is
read from the state, and an order meets only bars that *start* at or after the instant at which it was submitted. A strategy that
sees a bar close and orders at that instant therefore meets the next bar at the earliest, at that bar's open.

The rules, one row each in `FILL_RULES` (a bar says nothing of the path between its prices, so the cautious reading counts):
market orders fill at the open; a limit at the open if that is better, else at the limit once the range touches it; a stop at the
open if the market gapped through it, else at the stop; a stop-limit is a limit from the moment its stop is reached. What takes
liquidity (market, stop) pays slippage. Fills above `participation_percent_max` of a bar's volume wait for the next bar.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_UP, Decimal
from types import MappingProxyType

from commands import Command
from commands.broker_reports import ReportCanceled, ReportExpired, ReportRejected, ReportReplaced, ReportSubmitted
from commands.executions import ReportFill
from mqd_ledger import sessions
from mqd_ledger.engine import Reaction
from mqd_ledger.events import BarClosed, CancelRequested, Event, OrderSent, ReplaceRequested
from mqd_ledger.orders import Order
from mqd_ledger.policy import Commission, Slippage
from mqd_ledger.remembering import KeepsNothing
from mqd_ledger.state import State
from mqd_ledger.values import CENT, QUANTITY_STEP, ZERO, Bar, Money, OrderType, Price, Quantity, Side, TimeInForce

BPS = Decimal(10_000)
HUNDRED = Decimal(100)
PRICE_STEP = Decimal("0.0001")
WHOLE = Decimal(1)


def _market(_order: Order, bar: Bar) -> Price | None:
    return bar.open


def _limit(order: Order, bar: Bar) -> Price | None:
    assert order.limit_price is not None
    if order.side is Side.BUY:
        return min(bar.open, order.limit_price) if bar.low <= order.limit_price else None
    return max(bar.open, order.limit_price) if bar.high >= order.limit_price else None


def _stop(order: Order, bar: Bar) -> Price | None:
    assert order.stop_price is not None
    if order.side is Side.BUY:
        return max(bar.open, order.stop_price) if bar.high >= order.stop_price else None
    return min(bar.open, order.stop_price) if bar.low <= order.stop_price else None


def _stop_limit(order: Order, bar: Bar) -> Price | None:
    """Reached inside this bar, only the stop price itself is sure to have traded after it; from the next bar, or if the bar
    opened beyond the stop, it is a limit.
    """
    assert order.limit_price is not None
    reached_at = _stop(order, bar)
    if (order.triggered_at is not None and order.triggered_at < bar.start_at) or reached_at == bar.open:
        return _limit(order, bar)
    if reached_at is None:
        return None
    within = reached_at <= order.limit_price if order.side is Side.BUY else reached_at >= order.limit_price
    return reached_at if within else None


FILL_RULES: Mapping[OrderType, Callable[[Order, Bar], Price | None]] = MappingProxyType(
    {OrderType.MARKET: _market, OrderType.LIMIT: _limit, OrderType.STOP: _stop, OrderType.STOP_LIMIT: _stop_limit}
)
TAKES_LIQUIDITY = (OrderType.MARKET, OrderType.STOP)
TIMES_IN_FORCE = (TimeInForce.DAY, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK)


def _bps_slippage(model: Slippage, _quantity: Quantity, _bar: Bar) -> Decimal:
    return model.bps / BPS


def _volume_share_slippage(model: Slippage, quantity: Quantity, bar: Bar) -> Decimal:
    share = min(WHOLE, quantity / bar.volume) if bar.volume else WHOLE
    return model.impact * share * share


SLIPPAGE: Mapping[str, Callable[[Slippage, Quantity, Bar], Decimal]] = MappingProxyType(
    {"none": lambda _model, _quantity, _bar: ZERO, "bps": _bps_slippage, "volume_share": _volume_share_slippage}
)
COMMISSION: Mapping[str, Callable[[Commission, Quantity, Money], Money]] = MappingProxyType(
    {
        "none": lambda _model, _quantity, _notional: ZERO,
        "per_share": lambda model, quantity, _notional: max(model.minimum, model.per_share * quantity),
        "bps": lambda model, _quantity, notional: notional * model.bps / BPS,
    }
)


class SimulatedBroker(KeepsNothing):
    def __init__(self, state: State) -> None:
        self._state = state

    @property
    def reactions(self) -> dict[type[Event], Reaction]:
        return {
            OrderSent: self._receive,
            CancelRequested: self._cancel,
            ReplaceRequested: self._replace,
            BarClosed: self._meet,
        }

    def _receive(self, event: OrderSent, at: datetime) -> Sequence[Command]:
        order = self._state.orders[event.client_order_id]
        if order.order_type not in FILL_RULES or order.time_in_force not in TIMES_IN_FORCE:
            reason = f"the simulated broker does not take {order.order_type} orders {order.time_in_force}"
            return [ReportRejected(at, at, event.client_order_id, reason)]
        return [ReportSubmitted(at, at, event.client_order_id, f"sim-{event.client_order_id}")]

    def _cancel(self, event: CancelRequested, at: datetime) -> Sequence[Command]:
        return [ReportCanceled(at, at, event.client_order_id, event.reason)]

    def _replace(self, event: ReplaceRequested, at: datetime) -> Sequence[Command]:
        order = self._state.orders[event.client_order_id]
        if order.replacement_id != event.replacement_id:  # our own risk gate said no
            return ()
        return [
            ReportReplaced(
                at,
                at,
                event.client_order_id,
                event.replacement_id,
                f"sim-{event.replacement_id}",
                event.quantity or order.leaves_quantity,
                event.limit_price or order.limit_price,
                event.stop_price or order.stop_price,
                event.time_in_force or order.time_in_force,
            )
        ]

    def _meet(self, event: BarClosed, at: datetime) -> Sequence[Command]:
        """The working orders of the bar's symbol meet it, the oldest first."""
        bar = event.bar
        orders = self._state.working.get(bar.symbol)
        if orders is None:
            return ()
        reports: list[Command] = []
        available = self._available(bar)
        has_extended_hours = (
            bar.interval != "1d"
        )  # a daily bar is a regular session: what is sent after one is for the next
        for order in orders.values():
            if order.submitted_at is None:
                continue
            if order.time_in_force is TimeInForce.DAY and bar.start_at >= (
                end := _day_ends(order.submitted_at, extended=order.extended_hours and has_extended_hours)
            ):
                reports.append(ReportExpired(at, end, order.client_order_id, "the session closed"))
                continue
            if not order.meets(bar):
                continue
            quantity, answers = self._execute(order, bar, available, at)
            reports += answers
            available = None if available is None else available - quantity
        return reports

    def _available(self, bar: Bar) -> Quantity | None:
        share = self._state.policy.simulation.participation_percent_max
        return None if share is None else (bar.volume * share / HUNDRED).quantize(WHOLE, rounding=ROUND_DOWN)

    def _execute(
        self, order: Order, bar: Bar, available: Quantity | None, at: datetime
    ) -> tuple[Quantity, Sequence[Command]]:
        """What one order gets of one bar: the quantity and the reports."""
        touched = FILL_RULES[order.order_type](order, bar)
        immediate = order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
        unfilled = [ReportCanceled(at, at, order.client_order_id, f"{order.time_in_force}: the rest was not to be had")]
        if touched is None:
            return ZERO, unfilled if immediate else ()
        wanted = self._wanted(order, touched, bar)
        quantity = wanted if available is None else min(wanted, available)
        if quantity <= 0 or (order.time_in_force is TimeInForce.FOK and quantity < wanted):
            return ZERO, unfilled if immediate else ()
        price = self._price(order, quantity, touched, bar)
        happened_at = bar.start_at if touched == bar.open else at
        fill = self._report(order, quantity, price, wanted - quantity, at, happened_at)
        return quantity, [fill, *unfilled] if immediate and quantity < wanted else [fill]

    def _wanted(self, order: Order, touched: Price, bar: Bar) -> Quantity:
        """Shares still to get. An order by notional trades what is left of its dollars at the price it will pay, and sells no more
        than is held: the broker sells no fraction short.
        """
        if order.quantity is not None:
            return order.leaves_quantity
        assert order.notional is not None
        left = max(ZERO, order.notional - order.filled_notional)
        wanted = (left / self._price(order, left / touched, touched, bar)).quantize(QUANTITY_STEP, rounding=ROUND_DOWN)
        held = self._state.positions.get(order.symbol, ZERO)
        return min(wanted, held) if order.side is Side.SELL and held > 0 else wanted

    def _price(self, order: Order, quantity: Quantity, touched: Price, bar: Bar) -> Price:
        """Slippage always costs: rounded up to the price step for a buy and down for a sale."""
        model = self._state.policy.simulation.slippage
        if model.model == "none" or order.order_type not in TAKES_LIQUIDITY:
            return touched
        share = SLIPPAGE[model.model](model, quantity, bar)
        if order.side is Side.BUY:
            return (touched * (1 + share)).quantize(PRICE_STEP, rounding=ROUND_UP)
        return max((touched * (1 - share)).quantize(PRICE_STEP, rounding=ROUND_DOWN), PRICE_STEP)

    def _report(
        self, order: Order, quantity: Quantity, price: Price, leaves: Quantity, at: datetime, happened_at: datetime
    ) -> ReportFill:
        model = self._state.policy.simulation.commission
        commission = COMMISSION[model.model](model, quantity, quantity * price).quantize(CENT, rounding=ROUND_HALF_EVEN)
        return ReportFill(
            at,
            happened_at,
            order.client_order_id,
            f"{order.client_order_id}-{order.executions + 1}",
            order.symbol,
            order.side,
            quantity,
            price,
            commission,
            leaves,
        )


def _day_ends(submitted_at: datetime, *, extended: bool) -> datetime:
    """When a DAY order sent at that instant expires: at the close of its session, or of the next one if none was open."""
    if extended:
        session = sessions.next_session(submitted_at - timedelta(hours=24))
        while session.extended_close_at <= submitted_at:
            session = sessions.next_session(session.open_at)
        return session.extended_close_at
    open_session = sessions.session_at(submitted_at) or sessions.next_session(submitted_at)
    return open_session.close_at
