"""The server's remote control: plain JSON over HTTP under /loopback/, without keys, for whoever is on this machine.

    GET  /loopback/about                            addresses, keys, symbols: all that a client needs
    GET  /loopback/state                            every account as it really is: cash, positions, orders with their fills
    GET  /loopback/faults                           the plan, and what happened of it
    POST /loopback/faults   [{where, kind, ...}]    more faults, in the words of a script
    POST /loopback/step     {minutes}               play on, where the clock only moves when told
    POST /loopback/by-hand  {key, symbol, side, qty}   an order as if placed in the broker's web page
    POST /loopback/close    {key, symbol}           a position closed there
    POST /loopback/halt     {symbol, resume}        trading in a symbol stops, or with "resume": true goes on
    POST /loopback/stop                             the server ends

The clock's route is `rest`'s. To add a route: a method, and its row in `add_to`. What cannot be used is answered with 400 and a
sentence.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from mqd_ledger.errors import BadInput, LedgerError
from mqd_ledger.loopback import faults_table
from mqd_ledger.loopback.account import Account
from mqd_ledger.loopback.faults import Faults
from mqd_ledger.loopback.orders import OrderRecord, order_json
from mqd_ledger.loopback.views import activity_json, positions_json
from mqd_ledger.values import Side, iso, plain

if TYPE_CHECKING:
    from mqd_ledger.loopback.server import LoopbackServer

MINUTES_MAX = 100_000
ANSWERED_BY = 0.05  # seconds
encode = msgspec.json.Encoder().encode
Json = dict[str, Any]


class Control:
    def __init__(self, server: "LoopbackServer") -> None:
        self.server = server

    def add_to(self, app: web.Application) -> None:
        for method, path, handler in (
            ("GET", "about", self.about),
            ("GET", "state", self.state),
            ("GET", "faults", self.faults),
            ("POST", "faults", self.add_faults),
            ("POST", "step", self.step),
            ("POST", "by-hand", self.by_hand),
            ("POST", "close", self.close),
            ("POST", "halt", self.halt),
            ("POST", "stop", self.stop),
        ):
            app.router.add_route(method, f"/loopback/{path}", partial(self._handle, handler))

    async def _handle(self, handler: Callable[[Any], Awaitable[Any]], request: web.Request) -> web.Response:
        try:
            body = msgspec.json.decode(await request.read() or b"{}")
            content, status = await handler(body), 200
        except msgspec.DecodeError as error:
            content, status = {"message": f"The body is not JSON: {error}."}, 400
        except LedgerError as error:
            content, status = {"message": str(error)}, 400
        return web.Response(body=encode(content), status=status, content_type="application/json")

    async def about(self, _body: Any) -> Json:
        return about(self.server)

    async def state(self, _body: Any) -> Json:
        accounts = {key: account_state(account) for key, account in self.server.accounts.items()}
        return {"now": iso(self.server.clock.now()), "accounts": accounts}

    async def faults(self, _body: Any) -> Json:
        faults = self._faults()
        return {"seed": faults.seed, "plan": faults.plan, "happened": faults.happened}

    async def add_faults(self, body: Any) -> Json:
        faults = self._faults()
        added = faults_table.rows(body, "POST /loopback/faults")
        faults.add(added)
        return {"added": len(added)}

    async def step(self, body: Any) -> Json:
        minutes = _field(body, "minutes", 1)
        if not isinstance(minutes, int) or not 1 <= minutes <= MINUTES_MAX:
            raise BadInput(f"Found minutes {minutes!r}; allowed is a whole number from 1 to {MINUTES_MAX}.")
        return {"now": iso(self.server.step(minutes))}

    async def by_hand(self, body: Any) -> Json:
        side = str(_field(body, "side", "buy")).upper()
        if side not in Side.__members__:
            raise BadInput(f"Found side {side!r}; allowed is buy or sell.")
        return self.server.by_hand(self._key(body), self._symbol(body), Side(side), _quantity(body))

    async def close(self, body: Any) -> Json:
        return self.server.close_by_hand(self._key(body), self._symbol(body))

    async def halt(self, body: Any) -> Json:
        market, symbol = self.server.market, self._symbol(body)
        if _field(body, "resume", False):  # noqa: FBT003  a JSON value
            market.resume(symbol)
        else:
            market.halt(symbol)
        return {"halted": sorted(market.halted)}

    async def stop(self, _body: Any) -> Json:
        """The answer first: the server takes its connections with it."""
        thread = threading.Thread(target=self._end, name="loopback stop", daemon=True)
        asyncio.get_running_loop().call_later(ANSWERED_BY, thread.start)
        return {"stopping": True}

    def _end(self) -> None:
        self.server.stop()
        self.server.ended.set()

    def _faults(self) -> Faults:
        faults = self.server.faults
        if not isinstance(faults, Faults):
            raise BadInput(
                "This server was started without faults. Start it with Faults(), which may be an empty plan."
            )
        return faults

    def _key(self, body: Any) -> str:
        key = str(_field(body, "key", ""))
        if key and key not in self.server.accounts:
            raise BadInput(f"There is no account {key!r}; there is {', '.join(self.server.accounts)}.")
        return key or next(iter(self.server.accounts))

    def _symbol(self, body: Any) -> str:
        symbol = str(_field(body, "symbol", "")).upper()
        if symbol not in self.server.market.symbols:
            raise BadInput(f"Found symbol {symbol!r}; traded here are {', '.join(self.server.market.symbols)}.")
        return symbol


def about(server: "LoopbackServer") -> Json:
    """The first account's keys stand by themselves, for a client that wants one."""
    accounts = [
        {"key": spec.key, "secret": spec.secret, "account_number": spec.account_number} for spec in server.specs
    ]
    first = {name: accounts[0][name] for name in ("key", "secret")}
    urls = {"rest": server.rest_url, "stream": server.stream_url, "data": server.data_url}
    return {**urls, **first, "bars": server.market.provider, "symbols": server.market.symbols, "accounts": accounts}


def account_state(account: Account) -> Json:
    """The truth about an account, to compare with."""
    return {
        "account_number": account.spec.account_number,
        "cash": plain(account.state.cash),
        "realized_pnl": plain(account.state.realized_pnl),
        "positions": {
            row["symbol"]: {"qty": row["qty"], "avg_entry_price": row["avg_entry_price"]}
            for row in positions_json(account)
        },
        "orders": [_order(order) for order in account.book.orders],
    }


def _order(order: OrderRecord) -> Json:
    fills = [
        {**activity_json(order, execution), "execution_id": execution.execution_id} for execution in order.executions
    ]
    return {**order_json(order), "fills": fills, "undone": order.undone}


def _field(body: Any, name: str, default: Any) -> Any:
    if not isinstance(body, dict):
        raise BadInput(f"The body is {type(body).__name__}; allowed is a JSON object.")
    return body.get(name, default)


def _quantity(body: Any) -> Decimal:
    text = str(_field(body, "qty", ""))
    try:
        quantity = Decimal(text)
    except InvalidOperation:
        quantity = Decimal(0)
    if not quantity.is_finite() or quantity <= 0:
        raise BadInput(f"Found qty {text!r}; allowed is a number of shares above zero.")
    return quantity
