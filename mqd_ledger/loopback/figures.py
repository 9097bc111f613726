"""What an account is worth, what it may still buy, and which of its shares are spoken for: numbers, from its state and the prices.

Alpaca's margin in short: half of what is held is initial margin; buying power is what is left over times the multiplier, less what
open orders would need. A cash account (multiplier 1) has its cash.
"""

from decimal import Decimal
from typing import NamedTuple

from mqd_ledger.loopback.account import Account
from mqd_ledger.loopback.orders import OrderRecord
from mqd_ledger.loopback.tickets import Ticket
from mqd_ledger.values import ZERO, Money, OrderType, Price, Quantity, Side, Symbol

INITIAL, MAINTENANCE = Decimal("0.5"), Decimal("0.3")
INTRADAY = Decimal("0.25")
SHORT_COLLAR = Decimal("1.03")  # a short sale is valued above the ask
HUNDRED = Decimal(100)


class Figures(NamedTuple):
    cash: Money
    long_market_value: Money
    short_market_value: Money  # negative
    equity: Money
    initial_margin: Money
    maintenance_margin: Money
    buying_power: Money


def figures_of(account: Account, without: OrderRecord | None = None) -> Figures:
    """`without` is an order that is about to be replaced: what it holds is free."""
    state, market = account.state, account.market
    values = [quantity * (market.price(symbol) or ZERO) for symbol, quantity in state.positions.items()]
    longs = sum((value for value in values if value > 0), ZERO)
    shorts = sum((value for value in values if value < 0), ZERO)
    equity = state.cash + longs + shorts
    gross = longs - shorts
    power = {
        1: state.cash,
        2: (equity - gross * INITIAL) * 2,
        4: (equity - gross * INTRADAY) * 4,
    }[account.spec.multiplier]
    held = sum((_needs(order, account) for order in account.book.open.values() if order is not without), ZERO)
    return Figures(
        state.cash, longs, shorts, equity, gross * INITIAL, gross * MAINTENANCE, max(ZERO, max(ZERO, power) - held)
    )


def _needs(order: OrderRecord, account: Account) -> Money:
    """What an open order still holds of the buying power: nothing where it only closes."""
    if order.position_intent.endswith("close"):
        return ZERO
    if order.notional is not None:
        return order.notional - order.filled_notional
    return order.leaves_quantity * valued_at(order, account)


def valued_at(order: OrderRecord | Ticket, account: Account) -> Price:
    """The price at which an order counts against the buying power."""
    quote = account.market.quote(order.symbol, account.market.clock.now())
    ask = ZERO if quote is None else quote.ask
    if order.side is Side.SELL:
        return max(order.limit_price or ZERO, ask * SHORT_COLLAR)
    if order.limit_price is not None:
        return order.limit_price
    if order.order_type is OrderType.STOP and order.stop_price is not None:
        return order.stop_price
    return ask * (1 + account.switches.market_collar_percent / HUNDRED)


def size_of(ticket: Ticket, account: Account) -> Quantity:
    """Shares; those of an order by notional at the price of the moment."""
    if ticket.quantity is not None:
        return ticket.quantity
    return (ticket.notional or ZERO) / (account.market.price(ticket.symbol) or Decimal(1))


def closing_orders(account: Account, symbol: Symbol) -> list[OrderRecord]:
    """The open orders that have the shares of a position reserved."""
    held = account.held_quantity(symbol)
    side = Side.SELL if held > 0 else Side.BUY
    return (
        [order for order in account.book.open.values() if order.symbol == symbol and order.side is side] if held else []
    )


def available(account: Account, symbol: Symbol, without: OrderRecord | None = None) -> Quantity:
    """Shares of a position that no open order has reserved."""
    reserved = (order for order in closing_orders(account, symbol) if order is not without)
    return abs(account.held_quantity(symbol)) - sum((_leaves(order, account) for order in reserved), ZERO)


def _leaves(order: OrderRecord, account: Account) -> Quantity:
    if order.quantity is not None:
        return order.leaves_quantity
    return ((order.notional or ZERO) - order.filled_notional) / (account.market.price(order.symbol) or Decimal(1))
