"""Measures the way from a bar to an order: ours against a bare handler of alpaca-py that orders at once, on one loopback server.

    python tools/bench_latency.py                        a minute: 4 rounds of 100 orders of each client
    python tools/bench_latency.py --rounds 10 --orders 200

This process is the server, and each client is a process of its own. All are connected all the time, each to an account and a symbol
of its own, and get a bar in turn, so that whatever slows the machine down meets all of them. The time of one order is taken by the
server alone: from before the bar's frame is written to the socket until POST /v2/orders has arrived whole. Ours decides, passes the
risk gate, and has the order on the disk with full sync before it sends it. A disk that others use as well is the larger part of
that, so there is a client that commits one row with full sync and then orders: what no program can do faster that records first.
`TMPDIR=/dev/shm` takes the disk out of all of it. Measured too: the processor time of our process while it waits for a bar.

To measure another client: a row in `CLIENTS`.
"""

import argparse
import gc
import os
import queue
import sqlite3
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mqd_ledger.strategies.base import Signal, Signals, Strategy
from mqd_ledger.values import Bar, Direction

if TYPE_CHECKING:
    from aiohttp import web

    from mqd_ledger.loopback.server import LoopbackServer

ROOT = Path(__file__).resolve().parent.parent
NOW = datetime(2026, 2, 2, 15, tzinfo=UTC)  # market time at the start, in a session
PAST = date(2025, 1, 2)  # the bars that are pushed are of days before, so that there are enough of them
WARM_UP = 20  # orders of each client that do not count
READY_SECONDS, ANSWER_SECONDS = 60.0, 10.0
IDLE_SECONDS = 20.0
GAP, SPREAD = 0.04, 0.06  # seconds between two bars: at least, and up to so much more
GOLDEN = (
    0.618033988749895  # its multiples spread evenly over 0 to 1, so that no client's own beat meets that of the bars
)
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


def bare(url: str, number: int, *, is_raw: bool, record: Path | None = None) -> None:
    """As alpaca-py's own pages show it: a stream whose handler submits an order. With a record, commits a row before it does."""
    from alpaca.data.live import StockDataStream
    from alpaca.trading.client import TradingClient
    from alpaca.trading.enums import OrderSide, TimeInForce
    from alpaca.trading.requests import MarketOrderRequest

    key, secret, symbol = f"PKLOOPBACK{number}", "loopback-secret", symbol_of(number)
    client = TradingClient(key, secret, url_override=url, raw_data=is_raw)
    stream = StockDataStream(key, secret, url_override=f"ws{url.removeprefix('http')}/v2/iex", raw_data=is_raw)
    side = OrderSide.SELL
    database = sqlite3.connect(record or ":memory:", isolation_level=None, check_same_thread=False)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=full")
    database.execute("create table log(position integer primary key, payload text)")

    async def on_bar(bar: Any) -> None:
        nonlocal side
        side = OrderSide.BUY if side is OrderSide.SELL else OrderSide.SELL
        name = bar["S"] if is_raw else bar.symbol
        if record is not None:
            database.execute("insert into log(payload) values (?)", ("x" * 1000,))  # about what a turn of ours has
        client.submit_order(MarketOrderRequest(symbol=name, qty=1, side=side, time_in_force=TimeInForce.DAY))

    stream.subscribe_bars(on_bar, symbol)
    stream.run()


def symbol_of(number: int) -> str:
    return f"SYN{'ABCDEFGHIJ'[number - 1]}"


def bare_command(*kind: str) -> "Callable[[str, int, Path], list[str]]":
    def command(url: str, number: int, directory: Path) -> list[str]:
        own = ["--url", url, "--number", str(number), "--directory", str(directory)]
        return [sys.executable, __file__, "--bare", *kind, *own]

    return command


def our_command(url: str, number: int, directory: Path) -> list[str]:
    settings = [f"risk.{name}=null" for name in NO_LIMITS]
    settings += ["alpaca.requests_per_minute=10000", "operation.feed_silent_after=100000", "quotes=false"]
    return [
        *(sys.executable, "-m", "mqd_ledger", "run", "--paper", "--broker", "loopback", "--loopback-url", url),
        *(
            "--symbols",
            symbol_of(number),
            "--strategy",
            f"{__file__}:Every",
            "--ledger",
            str(directory / "ours.ledger"),
        ),
        *(word for setting in settings for word in ("--set", setting)),
    ]


class Client(NamedTuple):
    name: str
    command: Callable[[str, int, Path], list[str]]
    is_limit: bool = False  # whether ours is held against it


OURS = Client("ours", our_command)
# Ours comes first: without keys of its own it takes the first account.
CLIENTS = (
    OURS,
    Client("bare, parsed", bare_command("parsed"), is_limit=True),
    Client("bare, raw", bare_command("raw"), is_limit=True),
    Client("bare, commits a row", bare_command("recorded")),
)


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
                await request.read()
                watch.came.put((time.perf_counter(), request.headers["APCA-API-KEY-ID"]))
            return None

        def socket(self, where: Where, /, *, autoping: bool) -> "web.WebSocketResponse":
            return Socket(autoping=autoping) if where == "data_socket" else super().socket(where, autoping=autoping)

    class Still(LoopbackServer):
        def _make_market(self, bars: Any, _speed: float | None) -> None:
            self.clock = MarketClock(NOW, 1)
            self.market = Market(bars, self.clock, self.seed)

    symbols = tuple(symbol_of(number + 1) for number in range(clients))
    last = [
        bar
        for bar in sample_bars(symbols, sessions=1, seed=3, start=NOW.date())
        if bar.start_at > NOW + timedelta(hours=5)
    ]
    specs = account_specs(clients, Decimal(10_000_000))
    return Still(last, accounts=specs, switches=Switches(partial_percent=0), faults=Watching()), watch


