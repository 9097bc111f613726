"""The real desk against a loopback server whose market moves only when told: started, stepped, stopped and started again.

    with desk(tmp_path, minutes(SPY="100 101 102"), "14:30 SPY LONG 5") as trader:
        trader.bars(1)                                        the first minute has closed, and the desk has decided on it
        trader.wait_until(lambda state: state.positions)      the ledger says so

Nothing is replaced: the desk runs in a thread as `run` runs it in a process, with alpaca-py over real sockets. When the block ends
the ledger is proved, the strategies are run again, and positions, cash and executions are compared with the broker's own.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from msgspec import structs

from mqd_ledger import app, live, settings
from mqd_ledger import events as e
from mqd_ledger.brokers.alpaca import AlpacaBroker
from mqd_ledger.brokers.alpaca_rest import AlpacaRest, Budget
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.desk.connection import Connection
from mqd_ledger.errors import LedgerUnreadable
from mqd_ledger.evolve import evolve
from mqd_ledger.feeds.connection import Timing
from mqd_ledger.log import LogReader
from mqd_ledger.loopback.account import AccountSpec
from mqd_ledger.loopback.connections import DataConnection
from mqd_ledger.loopback.control import account_state
from mqd_ledger.loopback.faults import Faults
from mqd_ledger.loopback.faults_table import Fault
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.runs import Controls, Outcome
from mqd_ledger.sessions import next_session
from mqd_ledger.settings import Settings, StrategySettings
from mqd_ledger.state import State
from mqd_ledger.values import EPOCH, Bar, OrderState, plain
from tests.desk import environment
from tests.loopback import TO_THE_OPEN, WHOLE

DEADLINE = 20.0  # seconds of the wall for anything to come about
LOOK_EVERY = 0.01
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows SIGTERM ends a process as hard
COMPARISON = "GET /v2/account/activities"  # one of its requests
CALM = ("broker=loopback", "alpaca.requests_per_minute=10000", "risk.duplicate_window=null")
STRATEGY = f"{Path(__file__).with_name('scheduled.py')}:Scheduled"
SECRET = "S3cretOfTheLoopbackAccountNobodySees"  # noqa: S105  of an account that exists only here
PATIENCE = Timing(
    open_within=5, silent_after=90, backoff_min=0.02, backoff_max=0.1, limit_wait=0.1, close_within=1, end_within=2
)
E = TypeVar("E", bound=e.Event)


class Watched(Faults):
    """Faults that also remember which requests came."""

    def __init__(self, plan: Sequence[Fault] = (), seed: int = 0) -> None:
        self.requests: list[str] = []
        super().__init__(plan, seed)

    async def request(self, request: web.Request) -> web.StreamResponse | None:
        if not request.path.startswith("/loopback"):
            self.requests.append(f"{request.method} {request.path}")
        return await super().request(request)


def rows(*words: str, **params: str | float) -> tuple[Fault, ...]:
    """`rows("rest gateway_timeout_after method=POST at=1")`: one fault for each text, `params` for all of them."""
    found = []
    for text in words:
        where, kind, *more = text.split()
        pairs = dict(word.split("=", 1) for word in more)
        numbers = {name: int(pairs.pop(name)) for name in ("at", "times") if name in pairs}
        found.append(Fault(where, kind, pairs, params=params, **numbers))
    return tuple(found)


def settings_of(plans: Sequence[str], overrides: Sequence[str] = (), **parameters: str) -> Settings:
    """The paper settings for a loopback account, with one scheduled strategy for each plan."""
    strategies = tuple(StrategySettings(name=STRATEGY, parameters={"plan": plan, **parameters}) for plan in plans)
    return settings.load("paper", None, {}, [*CALM, *overrides]).model_copy(update={"strategies": strategies})


class Trader:
    """One ledger and its desk, as often as it is started."""

    def __init__(
        self,
        server: LoopbackServer,
        ledger: Path,
        plans: Sequence[str],
        overrides: Sequence[str] = (),
        *,
        answer_within: float | None = None,
        **parameters: str,
    ) -> None:
        """`answer_within`: seconds that a request waits for its answer, where the test has one that does not come."""
        self.server, self.ledger, self.overrides, self._answer_within = server, ledger, overrides, answer_within
        self.settings = settings_of(plans, overrides, **parameters)
        self.key = server.specs[0].key
        self.lines: list[str] = []
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self.is_equal_to_broker = True  # else the comparison at the end is the test's own affair
        self._controls = Controls()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: LogReader | None = None
        self._state, self._position = State(), 0
        self._recoveries = 0  # before the last start
        self.recorded: list[e.Event] = []

    # --- life ---------------------------------------------------------------------------------------------------------

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.settings.symbols or tuple(self.server.market.symbols)

    def connection(self) -> Connection:
        server = self.server
        urls = live.Urls(server.rest_url, server.stream_url, server.data_url, server.rest_url)
        spec = next(spec for spec in server.specs if spec.key == self.key)
        keys, clock = Keys(spec.key, spec.secret, "loopback"), live.market_clock(server.rest_url)
        made = live.connection_to(
            "loopback", self.settings, keys, urls, self.symbols, clock, PATIENCE, bars=self.server.market.provider
        )
        if self._answer_within is None:
            return made
        rest = AlpacaRest(keys, urls.rest, "loopback", budget=Budget(10_000), timeout=(1, self._answer_within))
        return replace(made, broker=AlpacaBroker(rest, clock.now))

    def start(self) -> "Trader":
        assert self._thread is None, "it runs already"
        self.error = self.outcome = None
        self._recoveries = len(self.events(e.RecoveryStarted))
        self._controls = Controls(tell=self.lines.append)
        self._thread = threading.Thread(target=self._run, args=(self.connection(),), name="trader")
        self._thread.start()
        return self

    def _run(self, connection: Connection) -> None:
        try:
            self.outcome = live.run(live.plan_of(self.settings, connection), self.ledger, self._controls)
        except BaseException as error:  # noqa: BLE001  the test's thread raises it
            self.error = error

    # --- or in a process of its own, as a person starts it

    @property
    def words(self) -> list[str]:
        """The same wish on the command line."""
        (strategy,) = self.settings.strategies
        parameters = [word for pair in strategy.parameters.items() for word in ("--param", "=".join(pair))]
        changes = [word for change in (*CALM, *self.overrides) for word in ("--set", change)]
        where = ["--loopback-url", self.server.rest_url, "--ledger", str(self.ledger)]
        return ["run", "--paper", "--broker", "loopback", *where, "--strategy", STRATEGY, *parameters, *changes]

    @property
    def said(self) -> str:
        """By all processes so far."""
        path = self.ledger.with_name("said.txt")
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def spawn(self, *more: str) -> "Trader":
        assert self._process is None, "it runs already"
        self._recoveries = len(self.events(e.RecoveryStarted))
        with self.ledger.with_name("said.txt").open("ab") as said:
            command = [sys.executable, "-m", "mqd_ledger", *self.words, *more]
            self._process = subprocess.Popen(
                command,
                cwd=self.ledger.parent,
                env={**environment(), "PYTHONFAULTHANDLER": "1"},
                stdout=said,
                stderr=said,
            )
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def send(self, number: int) -> int:
        """A signal to the process, and what it ends with."""
        assert self._process is not None, "it does not run"
        self._process.send_signal(number)
        try:
            code = self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # where its threads are is then the last that it says
            self._process.wait(DEADLINE)
            raise AssertionError(f"signal {number} did not end it within {DEADLINE:g} s: {self.said[-6000:]}") from None
        self._process = None
        return code

    # --- its end

    def stop(self) -> Outcome:
        """As SIGTERM does."""
        self._controls.stop.set()
        return self.ended()

    def ended(self) -> Outcome:
        """Wait for the end, whoever asked for it."""
        assert self._thread is not None, "it does not run"
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), f"it did not end within {DEADLINE:g} s\n{self.told}"
        self._thread = None
        if self.error is not None:
            raise self.error
        assert self.outcome is not None
        return self.outcome

    def restart(self) -> "Trader":
        self.stop()
        return self.start().ready()

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    @property
    def _has_ended(self) -> bool:
        return (self._thread is not None and not self._thread.is_alive()) or (
            self._process is not None and self._process.poll() is not None
        )

    def ready(self) -> "Trader":
        """Wait until nothing blocks trading and the gap of the bars is read, while market time goes on as far as that needs."""
        self.begun()
        self.wait_until(lambda state: not state.blocks or self._compares(), "nothing blocks trading", seconds=6)
        self.wait_until(lambda _: self.hears_bars(), "the market data are subscribed to")
        return self

    def _compares(self) -> bool:
        """Market time waits for a desk on a busy machine: until it has compared the books once more, or did not for long."""
        before, patience = self.comparisons, time.monotonic() + 0.25
        while self.comparisons == before and time.monotonic() < patience:
            time.sleep(LOOK_EVERY)
        return not self.state().blocks

    def hears_bars(self) -> bool:
        connections = self.server.streams.connections()
        return any(isinstance(one, DataConnection) and one.wants("bars", self.symbols[0]) for one in connections)

    def begun(self) -> "Trader":
        """Wait until the recovery is under way."""
        self.wait_for(e.RecoveryStarted, self._recoveries + 1)
        return self

    # --- market time ----------------------------------------------------------------------------------------------------

    def later(self, seconds: float) -> None:
        """So many seconds of market time go by."""
        self.server.play_until(self.server.clock.now() + timedelta(seconds=seconds))

    def until(self, when: datetime) -> None:
        """Everything up to a time is played, and the desk has heard of it."""
        self.server.play_until(when)
        self.caught_up()

    def bars(self, minutes: int = 1, *, answered: bool = True) -> None:
        """Minutes are played one after another; the ledger has the bars of each, and the broker has `answered` what followed."""
        for _ in range(minutes):
            self.server.step()
            self.caught_up()
            if answered:
                self.wait_until(_has_answers, "an answer to every order")

    def caught_up(self) -> None:
        """Wait until the ledger has every bar that was played. Where the desk has a gap to fill first, it does so some seconds into
        a minute: then they go by.
        """
        played = {symbol: bars[-1].start_at for symbol, bars in self.server.market.history.items() if bars}

        def has_them(state: State) -> bool:
            return all(state.last_bars.get((symbol, "1m"), EPOCH) >= start_at for symbol, start_at in played.items())

        patience = time.monotonic() + 0.5
        self.wait_until(lambda state: has_them(state) or time.monotonic() > patience)
        if not has_them(self.state()):
            self.later(5)
        self.wait_until(has_them, f"bars up to {played}")

    def compared(self) -> None:
        """Let the comparison of the books that is due next be over, so that another one is far away."""
        before = self.comparisons
        self.wait_until(lambda _: self.comparisons > before, "a comparison", seconds=1)

    # --- what the ledger says -------------------------------------------------------------------------------------------

    def state(self) -> State:
        """As of now; the same object goes on changing with every call."""
        if self._log is None:
            if not self.ledger.exists():
                return self._state
            try:
                self._log = LogReader.open(self.ledger)
            except LedgerUnreadable:  # it is being made in this moment
                return self._state
        head = self._log.head.position
        for event in self._log.events(self._position, head):
            evolve(self._state, event)
            self.recorded.append(event)
        self._position = head
        return self._state

    def wait_until(self, holds: Callable[[State], Any], what: str = "it", seconds: float = 0) -> State:
        """Wait for the ledger to say so; so many `seconds` of market time go by after each look that does not find it."""
        deadline = time.monotonic() + DEADLINE
        while not holds(self.state()):
            if self.error is not None:
                raise self.error
            assert not self._has_ended, f"the run has ended before {what} came to be so\n{self.told}{self.said}"
            assert time.monotonic() < deadline, f"{what} did not come to be so in time\n{self.told}{self.said}"
            if seconds:
                self.later(seconds)
            time.sleep(LOOK_EVERY if not seconds else 6 * LOOK_EVERY)
        return self._state

    def wait_for(self, kind: type[E], count: int = 1, seconds: float = 0) -> list[E]:
        """Wait until there are so many events of a kind."""
        self.wait_until(lambda _: len(self.events(kind)) >= count, f"{count} {kind.__name__}", seconds)
        return self.events(kind)

    def quiet(self, seconds: float = 0) -> State:
        """Wait until no order works."""
        return self.wait_until(lambda state: not state.working, "every order has ended", seconds)

    def events(self, kind: type[E]) -> list[E]:
        self.state()
        return [event for event in self.recorded if isinstance(event, kind)]

    @property
    def orders(self) -> list[str]:
        """The states of all orders, in the order in which they were requested."""
        return [f"{order.side} {plain(order.filled_quantity)} {order.state}" for order in self.state().orders.values()]

    @property
    def told(self) -> str:
        state = self.state()
        about = f"blocks {state.blocks}, positions {state.positions}, {self.orders}, {state.trading_state}"
        return "\n".join([f"{self.server.clock.now():%H:%M:%S}Z {about}", *self.lines[-25:]])

    # --- what the broker says -------------------------------------------------------------------------------------------

    def at_broker(self) -> Any:
        """The account as it really is."""
        return self.server.call(lambda: account_state(self.server.account(self.key)))

    @property
    def faults(self) -> Watched:
        assert isinstance(self.server.faults, Watched)
        return self.server.faults

    def _count(self, request: str) -> int:
        return self.faults.requests.count(request)

    @property
    def comparisons(self) -> int:
        """How often the books were asked for."""
        return self._count(COMPARISON)

    @property
    def submissions(self) -> int:
        return self._count("POST /v2/orders")

    def rests(self, symbol: str, *, still: bool = True) -> None:
        """Nothing trades in it any more (or again), and nobody is told: what is ordered rests at the broker, and no bars come."""
        halted = self.server.market.halted
        self.server.call(lambda: halted.add(symbol) if still else halted.discard(symbol))

    def close_by_hand(self, symbol: str) -> None:
        """In the broker's web page."""
        self.server.close_by_hand(self.key, symbol)

    def agrees(self) -> None:
        """The books are the broker's: positions, cash, every execution once, every order of ours at most once."""
        account, state = self.at_broker(), self.state()
        positions = {symbol: Decimal(row["qty"]) for symbol, row in account["positions"].items()}
        assert state.positions == positions, self.told
        assert state.cash == Decimal(account["cash"]), self.told
        theirs = Counter(_words(row["id"], fill) for row in account["orders"] for fill in row["fills"])
        assert self._executions() == theirs, self.told
        ids = [row["client_order_id"] for row in account["orders"]]
        assert len(set(ids)) == len(ids)
        assert set(ids) <= set(state.orders), "the broker has an order that the ledger does not know"

    def _executions(self) -> Counter[tuple[str, str, str]]:
        """Those that stand."""
        state = self.state()
        return Counter(
            (str(state.orders[one.client_order_id].broker_order_id), plain(abs(one.signed_quantity)), plain(one.price))
            for one in state.executions.values()
            if not one.busted
        )

    def proved(self) -> None:
        """The chain is whole, and everything would be decided the same again; nobody can read the secret anywhere."""
        wrong = [finding for finding in app.verify(self.ledger, rerun=True) if not finding.passed]
        assert not wrong, wrong
        assert SECRET not in "\n".join(self.lines)
        assert SECRET not in json.dumps([repr(event) for event in self.recorded])
        for path in self.ledger.parent.rglob("*"):
            assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path

    def close(self) -> None:
        """Whatever happened, nothing goes on running."""
        self._controls.stop.set()
        if self._thread is not None:
            self._thread.join(DEADLINE)
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
        if self._log is not None:
            self._log.close()


