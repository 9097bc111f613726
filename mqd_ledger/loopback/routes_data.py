"""The routes of market data: bars of the past, and the latest bar, quote and trade.

To add a route: a function that takes the request and the account, and its row in `ROUTES`.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from aiohttp import web

from mqd_ledger.loopback import data, views
from mqd_ledger.loopback.account import Account
from mqd_ledger.loopback.answers import Route, answer
from mqd_ledger.loopback.market import Market
from mqd_ledger.values import Symbol

Json = dict[str, Any]


async def bars(request: web.Request, account: Account) -> web.Response:
    return answer(data.bars_page(account.market, request.query))


def _bar(market: Market, symbol: Symbol, _at: datetime) -> Json | None:
    history = market.history.get(symbol)
    return views.bar_json(history[-1]) if history else None


def _quote(market: Market, symbol: Symbol, at: datetime) -> Json | None:
    quote = market.quote(symbol, at)
    return None if quote is None else views.quote_json(quote)


def _trade(market: Market, symbol: Symbol, at: datetime) -> Json | None:
    price = market.price(symbol)
    return None if price is None else views.trade_json(price, at)


Latest = Callable[[Market, Symbol, datetime], Json | None]


def _latest(request: web.Request, account: Account, name: str, latest: Latest) -> web.Response:
    """A symbol of which there is none is left out."""
    now = account.market.clock.now()
    found = {symbol: latest(account.market, symbol, now) for symbol in data.symbols_of(request.query)}
    return answer({name: {symbol: row for symbol, row in found.items() if row is not None}})


async def latest_bars(request: web.Request, account: Account) -> web.Response:
    return _latest(request, account, "bars", _bar)


async def latest_quotes(request: web.Request, account: Account) -> web.Response:
    return _latest(request, account, "quotes", _quote)


async def latest_trades(request: web.Request, account: Account) -> web.Response:
    return _latest(request, account, "trades", _trade)


ROUTES: tuple[Route, ...] = (
    ("GET", "/stocks/bars", bars),
    ("GET", "/stocks/bars/latest", latest_bars),
    ("GET", "/stocks/quotes/latest", latest_quotes),
    ("GET", "/stocks/trades/latest", latest_trades),
)
