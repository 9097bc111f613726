"""The JSON of what goes out, but for orders (`orders.order_json`): Alpaca's names, money as text in trading and as numbers in data.

Times of market data stay times: JSON writes them as text, MessagePack as its own type of time, and Alpaca does the same. To show
another field, add it to the function of its object.
"""

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from mqd_ledger import lots
from mqd_ledger.loopback.account import Account
from mqd_ledger.loopback.chance import uuid_of
from mqd_ledger.loopback.clock import NEW_YORK, nanosecond_text
from mqd_ledger.loopback.figures import available, figures_of
from mqd_ledger.loopback.market import Market, Quote, Status
from mqd_ledger.loopback.orders import Execution, OrderRecord
from mqd_ledger.sessions import Session, next_session, session_at
from mqd_ledger.values import CENT, ZERO, Bar, Price, Quantity, Symbol, plain

RATIO = Decimal("0.0001")
TRADES_OF = 100  # shares of a bar that count as one trade
PRICE_STEP = Decimal("0.000001")
EXCHANGE = "NASDAQ"

Json = dict[str, Any]


def _cents(value: Decimal) -> str:
    return plain(value.quantize(CENT))


def account_json(account: Account) -> Json:
    figures = figures_of(account)
    shown = {name: _cents(value) for name, value in figures._asdict().items()}
    plain_power = _cents(max(ZERO, figures.equity - figures.initial_margin))
    return {
        "id": account.id,
        "account_number": account.spec.account_number,
        "status": "ACTIVE",
        "crypto_status": "ACTIVE",
        "currency": "USD",
        **shown,
        "portfolio_value": shown["equity"],
        "last_equity": shown["equity"],
        "regt_buying_power": shown["buying_power"],
        "non_marginable_buying_power": plain_power,
        "options_buying_power": plain_power,
        "options_approved_level": 3,
        "options_trading_level": 3,
        "multiplier": str(account.spec.multiplier),
        "last_maintenance_margin": "0",
        "sma": plain_power,
        "accrued_fees": "0",
        "pending_reg_taf_fees": "0",
        "intraday_adjustments": "0",
        "balance_asof": str(account.market.clock.now().astimezone(NEW_YORK).date() - timedelta(days=1)),
        "shorting_enabled": account.spec.shorting,
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "trade_suspended_by_user": False,
        "created_at": "2026-01-02T15:00:00.000000Z",
    }


def configurations_json(account: Account) -> Json:
    return {
        "fractional_trading": True,
        "max_margin_multiplier": str(account.spec.multiplier),
        "max_options_trading_level": None,
        "no_shorting": not account.spec.shorting,
        "suspend_trade": False,
        "trade_confirm_email": "none",
        "ptp_no_exception_entry": False,
    }


def positions_json(account: Account) -> list[Json]:
    return [position_json(account, symbol) for symbol in sorted(account.state.positions)]


def position_json(account: Account, symbol: Symbol) -> Json:
    quantity = account.held_quantity(symbol)
    open_lots = account.state.lots[symbol]
    cost = lots.cost(open_lots)
    price = account.market.price(symbol) or ZERO
    yesterday = account.market.last_day_close(symbol) or price
    value = quantity * price
    profit, today = value - cost, quantity * (price - yesterday)
    sign = 1 if quantity > 0 or account.switches.shorts_are_negative else -1
    return {
        "asset_id": uuid_of("asset", symbol),
        "symbol": symbol,
        "exchange": EXCHANGE,
        "asset_class": "us_equity",
        "asset_marginable": True,
        "qty": plain(quantity * sign),
        "qty_available": plain(max(ZERO, available(account, symbol)) * (-1 if quantity * sign < 0 else 1)),
        "side": "long" if quantity > 0 else "short",
        "avg_entry_price": plain((cost / quantity).quantize(PRICE_STEP)),
        "cost_basis": plain(cost * sign),
        "market_value": plain(value * sign),
        "current_price": plain(price),
        "lastday_price": plain(yesterday),
        "change_today": plain(_ratio(price - yesterday, yesterday)),
        "unrealized_pl": plain(profit),
        "unrealized_plpc": plain(_ratio(profit, abs(cost))),
        "unrealized_intraday_pl": plain(today),
        "unrealized_intraday_plpc": plain(_ratio(today, abs(quantity * yesterday))),
    }