class Bars:
    """Bars of one symbol, each later than the one before."""

    def __init__(self, symbol: str) -> None:
        from mqd_ledger.feeds.sample import sample_bars

        self._bars: Iterator[Bar] = iter(sample_bars((symbol,), sessions=200, seed=5, start=PAST))

    def __next__(self) -> Bar:
        return next(self._bars)


class Bench:
    """One server with all clients connected to it."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        server, self._watch = serving(len(CLIENTS))
        self._server = stack.enter_context(server)
        self._bars = [Bars(symbol_of(place + 1)) for place in range(len(CLIENTS))]
        self._pushed = 0
        self.processes = []
        for number, client in enumerate(CLIENTS, 1):
            said = stack.enter_context((directory / f"{number}.txt").open("wb"))
            command = client.command(server.rest_url, number, directory)
            process = stack.enter_context(subprocess.Popen(command, stdout=said, stderr=said, cwd=ROOT))
            stack.callback(process.terminate)
            self.processes.append(process)

    def push(self, place: int, patience: float) -> float | None:
        """Seconds from the next bar of a client to its order; None if none came in time."""
        self._pushed += 1
        time.sleep(GAP + SPREAD * (self._pushed * GOLDEN % 1))
        bar = next(self._bars[place])
        self._server.call(lambda: self._server.streams.publish_bars(self._server.clock.now(), [bar]))
        key = self._server.specs[place].key
        try:
            came_at, by = self._watch.came.get(timeout=patience)
        except queue.Empty:
            return None
        if by != key:
            raise SystemExit(f"An order of {by} came where one of {key} was due; the clients are out of step.")
        return came_at - self._watch.sent_at

    def warm_up(self, directory: Path) -> None:
        for place, client in enumerate(CLIENTS):
            give_up_at = time.monotonic() + READY_SECONDS
            orders = 0
            while orders < WARM_UP:
                orders += self.push(place, 0.5) is not None
                if time.monotonic() > give_up_at or self.processes[place].poll() is not None:
                    words = (directory / f"{place + 1}.txt").read_text(errors="replace")[-2000:]
                    raise SystemExit(f"{client.name} sent {orders} orders of {WARM_UP}. It said: {words}")

    def round(self, orders: int) -> list[list[float]]:
        times: list[list[float]] = [[] for _ in CLIENTS]
        for _ in range(orders):
            for place, client in enumerate(CLIENTS):
                seconds = self.push(place, ANSWER_SECONDS)
                if seconds is None:
                    raise SystemExit(f"{client.name} sent no order for a bar within {ANSWER_SECONDS:g} s.")
                times[place].append(seconds)
        return times


def percentile(times: Sequence[float], part: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * part))]


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_share(pid: int) -> float:
    """Of one processor, while no bar comes."""
    before, began = processor_seconds(pid), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return (processor_seconds(pid) - before) / (time.monotonic() - began)


def show(rounds: list[list[list[float]]]) -> None:
    print(
        f"{'from bar to order, milliseconds':<34} {'median':>8} {'p90':>8} {'p99':>8}   ours / it: {'median':>6} {'p99':>6}"
    )
    ours = [times[0] for times in rounds]
    for place, client in enumerate(CLIENTS):
        its = [times[place] for times in rounds]
        every = [one for times in its for one in times]
        figures = " ".join(f"{percentile(every, part) * 1000:>8.2f}" for part in (0.5, 0.9, 0.99))
        medians = [percentile(one, 0.5) / percentile(other, 0.5) for one, other in zip(ours, its, strict=True)]
        all_ours = [one for times in ours for one in times]
        tail = percentile(all_ours, 0.99) / percentile(every, 0.99)
        wanted = f"  (at most {WANTED})" if client.is_limit else ""
        ratios = "" if client is OURS else f"{statistics.median(medians):>17.2f} {tail:>6.2f}{wanted}"
        print(f"{client.name:<34} {figures} {ratios}")


def measure(rounds: int, orders: int) -> None:
    with tempfile.TemporaryDirectory(prefix="mqd-latency-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        bench = Bench(Path(name), stack)
        bench.warm_up(Path(name))
        gc.collect()
        gc.freeze()
        show([bench.round(orders) for _ in range(rounds)])
        if Path("/proc").is_dir():
            print(
                f"ours, while nothing comes: {100 * idle_share(bench.processes[0].pid):.1f} % of a processor (under 2)"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--orders", type=int, default=100, help="of each client in each round")
    parser.add_argument(
        "--bare", choices=("parsed", "raw", "recorded"), help=argparse.SUPPRESS
    )  # the process of a client
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        record = arguments.directory / "bare.db" if arguments.bare == "recorded" else None
        bare(arguments.url, arguments.number, is_raw=arguments.bare == "raw", record=record)
    else:
        measure(arguments.rounds, arguments.orders)


if __name__ == "__main__":
    main()
