"""The market and its victims: one loopback server that plays on, and one trader after another that is killed at a seeded place."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mqd_ledger import live, wishes
from mqd_ledger.crashtest import pulse
from mqd_ledger.crashtest.compare import Verdict, compare
from mqd_ledger.crashtest.victim import PLACES
from mqd_ledger.errors import BadInput, CheckFailed
from mqd_ledger.log import LogReader
from mqd_ledger.runs import fold
from mqd_ledger.state import State

SPEED = 300  # market seconds in one of the wall: a bar every fifth of a second
TIMES_MAX = 12  # a trap snaps at the first to the twelfth time that its place is passed
REACH_SECONDS = 15.0  # a victim that has not come to its place by then is killed where it is
QUIET_SECONDS = 60.0  # for the last orders to be answered
# What would keep the pulse from trading, or what is shorter than a restart at this speed.
SETTINGS = (
    "risk.orders_per_day_max=null",
    "risk.duplicate_window=null",
    "risk.daily_loss_max=null",
    "risk.weekly_loss_max=null",
    "operation.resend_within=3600",
    "operation.reconcile_every=120",
)


class Kill(NamedTuple):
    place: str
    times: int
    reached: bool  # else the time was up
    events: int  # in the ledger afterwards


class Report(NamedTuple):
    kills: tuple[Kill, ...]
    verdicts: tuple[Verdict, ...]
    ledger: Path
    faults: tuple[str, ...]  # what went wrong at the broker meanwhile, by kind

    @property
    def passed(self) -> bool:
        return all(verdict.holds for verdict in self.verdicts)


def plan(points: int, seed: int) -> Iterator[tuple[str, int]]:
    """Where each victim dies: every place in turn, at a time drawn from the seed."""
    names = list(PLACES)
    for number in range(points):
        drawn = int.from_bytes(sha256(f"{seed}-{number}".encode()).digest()[:4], "big")
        yield names[number % len(names)], drawn % TIMES_MAX + 1


def crashtest(points: int, seed: int, faults: str, directory: Path, tell: Callable[[int, Kill], None]) -> Report:
    """Kill a paper session `points` times and compare it with the broker; `tell` hears of each kill."""
    ledger = directory / "crash.ledger"
    if ledger.exists():
        raise BadInput(f"There is a ledger at {ledger} already. Give --directory an empty folder.")
    arguments = ["--speed", str(SPEED), "--seed", str(seed), "--directory", str(directory / "broker")]
    with live.loopback_server([*arguments, *([] if faults == "none" else ["--faults", faults])]) as server:
        assert server.urls.rest is not None
        wish = ["run", "--paper", "--broker", "loopback", "--loopback-url", server.urls.rest, "--ledger", str(ledger)]
        wish += ["--strategy", f"{Path(pulse.__file__)}:Pulse"]
        wish += [word for setting in SETTINGS for word in ("--set", setting)]
        kills = []
        for number, (place, times) in enumerate(plan(points, seed), 1):
            kills.append(_kill(wish, place, times, ledger))
            tell(number, kills[-1])
        account = _quiet(wish, ledger, server.urls.rest)
        happened = tuple(sorted({str(one["kind"]) for one in _get(server.urls.rest, "/loopback/faults")["happened"]}))
    with LogReader.open(ledger) as log:
        return Report(tuple(kills), tuple(compare(log, fold(log), account)), ledger, happened)


def _kill(wish: Sequence[str], place: str, times: int, ledger: Path) -> Kill:
    command = [sys.executable, "-m", "mqd_ledger.crashtest.victim", place, str(times), *wish]
    with _process(command, ledger) as victim:
        try:
            code, reached = victim.wait(REACH_SECONDS), True
        except subprocess.TimeoutExpired:
            victim.kill()
            code, reached = victim.wait(), False
    if code not in {-signal.SIGKILL, 128 + signal.SIGKILL} and os.name == "posix":
        raise CheckFailed(
            f"A trader that was to be killed at {place!r} ended by itself with exit code {code}. It said: {_last_words(ledger)}"
        )
    with LogReader.open(ledger) as log:
        return Kill(place, times, reached, log.head.position)


@contextmanager
def _process(command: Sequence[str], ledger: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with _words(ledger).open("wb") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _words(ledger: Path) -> Path:
    return ledger.with_name("trader.txt")


def _last_words(ledger: Path) -> str:
    return " / ".join(_words(ledger).read_text(errors="replace").splitlines()[-4:])


def _quiet(wish: Sequence[str], ledger: Path, url: str) -> Any:
    """One more trader, not killed: it recovers, is halted, lets its last orders end, and stops. The broker's account then."""
    with _process([sys.executable, "-m", "mqd_ledger", *wish], ledger) as trader:
        deadline = time.monotonic() + QUIET_SECONDS
        halted = False
        while True:
            if trader.poll() is not None:
                raise CheckFailed(
                    f"The last trader ended by itself with exit code {trader.returncode}: {_last_words(ledger)}"
                )
            if time.monotonic() > deadline:
                raise CheckFailed(
                    f"After {QUIET_SECONDS:g} s orders still worked or a way to the broker was down: {_last_words(ledger)}"
                )
            time.sleep(0.3)
            state = _state(ledger)
            if not halted and not state.blocks:
                wishes.carry_out(ledger, wishes.Wish("halt", "crashtest", "the end of the test"), live.wall_clock().now)
                halted = True
            elif halted and not state.working and not state.blocks and _is_settled(state):
                break
        trader.send_signal(signal.SIGTERM)
        trader.wait(QUIET_SECONDS)
    return next(iter(_get(url, "/loopback/state")["accounts"].values()))


def _is_settled(state: State) -> bool:
    return not state.differences


def _state(ledger: Path) -> State:
    with LogReader.open(ledger) as log:
        return fold(log, upto=log.head.position)


def _get(url: str, path: str) -> Any:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