def _has_answers(state: State) -> bool:
    orders = [order for working in state.working.values() for order in working.values()]
    return all(order.state is not OrderState.PENDING for order in orders)


def _words(order: str, fill: dict[str, Any]) -> tuple[str, str, str]:
    return str(order), plain(Decimal(str(fill["qty"]))), plain(Decimal(str(fill["price"])))


@contextmanager
def market(bars: Sequence[Bar], faults: Sequence[Fault] = (), **options: Any) -> Iterator[LoopbackServer]:
    """A server that stands five minutes before the open."""
    given = {"switches": WHOLE, "accounts": [AccountSpec(secret=SECRET)], "faults": Watched(faults), **options}
    with LoopbackServer(_to_be_continued(bars), **given) as server:
        yield server


def _to_be_continued(bars: Sequence[Bar]) -> list[Bar]:
    """A run ends with the bars that are played; so there is one more, on the day after."""
    last = max(bars, key=lambda bar: bar.start_at)
    return [*bars, structs.replace(last, start_at=next_session(last.end_at).close_at - timedelta(minutes=1))]


@contextmanager
def desk(
    folder: Path,
    bars: Sequence[Bar],
    *plans: str,
    overrides: Sequence[str] = (),
    faults: Sequence[Fault] = (),
    parameters: dict[str, str] | None = None,
    answer_within: float | None = None,
    **options: Any,
) -> Iterator[Trader]:
    """A desk that trades, at the open of the first bar's session; proved and compared with the broker's account afterwards."""
    with market(bars, faults, **options) as server:
        ledger = folder / "desk.ledger"
        trader = Trader(server, ledger, plans, overrides, answer_within=answer_within, **(parameters or {}))
        try:
            trader.start().ready()
            if server.clock.now() < server.market.due():
                server.play_until(server.market.due())
            trader.later(20)
            trader.compared()
            yield trader
            if trader.is_running:
                trader.stop()
            if trader.is_equal_to_broker:
                trader.agrees()
            trader.proved()
        finally:
            trader.close()


__all__ = ["DEADLINE", "KILL", "TO_THE_OPEN", "Trader", "Watched", "desk", "market", "rows", "settings_of"]
