"""The composition of a run with a broker elsewhere: whose account, over which ways, by which clock.

`app.py` is the same for simulated money.
"""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import setcontext
from functools import partial
from http.client import HTTPConnection, HTTPException
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mqd_ledger.app import MODES, opened_ledger
from mqd_ledger.brokers.alpaca import AlpacaBroker
from mqd_ledger.brokers.alpaca_rest import AlpacaRest, Budget
from mqd_ledger.brokers.alpaca_stream import TradeUpdates
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.desk.connection import Connection
from mqd_ledger.desk.loop import DeskPlan, trade
from mqd_ledger.envelope import stored_names
from mqd_ledger.errors import BadInput
from mqd_ledger.events import AccountAttached, Source
from mqd_ledger.feeds.alpaca import AlpacaFeed
from mqd_ledger.feeds.alpaca_history import missing_bars
from mqd_ledger.feeds.connection import Timing
from mqd_ledger.log import LogReader
from mqd_ledger.loopback.clock import LoopbackClock
from mqd_ledger.runs import Controls, Outcome, strategies_loader
from mqd_ledger.settings import Settings
from mqd_ledger.snapshots import checked
from mqd_ledger.values import ARITHMETIC, Symbol

READY_SECONDS = 10.0  # a server on this machine answers sooner


@dataclass(frozen=True)
class Urls:
    """Where an environment is reached; None: the client library knows."""

    rest: str | None = None
    stream: str | None = None
    data: str | None = None  # market data as a stream
    history: str | None = None


@dataclass(frozen=True)
class Clock:
    """The time that a run lives in."""

    now: Callable[[], datetime]
    rate: Callable[[], float] = lambda: 1.0  # its seconds in a second of the wall's
    is_over: Callable[[], bool] = lambda: False


def wall_clock() -> Clock:
    return Clock(lambda: datetime.now(UTC))


def market_clock(url: str) -> Clock:
    """Of a loopback server: the time of the bars that it plays."""
    clock = LoopbackClock(url)
    return Clock(clock.now, lambda: clock.rate, lambda: clock.is_over)


def connection_to(
    environment: str,
    settings: Settings,
    keys: Keys,
    urls: Urls,
    symbols: tuple[Symbol, ...],
    clock: Clock,
    timing: Timing,
    *,
    bars: str = "alpaca",
) -> Connection:
    """All ways to one account; nothing is connected before the desk starts them. `bars` are of that kind (`Source.kind`)."""
    # Of the market's minutes, which may be shorter than the wall's.
    per_minute = settings.alpaca.requests_per_minute * max(1, ceil(clock.rate()))
    rest = AlpacaRest(keys, urls.rest, environment, budget=Budget(per_minute))
    feed = settings.alpaca.feed
    name = f"{environment} {feed}: {', '.join(symbols)}"
    return Connection(
        source=Source(bars, name, hashlib.sha256(name.encode()).hexdigest()),
        environment=environment,
        broker=AlpacaBroker(rest, clock.now),
        trades=lambda sink: TradeUpdates(keys, urls.stream, sink, clock.now, timing=timing),
        feed=lambda sink: AlpacaFeed(
            keys, urls.data, symbols, sink, clock.now, feed=feed, quotes=settings.quotes, timing=timing
        ),
        history=lambda since, until: missing_bars(keys, urls.history, since, until, feed=feed),
        symbols=symbols,
        clock=clock.now,
        rate=clock.rate,
        is_over=clock.is_over,
    )


def mode_of(connection: Connection) -> str:
    """The row of `app.MODES`."""
    return "loopback" if connection.environment == "loopback" else f"alpaca-{connection.environment}"


def plan_of(settings: Settings, connection: Connection) -> DeskPlan:
    mode = mode_of(connection)
    reactors = MODES[mode].reactors
    assert reactors is not None
    wanted = [(strategy.name, strategy.parameters) for strategy in settings.strategies]
    return DeskPlan(
        mode, connection.source, strategies_loader(wanted), settings.policy, new_ledger_id(), reactors, connection
    )


def plan_to_kill(settings: Settings, connection: Connection) -> DeskPlan:
    """Without strategies, until the broker has shown that nothing is left."""
    plan = plan_of(settings, connection)
    return replace(plan, strategies=lambda: ((), {}), until=lambda state: state.kill_switch_completed)


