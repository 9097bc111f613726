"""The market and its victims: a loopback server that plays on, and one trader after another that is killed at a seeded place."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from mqd_ledger import live, wishes
from mqd_ledger.crashtest import pulse
from mqd_ledger.crashtest.compare import Record, Verdict, compare, proofs, record_of
from mqd_ledger.crashtest.victim import NOWHERE, PLACES
from mqd_ledger.errors import BadInput, CheckFailed
from mqd_ledger.feeds.sample import sample_bars
from mqd_ledger.log import LogReader
from mqd_ledger.loopback.control import account_state
from mqd_ledger.loopback.faults import Fault, Faults
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.loopback.switches import Switches
from mqd_ledger.runs import fold
from mqd_ledger.state import State

SPEED = 300  # market seconds in one of the wall: a bar every fifth of a second
SESSIONS = 500  # of bars, made as they are played: more than any test needs
REACH_SECONDS = 8.0  # a victim that has not come to its place by then is killed where it is
QUIET_SECONDS = 90.0  # for the last orders to be answered
SETTLED_SECONDS = 3.0  # of agreement; some comparisons of the books at this speed
SYMBOLS = ("SYNA", "SYNB")
# Many orders are filled in parts, and halts leave some in the market for minutes: there has to be something to take back.
SWITCHES = Switches(partial_percent=40)
HALTS = tuple(Fault("market", "halt", probability=1 / 120, params={"symbol": one, "minutes": 3}) for one in SYMBOLS)
# What has to happen at the broker so that a victim comes by its place.
PROVOKED: Mapping[str, Fault] = MappingProxyType({"reconnect": Fault("trade_socket", "dropped", at=12)})
CYCLE = 4  # minutes in which the strategies go in and out
ANSWERED_SECONDS = 12  # of the wall: so long an order that never arrived may be sent again


class Kill(NamedTuple):
    place: str
    times: int
    reached: bool  # else the time was up
    events: int  # in the ledger afterwards


class Report(NamedTuple):
    kills: tuple[Kill, ...]
    verdicts: tuple[Verdict, ...]
    record: Record
    faults: Mapping[str, int]  # what went wrong at the broker meanwhile, by kind
    seconds: float

    @property
    def passed(self) -> bool:
        return all(verdict.holds for verdict in self.verdicts)


def plan(points: int, seed: int, places: Sequence[str] = tuple(PLACES)) -> Iterator[tuple[str, int]]:
    """Where each victim dies: every place in turn, at a time drawn from the seed."""
    for number in range(points):
        place = places[number % len(places)]
        drawn = int.from_bytes(sha256(f"{seed}-{number}".encode()).digest()[:4], "big")
        yield place, drawn % PLACES[place].times_max + 1


def crashtest(
    points: Sequence[tuple[str, int]], seed: int, faults: str, directory: Path, tell: Callable[[int, Kill], None]
) -> Report:
    """Kill a paper session at these points and compare it with the broker; `tell` hears of each kill."""
    began = time.monotonic()
    prepare(directory)
    planned = Faults(seed=seed) if faults == "none" else Faults.seeded(seed, faults)
    planned.add(HALTS)
    bars = sample_bars(SYMBOLS, sessions=SESSIONS, seed=seed)
    broker = directory / "broker"
    with LoopbackServer(bars, seed=seed, speed=SPEED, directory=broker, switches=SWITCHES, faults=planned) as server:
        trader = Trader(directory / "crash.ledger", server.rest_url, settings_at(SPEED, CYCLE))
        kills = []
        for number, (place, times) in enumerate(points, 1):
            if place in PROVOKED:
                server.call(partial(planned.add, [PROVOKED[place]]))
            kills.append(trader.killed(place, times))
            tell(number, kills[-1])
        server.call(planned.plan.clear)  # what has begun goes on to its end
        with trader.running() as last:
            trader.come_to_rest(last)
        account = truth(server)
    verdicts, record = judged(trader, account)
    happened = Counter(one.kind for one in planned.happened)
    return Report(tuple(kills), verdicts, record, dict(happened.most_common()), time.monotonic() - began)


def truth(server: LoopbackServer) -> Mapping[str, Any]:
    """The account as it is at the broker, as anybody outside would read it."""
    told: Mapping[str, Any] = json.loads(server.call(lambda: msgspec.json.encode(account_state(server.account()))))
    return told


def judged(trader: "Trader", account: Mapping[str, Any]) -> tuple[tuple[Verdict, ...], Record]:
    with LogReader.open(trader.ledger) as log:
        record = record_of(log)
        verdicts = compare(record, fold(log), account, trader.wire.read_bytes().splitlines())
    return (*verdicts, *proofs(trader.ledger)), record


def prepare(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        found = next(directory.iterdir(), None)
        (directory / "broker").mkdir(exist_ok=found is not None)
    except OSError as error:
        raise BadInput(
            f"A test cannot keep its files in {directory}: {error.strerror}. Give --directory a folder that can be written."
        ) from error
    if found is not None:
        raise BadInput(f"{directory} is not empty, it holds {found.name}. Give --directory a new or an empty folder.")


def settings_at(speed: int, cycle: int) -> tuple[str, ...]:
    """What would keep the strategies from trading is off; what is too short at this speed, where an answer takes seconds of the
    market's, is as long as it takes.
    """
    file = Path(pulse.__file__).as_posix()
    named = [f"{{name: '{file}:{name}', parameters: {{cycle: '{cycle}'}}}}" for name in ("Pulse", "Waver")]
    return (
        f"strategies=[{', '.join(named)}]",
        "risk.orders_per_day_max=null",
        "risk.duplicate_window=null",
        "risk.daily_loss_max=null",
        "risk.weekly_loss_max=null",
        "risk.position_notional_max=null",
        f"risk.stale_after={speed}",
        f"operation.resend_within={ANSWERED_SECONDS * speed}",
        f"operation.reconcile_every={speed * 2 // 5}",
        f"operation.settle={speed // 5}",
        "operation.difference_accepted_max=1000000",  # nobody is there to accept one; the verdict names it
    )


class Trader:
    """The program on one ledger: started, killed, started again."""

    def __init__(self, ledger: Path, url: str, settings: Sequence[str]) -> None:
        self.ledger = ledger
        self.wire = ledger.with_suffix(".wire")  # what it sent
        self.words = ledger.with_name("trader.txt")  # what it said
        self._wish = ["run", "--paper", "--broker", "loopback", "--loopback-url", url, "--ledger", str(ledger)]
        self._wish += [word for setting in settings for word in ("--set", setting)]

    def killed(self, place: str, times: int) -> Kill:
        with self.running(place, times) as victim:
            try:
                code, reached = victim.wait(REACH_SECONDS), True
            except subprocess.TimeoutExpired:
                victim.kill()
                code, reached = victim.wait(), False
        if code not in {-signal.SIGKILL, 128 + signal.SIGKILL} and os.name == "posix":
            raise CheckFailed(
                f"A trader that was to be killed at {place!r} ended by itself with exit code {code}. It said: {self._last_words()}"
            )
        return Kill(place, times, reached, self._events())

    @contextmanager
    def running(self, place: str = NOWHERE, times: int = 0) -> Iterator["subprocess.Popen[bytes]"]:
        """A session of its own: Ctrl-C is for this program alone, which then ends it; if it cannot, its input ends."""
        command = [sys.executable, "-m", "mqd_ledger.crashtest.victim", str(self.wire), place, str(times), *self._wish]
        with (
            self.words.open("wb") as said,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True
            ) as process,
        ):
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    def come_to_rest(self, process: "subprocess.Popen[bytes]") -> None:
        """It is not killed: it is halted, its last orders end, and it stops when the books have agreed for a while."""
        deadline = time.monotonic() + QUIET_SECONDS
        halted, quiet_since = False, 0.0
        while not quiet_since or time.monotonic() - quiet_since < SETTLED_SECONDS:
            time.sleep(0.2)
            if process.poll() is not None:
                raise CheckFailed(
                    f"The last trader ended by itself with exit code {process.returncode}: {self._last_words()}"
                )
            state = self.state()
            if not halted and not state.blocks and state.run is not None:
                asked = wishes.Wish("halt", "crashtest", "the end of the test")
                wishes.carry_out(self.ledger, asked, live.wall_clock().now)
                halted = True
            is_quiet = halted and not state.working and not state.blocks and not state.differences
            quiet_since = (quiet_since or time.monotonic()) if is_quiet else 0.0
            if time.monotonic() > deadline:
                raise CheckFailed(
                    f"It did not come to rest in {QUIET_SECONDS:g} s: {_unrest(state)}. {self._last_words()}"
                )
        process.send_signal(signal.SIGTERM)
        process.wait(QUIET_SECONDS)

    def state(self) -> State:
        if not self.ledger.exists():
            return State()
        with LogReader.open(self.ledger) as log:
            return fold(log, upto=log.head.position)

    def _events(self) -> int:
        if not self.ledger.exists():  # killed before it had begun
            return 0
        with LogReader.open(self.ledger) as log:
            return log.head.position

    def _last_words(self) -> str:
        return " / ".join(self.words.read_text(errors="replace").splitlines()[-4:])


def _unrest(state: State) -> str:
    working = [f"{name} {order.state}" for orders in state.working.values() for name, order in orders.items()]
    open_ones = [f"{one.difference_id} {one.subject}" for one in state.differences.values()]
    blocks = [f"{what}: {why}" for what, why in state.blocks.items()]
    return "; ".join([*working, *open_ones, *blocks]) or "it came back and went again"
