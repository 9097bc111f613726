"""The loopback server: one aiohttp application on a thread of its own, with everything that a test does to it by hand.

    with LoopbackServer(sample_bars(), speed=None) as server:
        client = TradingClient(key, secret, url_override=server.rest_url)
        server.step(6)                      # five minutes to the open, and one more

All state belongs to the server's thread; `call` runs a function there and waits for it. `stop` drops every connection at once, as
a crash does; `restart` comes back on the same port with what the directory holds (in memory: with what there was).
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.sample import sample_bars
from mqd_ledger.loopback.account import Account, AccountSpec
from mqd_ledger.loopback.clock import MarketClock, later, played_span
from mqd_ledger.loopback.control import Control
from mqd_ledger.loopback.hooks import Hooks, NoFaults
from mqd_ledger.loopback.market import Market
from mqd_ledger.loopback.rest import Rest
from mqd_ledger.loopback.streams import Streams
from mqd_ledger.loopback.switches import Switches
from mqd_ledger.loopback.tickets import Ticket
from mqd_ledger.values import Bar, OrderType, Side, TimeInForce, iso

MINUTE = timedelta(minutes=1)
HOST = "127.0.0.1"
PATIENCE = 30.0  # seconds for anything that is asked of the server's thread
T = TypeVar("T")


class LoopbackServer:
    def __init__(
        self,
        bars: Iterable[object] | None = None,
        *,
        accounts: Sequence[AccountSpec] = (AccountSpec(),),
        seed: int = 0,
        speed: float | None = None,
        directory: Path | None = None,
        switches: Switches = Switches(),  # noqa: B008  frozen
        faults: Hooks | None = None,
        port: int = 0,
    ) -> None:
        """`bars` in the order of their ends (none: the synthetic sample); `speed` None: the market moves by `step` alone."""
        self.specs = tuple(accounts)
        self.seed = seed
        self.directory = directory
        self.switches = switches
        self.faults: Hooks = NoFaults() if faults is None else faults
        self.port = port
        self.accounts: dict[str, Account] = {}
        self.streams = Streams(self)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._make_market(sample_bars() if bars is None else bars, speed)
        self._closed = True
        self._life = threading.RLock()  # starting, stopping and what is done by hand wait for each other
        self.ended = threading.Event()  # somebody has asked for the end over /loopback/stop

    def _make_market(self, bars: Iterable[object], speed: float | None) -> None:
        usable = (bar for bar in bars if isinstance(bar, Bar))
        first = next(usable, None)
        if first is None:
            raise BadInput("There is no bar to play. Give a file with at least one, or leave it out for the sample.")
        start = played_span(first.start_at)[0]
        came_to = self._came_to()
        self.clock = MarketClock(max(start, came_to or start), speed)
        self.market = Market(chain([first], usable), self.clock, self.seed)
        if came_to is not None:
            self.market.catch_up(came_to)

    @property
    def _place(self) -> Path | None:
        return None if self.directory is None else self.directory / "market.json"

    def _came_to(self) -> datetime | None:
        """How far an earlier server on this directory has played."""
        if self._place is None or not self._place.exists():
            return None
        return datetime.fromisoformat(json.loads(self._place.read_text())["played_until"])

    def _keep_place(self, at: datetime, _bars: list[Bar]) -> None:
        if self._place is not None:
            part = self._place.with_suffix(".part")
            part.write_text(json.dumps({"played_until": iso(at)}))
            part.replace(self._place)

    # --- life --------------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        with self._life:
            if self._thread is not None:
                raise BadInput("This server runs already; stop it before it is started again.")
            if self._closed:
                self._open_accounts()
            ready = threading.Event()
            failures: list[OSError] = []
            self._thread = threading.Thread(
                target=lambda: asyncio.run(self._serve(ready, failures)), name="loopback server", daemon=True
            )
            self._thread.start()
            ready.wait(PATIENCE)
            if failures:
                self.stop()
                raise BadInput(
                    f"The loopback server cannot listen on {HOST}:{self.port}: {failures[0]}. Choose another port."
                )
            return self

    def _open_accounts(self) -> None:
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.accounts = {}
        for spec in self.specs:
            if spec.key not in self.accounts:
                self.accounts[spec.key] = Account(spec, self.market, self.switches, self.seed, self.directory)
        for account in self.accounts.values():
            self.streams.follow(account)
        self.market.on_play[:] = [self._play_accounts, self.streams.publish_bars, self._keep_place]
        self.market.on_status[:] = [self.streams.publish_status]
        self.market.on_correction[:] = [self.streams.publish_correction]
        self.faults.attach(self)
        self._closed = False

    def _play_accounts(self, at: datetime, bars: list[Bar]) -> None:
        for account in self.accounts.values():
            account.play(at, bars)

    async def _serve(self, ready: threading.Event, failures: list[OSError]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=0)
        await runner.setup()
        player: asyncio.Task[None] | None = None
        try:
            site = web.TCPSite(runner, HOST, self.port, reuse_address=True)
            await site.start()
            self.port = runner.addresses[0][1]
            if self.clock.speed is not None:
                player = asyncio.create_task(self._play())
            ready.set()
            stopped = asyncio.create_task(self._stopping.wait())
            await asyncio.wait([stopped, *([] if player is None else [player])], return_when=asyncio.FIRST_COMPLETED)
            if player is not None and not stopped.done():
                player.result()  # raises what ended it
            self._drop_connections(runner)
        except OSError as failure:
            failures.append(failure)
            ready.set()
        finally:
            if player is not None:
                player.cancel()
            await runner.cleanup()

    def _application(self) -> web.Application:
        app = web.Application()
        Rest(self).add_to(app)
        Control(self).add_to(app)
        self.streams.add_to(app)
        return app

    @staticmethod
    def _drop_connections(runner: web.AppRunner) -> None:
        for connection in list(runner.server.connections if runner.server is not None else ()):
            if connection.transport is not None:
                connection.transport.abort()

    async def _play(self) -> None:
        """The market by itself: whatever is due is played, then the next of it is waited for."""
        while True:
            due = self.market.due()
            if due <= self.clock.now():
                self.market.play(due)
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(min(self.clock.seconds_until(due), 60))

    def stop(self) -> None:
        """Everything ends at once: nobody is told, connections break."""
        with self._life:
            if self._thread is None:
                return
            if self._loop is not None and self._stopping is not None and self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(PATIENCE)
            self._thread = None
            self.streams.forget()
            if self.directory is not None:
                for account in self.accounts.values():
                    account.close()
                self._closed = True

    def restart(self) -> Self:
        with self._life:
            self.stop()
            return self.start()

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()
        if not self._closed:
            for account in self.accounts.values():
                account.close()

    # --- addresses ---------------------------------------------------------------------------------------------------------

    @property
    def rest_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def stream_url(self) -> str:
        return f"ws://{HOST}:{self.port}/stream"

    @property
    def data_url(self) -> str:
        return f"ws://{HOST}:{self.port}/v2/iex"

    def account(self, key: str = "") -> Account:
        """The account of a key; of the first without one."""
        return self.accounts[key or self.specs[0].key]

    # --- by hand, from any thread --------------------------------------------------------------------------------------------

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the server's thread and wait for what it returns."""
        if threading.current_thread() is self._thread:
            return function()

        async def run() -> T:
            return function()

        with self._life:
            if self._loop is None or self._thread is None:
                raise BadInput("The loopback server does not run. Start it first.")
            return asyncio.run_coroutine_threadsafe(run(), self._loop).result(PATIENCE)

    def step(self, minutes: int = 1) -> datetime:
        """Play so many minutes; nights and weekends are none. The market time afterwards."""

        def steps() -> datetime:
            for _ in range(minutes):
                now = self.clock.now().replace(second=0, microsecond=0)
                self._play_until(later(now, MINUTE))
            return self.clock.now()

        return self.call(steps)

    def play_until(self, at: datetime) -> None:
        self.call(lambda: self._play_until(at))

    def _play_until(self, at: datetime) -> None:
        while (due := self.market.due()) <= at:
            self.clock.advance_to(max(due, self.clock.now()))  # bars before the played hours come late
            self.market.play(due)
        self.clock.advance_to(at)

    def by_hand(self, key: str, symbol: str, side: Side, quantity: Decimal) -> dict[str, Any]:
        """A market order as if placed in Alpaca's web page: its client_order_id is a uuid. The order as it was when it came."""
        ticket = Ticket(
            symbol=symbol,
            side=side,
            order_type=OrderType.MARKET,
            time_in_force=TimeInForce.DAY,
            quantity=quantity,
        )
        return self.call(lambda: self.account(key).submit(ticket))

    def close_by_hand(self, key: str, symbol: str) -> dict[str, Any]:
        held = self.account(key).held_quantity(symbol)
        if not held:
            raise BadInput(f"Account {key} holds no {symbol}, so there is nothing to close.")
        return self.by_hand(key, symbol, Side.SELL if held > 0 else Side.BUY, abs(held))