def new_ledger_id() -> str:
    """Never given before: every client_order_id begins with it, and Alpaca remembers those of all ledgers there ever were."""
    number, digits = time.time_ns(), ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return f"mqd{digits}"


def run(plan: DeskPlan, ledger: Path, controls: Controls) -> Outcome:
    """Trade with the broker on a ledger that survives: the same call goes on where the last one ended."""
    setcontext(ARITHMETIC.copy())
    with opened_ledger(ledger, MODES[plan.mode], controls) as log:
        checked(log, controls.snapshots)  # what was tampered with is not traded on
        if controls.snapshots is not None and controls.snapshots.head(log).position:
            plan = replace(plan, check=partial(_check_whole, ledger.absolute()))
        try:
            return trade(log, plan, controls)
        finally:
            plan.connection.broker.rest.close()


def _check_whole(ledger: Path) -> str:
    """In a process of its own, beside the trading. What is wrong, or nothing."""
    command = [sys.executable, "-m", "mqd_ledger.snapshots", str(ledger)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or f"it ended with exit code {done.returncode}"


# --- the loopback server as a child process ---------------------------------------------------------------------------


class Server(NamedTuple):
    urls: Urls
    keys: Keys
    symbols: tuple[Symbol, ...]
    bars: str  # "synthetic" or "file"


@contextmanager
def loopback_server(arguments: Sequence[str]) -> Iterator[Server]:
    """A loopback server of this run's own, which ends with it, however it ends."""
    command = [sys.executable, "-m", "mqd_ledger", "loopback", "--json", "--until-stdin-ends", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        line = child.stdout.readline()
        try:
            if not line:
                raise BadInput("The loopback server did not start; what it says about it stands above.")
            yield server_of(json.loads(line))
        finally:
            child.stdin.close()
            child.stdout.close()


def ask_server(url: str) -> Server:
    """A loopback server that runs already, told by its REST address."""
    begin = "Start one with `mqd-ledger loopback` and give the address that it prints."
    try:
        place = urlsplit(url)
        if place.scheme != "http" or not place.hostname:
            raise ValueError("an address begins with http://")
        with closing(HTTPConnection(place.hostname, place.port, timeout=READY_SECONDS)) as asked:
            asked.request("GET", "/loopback/about")
            answer = asked.getresponse().read()
    except (OSError, HTTPException, ValueError) as error:
        raise BadInput(f"No loopback server answers at {url} ({error}). {begin}") from None
    try:
        return server_of(json.loads(answer))
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"What answers at {url} is no loopback server. {begin}") from None


def to_alpaca(settings: Settings, keys: Keys, symbols: tuple[Symbol, ...] = ()) -> Connection:
    return connection_to(keys.environment, settings, keys, Urls(), symbols or settings.symbols, wall_clock(), Timing())


def account_number_of(ledger: Path) -> str:
    """Whose books a ledger keeps; "" for a new one."""
    if not ledger.exists():
        return ""
    with LogReader.open(ledger) as log:
        attached = [one.event for one in log.replay(types=stored_names(AccountAttached))]
    return attached[-1].account_number if attached and isinstance(attached[-1], AccountAttached) else ""


def to_loopback(settings: Settings, server: Server) -> Connection:
    symbols = settings.symbols or server.symbols
    if unknown := [symbol for symbol in symbols if symbol not in server.symbols]:
        raise BadInput(
            f"symbols: found {', '.join(unknown)}; the server plays {', '.join(server.symbols)}, and no bar of another one would "
            "ever come. Leave --symbols away to trade what it plays, or let it play bars of your own with --bars FILE."
        )
    clock = market_clock(server.urls.rest or "")
    timing = _hurried(clock.rate())
    return connection_to("loopback", settings, server.keys, server.urls, symbols, clock, timing, bars=server.bars)


def _hurried(rate: float) -> Timing:
    """The patience of the streams where a minute of the market is shorter than one of the wall."""
    silent = max(2.0, 90 / rate) if rate else 90.0
    return Timing(open_within=5, silent_after=silent, backoff_min=0.1, backoff_max=2, limit_wait=2, end_within=2)


def server_of(told: Mapping[str, Any]) -> Server:
    """What a loopback server says of itself."""
    urls = Urls(told["rest"], told["stream"], told["data"], told["rest"])
    return Server(urls, Keys(told["key"], told["secret"], "loopback"), tuple(told["symbols"]), told["bars"])
