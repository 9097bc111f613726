"""Measures the way from a bar to an order: ours against a bare handler of alpaca-py that orders at once, on one loopback server.

    python tools/bench_latency.py                        a minute: 4 rounds of 100 orders of each client
    python tools/bench_latency.py --rounds 10 --orders 200

This process is the server, and each client is a process of its own. All are connected all the time, each to an account and a symbol
of its own, and get a bar in turn, so that whatever slows the machine down meets all of them. The time of one order is taken by the
server alone: from before the bar's frame is written to the socket until POST /v2/orders has arrived. Ours decides, passes the risk
gate, and has the order on the disk with full sync before it sends it. What the machine does when nothing happens is measured too:
the processor time of our process while it waits for a bar.

To measure another client: a row in `CLIENTS`.
"""

import argparse
import gc
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mqd_ledger.strategies.base import Signal, Signals, Strategy
from mqd_ledger.values import Bar, Direction

if TYPE_CHECKING:
    from aiohttp import web

    from mqd_ledger.loopback.server import LoopbackServer

NOW = datetime(2026, 2, 2, 15, tzinfo=UTC)  # market time at the start, in a session
PAST = date(2025, 1, 2)  # the bars that are pushed are of days before, so that there are enough of them
WARM_UP = 20  # orders of each client that do not count
READY_SECONDS, ANSWER_SECONDS = 60.0, 10.0
IDLE_SECONDS = 20.0
GAP, SPREAD = 0.04, 0.06  # seconds between two bars: at least, and up to so much more
GOLDEN = 0.618033988749895  # its multiples spread evenly over 0 to 1, so that no client's own beat meets that of the bars
WANTED = 1.3  # ours / bare, at most
NO_LIMITS = (
    *("stale_after", "daily_loss_max", "weekly_loss_max", "position_notional_max", "position_percent_max"),
    *("exposure_max", "positions_max", "orders_per_day_max", "duplicate_window", "order_notional_min"),
)


class Every(Strategy):
    """Orders on every bar: in at one, out at the next."""

    def on_bar(self, bar: Bar) -> Signals:
        if bar.start_at.minute % 2:
            return Signal(Direction.FLAT, "out")
        return Signal(Direction.LONG, "in", quantity=Decimal(1))


def bare(url: str, number: int, *, is_raw: bool) -> None:
    """As alpaca-py's own pages show it: a stream whose handler submits an order."""
    from alpaca.data.live import StockDataStream
    from alpaca.trading.client import TradingClient
    from alpaca.trading.enums import OrderSide, TimeInForce
    from alpaca.trading.requests import MarketOrderRequest

    key, secret, symbol = f"PKLOOPBACK{number}", "loopback-secret", symbol_of(number)
    client = TradingClient(key, secret, url_override=url, raw_data=is_raw)
    stream = StockDataStream(key, secret, url_override=f"ws{url.removeprefix('http')}/v2/iex", raw_data=is_raw)
    side = OrderSide.SELL

    async def on_bar(bar: Any) -> None:
        nonlocal side
        side = OrderSide.BUY if side is OrderSide.SELL else OrderSide.SELL
        name = bar["S"] if is_raw else bar.symbol
        client.submit_order(MarketOrderRequest(symbol=name, qty=1, side=side, time_in_force=TimeInForce.DAY))

    stream.subscribe_bars(on_bar, symbol)
    stream.run()


def symbol_of(number: int) -> str:
    return f"SYN{'ABCDEFGHIJ'[number - 1]}"


def bare_command(kind: str) -> "Callable[[str, int, Path], list[str]]":
    return lambda url, number, _: [sys.executable, __file__, "--bare", kind, "--url", url, "--number", str(number)]


def our_command(url: str, number: int, directory: Path) -> list[str]:
    settings = [f"risk.{name}=null" for name in NO_LIMITS]
    settings += ["alpaca.requests_per_minute=10000", "operation.feed_silent_after=100000", "quotes=false"]
    return [
        *(sys.executable, "-m", "mqd_ledger", "run", "--paper", "--broker", "loopback", "--loopback-url", f"{url}/{number}"),
        *("--symbols", symbol_of(number), "--strategy", f"{__file__}:Every", "--ledger", str(directory / "ours.ledger")),
        *(word for setting in settings for word in ("--set", setting)),
    ]


class Client(NamedTuple):
    name: str
    command: Callable[[str, int, Path], list[str]]


OURS = Client("ours", our_command)
CLIENTS = (OURS, Client("bare, parsed", bare_command("parsed")), Client("bare, raw", bare_command("raw")))


# --- the server -----------------------------------------------------------------------------------------------------------


class Watch:
    """When the last bar left, and when orders came: `hooks.Hooks` of a server on which nothing goes wrong."""

    def __init__(self) -> None:
        self.sent_at = 0.0
        self.came: queue.Queue[tuple[float, str]] = queue.Queue()  # when, and by which key


def serving(clients: int) -> "tuple[LoopbackServer, Watch]":
    """A server that plays nothing by itself: its next bar is hours away."""
    from aiohttp import web

    from mqd_ledger.feeds.sample import sample_bars
    from mqd_ledger.loopback.account import account_specs
    from mqd_ledger.loopback.clock import MarketClock
    from mqd_ledger.loopback.hooks import NoFaults, Where
    from mqd_ledger.loopback.market import Market
    from mqd_ledger.loopback.server import LoopbackServer
    from mqd_ledger.loopback.switches import Switches

    watch = Watch()

    class Socket(web.WebSocketResponse):
        async def send_bytes(self, data: bytes, compress: int | None = None) -> None:
            watch.sent_at = time.perf_counter()
            await super().send_bytes(data, compress)

    class Watching(NoFaults):
        async def request(self, request: "web.Request") -> "web.StreamResponse | None":
            if request.method == "POST" and request.path == "/v2/orders":
                watch.came.put((time.perf_counter(), request.headers["APCA-API-KEY-ID"]))
            return None

        def socket(self, where: Where, /, *, autoping: bool) -> "web.WebSocketResponse":
            return Socket(autoping=autoping) if where == "data_socket" else super().socket(where, autoping=autoping)

    class Still(LoopbackServer):
        def _make_market(self, bars: Any, _speed: float | None) -> None:
            self.clock = MarketClock(NOW, 1)
            self.market = Market(bars, self.clock, self.seed)

    symbols = tuple(symbol_of(number + 1) for number in range(clients))
    last = [bar for bar in sample_bars(symbols, sessions=1, seed=3, start=NOW.date()) if bar.start_at > NOW + timedelta(hours=5)]
    specs = account_specs(clients, Decimal(10_000_000))
    return Still(last, accounts=specs, switches=Switches(partial_percent=0), faults=Watching()), watch
