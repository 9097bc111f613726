"""Both websockets: /stream tells an account what becomes of its orders, /v2/{feed} tells everybody about the market.

One connection per account and endpoint. Nothing is kept for who is not connected, nothing is sent twice: whoever missed something
reads it over REST. To publish something new, add a method here and call it from `market.Market`'s lists of who is told.
"""

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from mqd_ledger.loopback import views
from mqd_ledger.loopback.account import Account
from mqd_ledger.loopback.connections import Connection, DataConnection, TradeConnection
from mqd_ledger.loopback.hooks import Where
from mqd_ledger.loopback.market import Status
from mqd_ledger.values import Bar

if TYPE_CHECKING:
    from mqd_ledger.loopback.server import LoopbackServer

Json = dict[str, Any]


class Streams:
    """Who is connected, and what they are told."""

    def __init__(self, server: "LoopbackServer") -> None:
        self.server = server
        self._places: dict[tuple[str, str], Connection | None] = {}  # None: a dead socket still holds it

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/stream", self._serve_updates)
        app.router.add_get("/v2/{feed:iex|sip|delayed_sip|test}", self._serve_data)

    def forget(self) -> None:
        self._places.clear()

    # --- connections -------------------------------------------------------------------------------------------------------

    async def _serve_updates(self, request: web.Request) -> web.StreamResponse:
        places = [place for place in self._places if place[0] == TradeConnection.where]
        if len(places) >= len(self.server.accounts):
            return web.Response(status=429, text="connection limit exceeded")
        socket = await self._upgraded(request, TradeConnection.where)
        await TradeConnection(self, socket).serve()
        return socket

    async def _serve_data(self, request: web.Request) -> web.StreamResponse:
        socket = await self._upgraded(request, DataConnection.where)
        packed = "msgpack" in request.headers.get("Content-Type", "")
        await DataConnection(self, socket, packed=packed).serve()
        return socket

    async def _upgraded(self, request: web.Request, where: Where) -> web.WebSocketResponse:
        socket = self.server.faults.socket(where, autoping=False)
        await socket.prepare(request)
        return socket

    def account_of(self, key: object, secret: object) -> Account | None:
        account = self.server.accounts.get(str(key))
        return account if account is not None and account.spec.secret == secret else None

    def enter(self, connection: Connection, account: Account) -> bool:
        """Whether there is a place for a connection of this account."""
        place = (connection.where, account.spec.key)
        if self._places.get(place, connection) is not connection:
            return False
        self._places[place] = connection
        connection.account = account
        return True

    def leave(self, connection: Connection, *, clean: bool) -> None:
        if connection.account is None:
            return
        place = (connection.where, connection.account.spec.key)
        if self._places.get(place) is not connection:
            return
        seconds = 0.0 if clean else self.server.switches.dead_socket_seconds
        if not seconds:
            del self._places[place]
            return
        self._places[place] = None
        asyncio.get_running_loop().call_later(seconds, self._free, place)

    def _free(self, place: tuple[str, str]) -> None:
        if self._places.get(place, self) is None:
            del self._places[place]

    # --- what is told ------------------------------------------------------------------------------------------------------

    def follow(self, account: Account) -> None:
        account.subscribers[:] = [lambda update: self._publish_update(account, update)]

    def _publish_update(self, account: Account, update: Json) -> None:
        key = account.spec.key
        for seconds, frame in self.server.faults.updates(update, key):
            if seconds:
                asyncio.get_running_loop().call_later(seconds, self._tell, key, frame)
            else:
                self._tell(key, frame)

    def _tell(self, key: str, frame: Json | None) -> None:
        connection = self._places.get((TradeConnection.where, key))
        if isinstance(connection, TradeConnection) and connection.listens:
            connection.send({"stream": "trade_updates", "data": frame})

    def connections(self) -> list[Connection]:
        """Those that have shown their keys."""
        return [connection for connection in list(self._places.values()) if connection is not None]

    def _data_connections(self) -> list[DataConnection]:
        return [connection for connection in self.connections() if isinstance(connection, DataConnection)]

    def publish_bars(self, at: datetime, bars: list[Bar]) -> None:
        if not (connections := self._data_connections()):
            return
        messages = [("bars", bar.symbol, {"T": "b", "S": bar.symbol, **views.bar_json(bar)}) for bar in bars]
        for bar in bars:
            quote = self.server.market.quote(bar.symbol, at)
            if quote is not None:
                messages.append(("quotes", bar.symbol, {"T": "q", "S": bar.symbol, **views.quote_json(quote)}))
        for connection in connections:
            wanted = [message for channel, symbol, message in messages if connection.wants(channel, symbol)]
            if wanted:
                connection.send(wanted)

    def publish_status(self, status: Status) -> None:
        for connection in self._data_connections():
            if connection.wants("statuses", status.symbol):
                connection.send([{"T": "s", **views.status_json(status)}])

    def publish_correction(self, bar: Bar) -> None:
        for connection in self._data_connections():
            if connection.wants("updatedBars", bar.symbol):
                connection.send([{"T": "u", "S": bar.symbol, **views.bar_json(bar)}])