def _ratio(part: Decimal, whole: Decimal) -> Quantity:
    return (part / whole).quantize(RATIO) if whole else ZERO


def activity_id(execution: Execution) -> str:
    """It begins with New York's local time."""
    local = execution.at.astimezone(NEW_YORK)
    return f"{local:%Y%m%d%H%M%S}{local.microsecond // 1000:03d}::{execution.activity_id}"


def activity_json(order: OrderRecord, execution: Execution) -> Json:
    return {
        "activity_type": "FILL",
        "id": activity_id(execution),
        "order_id": order.id,
        "symbol": order.symbol,
        "side": order.side.lower(),
        "type": "partial_fill" if execution.leaves_quantity else "fill",
        "price": plain(execution.price),
        "qty": plain(execution.quantity),
        "cum_qty": plain(execution.filled_quantity),
        "leaves_qty": plain(execution.leaves_quantity),
        "order_status": "partially_filled" if execution.leaves_quantity else "filled",
        "transaction_time": nanosecond_text(execution.at),
    }


# --- the exchange ----------------------------------------------------------------------------------------------------------


def clock_json(market: Market) -> Json:
    now = market.clock.stamp()
    session = session_at(now)
    coming = next_session(now)
    local = now.astimezone(NEW_YORK)
    return {
        "timestamp": f"{local:%Y-%m-%dT%H:%M:%S.%f}000{local:%z}"[:-2] + ":00",
        "is_open": session is not None,
        "next_open": _local(coming.open_at),
        "next_close": _local((session or coming).close_at),
    }


def _local(at: datetime) -> str:
    return at.astimezone(NEW_YORK).isoformat()


def calendar_json(session: Session) -> Json:
    def time(at: datetime, form: str) -> str:
        return f"{at.astimezone(NEW_YORK):{form}}"

    return {
        "date": str(session.date),
        "open": time(session.open_at, "%H:%M"),
        "close": time(session.close_at, "%H:%M"),
        "session_open": time(session.extended_open_at, "%H%M"),
        "session_close": time(session.extended_close_at, "%H%M"),
        "settlement_date": str(_settles_on(session)),
    }


def _settles_on(session: Session) -> date:
    return next_session(session.close_at).date


def asset_json(symbol: Symbol) -> Json:
    return {
        "id": uuid_of("asset", symbol),
        "class": "us_equity",
        "exchange": EXCHANGE,
        "symbol": symbol,
        "name": f"{symbol} (loopback)",
        "status": "active",
        "tradable": True,
        "marginable": True,
        "maintenance_margin_requirement": 30,
        "margin_requirement_long": "30",
        "margin_requirement_short": "30",
        "shortable": True,
        "easy_to_borrow": True,
        "borrow_status": "easy_to_borrow",
        "fractionable": True,
        "attributes": [],
    }


# --- market data -----------------------------------------------------------------------------------------------------------


def bar_json(bar: Bar) -> Json:
    """`t` is the start; number of trades and the volume-weighted price are made up from what the bar has."""
    weighted = (bar.high + bar.low + bar.close) / 3
    return {
        "t": bar.start_at,
        "o": float(bar.open),
        "h": float(bar.high),
        "l": float(bar.low),
        "c": float(bar.close),
        "v": bar.volume,
        "n": max(1, bar.volume // TRADES_OF),
        "vw": float(weighted.quantize(RATIO)),
    }


def quote_json(quote: Quote) -> Json:
    return {
        "t": quote.at,
        "bx": "V",
        "bp": float(quote.bid),
        "bs": quote.bid_size,
        "ax": "V",
        "ap": float(quote.ask),
        "as": quote.ask_size,
        "c": ["R"],
        "z": "C",
    }


def trade_json(price: Price, at: datetime) -> Json:
    return {"t": at, "x": "V", "p": float(price), "s": TRADES_OF, "c": ["@"], "i": 1, "z": "C"}


def status_json(status: Status) -> Json:
    return {
        "S": status.symbol,
        "sc": status.code,
        "sm": status.message,
        "rc": "T1" if status.reason else "",
        "rm": status.reason,
        "t": status.at,
        "z": "C",
    }
