"""A loopback server and the real alpaca-py clients for tests: prices in words, updates as they arrive, nothing left running."""

import asyncio
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Self

from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.live.stock import StockDataStream
from alpaca.trading.client import TradingClient
from alpaca.trading.stream import TradingStream

from mqd_ledger.loopback.account import AccountSpec
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.loopback.switches import Switches
from mqd_ledger.values import Bar
from tests.dsl import MINUTE, OPENING

KEY, SECRET = AccountSpec().key, AccountSpec().secret
WHOLE = Switches(partial_percent=0)  # every order is filled as a whole
PATIENCE = 10.0  # seconds
TO_THE_OPEN = 5  # minutes from where the server starts


def one_price(symbol: str, start: datetime, price: str) -> Bar:
    value = Decimal(price)
    return Bar(symbol, "1m", start, value, value, value, value, 1000, "synthetic")


def minutes(**prices: str) -> list[Bar]:
    """`minutes(SPY="100 101 102")`: bars of one price each from the open of 2026-01-05 on; `-` is a minute without trades."""
    bars = [
        one_price(symbol, OPENING + place * MINUTE, price)
        for symbol, text in prices.items()
        for place, price in enumerate(text.split())
        if price != "-"
    ]
    return sorted(bars, key=lambda bar: (bar.start_at, bar.symbol))


def flat(days: int = 1, price: str = "100", symbol: str = "SPY") -> list[Bar]:
    """Whole sessions from 2026-01-05 on at one price."""
    return [
        one_price(symbol, OPENING + timedelta(days=day) + minute * MINUTE, price)
        for day in range(days)
        for minute in range(390)
    ]


@contextmanager
def opened(bars: Sequence[Bar], **options: Any) -> Iterator[LoopbackServer]:
    """A server that stands at the open of the first bar's session."""
    with LoopbackServer(bars, **{"switches": WHOLE, **options}) as server:
        server.step(TO_THE_OPEN)
        yield server


def client(server: LoopbackServer, key: str = KEY, *, raw: bool = True) -> Any:
    """A `TradingClient`. Its annotations are unions of all that it may return, so it goes as Any."""
    return _bounded(TradingClient(key, SECRET, raw_data=raw, url_override=server.rest_url))


def history(server: LoopbackServer) -> Any:
    return _bounded(StockHistoricalDataClient(KEY, SECRET, url_override=server.rest_url))


def _bounded(rest: Any) -> Any:
    """The client has no time-out of its own, and would ask a proxy."""
    rest._session.trust_env = False
    rest._session.request = partial(rest._session.request, timeout=PATIENCE)
    return rest


def order(trading: Any, text: str, **more: object) -> Any:
    """`"buy 10 SPY"`, `"sell 5 SPY limit 101"`, `"buy 5 SPY stop 101 gtc"`: the answer to POST /orders."""
    side, size, symbol, *rest = text.split()
    body: dict[str, object] = {"side": side, "symbol": symbol, "type": "market", "time_in_force": "day"}
    body |= {"notional": size[1:]} if size.startswith("$") else {"qty": size}
    if rest and rest[-1] in {"day", "gtc", "ioc", "fok", "opg", "cls"}:
        body["time_in_force"] = rest.pop()
    if rest:
        kind, *prices = rest
        names = {"limit": ["limit_price"], "stop": ["stop_price"], "stop_limit": ["stop_price", "limit_price"]}[kind]
        body |= {"type": kind, **dict(zip(names, prices, strict=True))}
    return trading.post("/orders", {**body, **more})


class Listening:
    """A stream of alpaca-py on a thread of its own; what it hears is in `heard`."""

    def __init__(self, stream: TradingStream | StockDataStream) -> None:
        self.stream = stream
        self.heard: list[Any] = []
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    async def hear(self, message: Any) -> None:
        self.heard.append(message)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self.stream._run_forever())
        self._loop.run_until_complete(asyncio.gather(self._task, return_exceptions=True))
        self._loop.run_until_complete(self.stream.close())
        self._loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(self._loop), return_exceptions=True))
        self._loop.close()

    @staticmethod
    async def _end(task: asyncio.Task[None]) -> None:
        while not task.done():  # waiting with a time-out can swallow a cancel
            task.cancel()
            await asyncio.sleep(0.005)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._task is not None
        asyncio.run_coroutine_threadsafe(self._end(self._task), self._loop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def until(self, count: int) -> list[Any]:
        """Everything heard, as soon as it is so much."""
        until(lambda: len(self.heard) >= count)
        return list(self.heard)


@contextmanager
def updates(server: LoopbackServer, key: str = KEY) -> Iterator[Listening]:
    """The trade updates of an account from now on."""
    stream = TradingStream(key, SECRET, raw_data=True, url_override=server.stream_url)
    listening = Listening(stream)
    stream.subscribe_trade_updates(listening.hear)
    with listening:
        until(lambda: any(getattr(one, "listens", False) for one in server.streams.connections()))
        yield listening


def events(heard: Sequence[Any]) -> list[str]:
    return [message["data"]["event"] for message in heard]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come to be so in time"
        time.sleep(0.002)


def fetch(url: str) -> Any:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=PATIENCE) as response:
        return json.loads(response.read())
