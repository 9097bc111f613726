"""The process that is killed: `python -m mqd_ledger.crashtest.victim WIRE PLACE TIMES ARGUMENT...` is the ordinary program, but the
TIMES-th time that it comes by PLACE it ends itself with SIGKILL, as a power cut would: nothing is flushed, no handler runs. At the
place `nowhere` it lives on.

Each order that leaves it is first noted in the file WIRE, byte for byte as it is sent. When the program that started it is gone,
which it notices at the end of its standard input, it ends as well.

To add a place: a row in `PLACES`, which says around which function of the program the trap is set, and on which side of it.
"""

import functools
import http.client
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from commands.truth import TakeRecoveryStep
from mqd_ledger.brokers.alpaca import AlpacaBroker, Cancel, Submit
from mqd_ledger.cli.main import execute
from mqd_ledger.desk.broker_side import BrokerSide
from mqd_ledger.desk.loop import Desk
from mqd_ledger.desk.recorded import Recorded
from mqd_ledger.engine import Engine
from mqd_ledger.log import EventLog
from mqd_ledger.recovery import STEPS, Recovery
from mqd_ledger.snapshots import Snapshots

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows SIGTERM ends a process as hard
NOWHERE = "nowhere"
SNAPSHOT_EVERY = 150  # events, so that some are written in the seconds that a victim lives
STEP_SECONDS = 0.01  # of the wall: "times" at any instant


class Call(NamedTuple):
    """A trap around a function, before or after it does its work; `counts` says which calls are meant, by their arguments."""

    owner: Any
    method: str
    before: bool
    counts: Callable[..., bool] = lambda *_: True

    def set(self, times: int) -> None:
        original = getattr(self.owner, self.method)
        left = times

        @functools.wraps(original)
        def trapped(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            is_meant = self.counts(*arguments)
            left -= is_meant
            is_now = is_meant and left == 0
            if is_now and self.before:
                die()
            result = original(*arguments, **options)
            if is_now:
                die()
            return result

        setattr(self.owner, self.method, trapped)


class Instant(NamedTuple):
    """A trap in time, wherever the program is by then."""

    step_seconds: float

    def set(self, times: int) -> None:
        def wait() -> None:
            time.sleep(times * self.step_seconds)
            die()

        threading.Thread(target=wait, name="trap", daemon=True).start()


class Place(NamedTuple):
    sentence: str
    times_max: int  # a trap snaps at the first to so manieth time: what a victim comes by in a few seconds
    trap: Call | Instant


def die() -> None:
    os.kill(os.getpid(), KILL)


def _has_events(log: EventLog) -> bool:
    return log.pending > 0


def _is(kind: type) -> Callable[..., bool]:
    """Whether the first thing that a method is given is of that kind."""
    return lambda _self, first, *_: isinstance(first, kind)


def _sends_an_order(connection: http.client.HTTPConnection, *_: object) -> bool:
    """Whether the request whose answer is waited for is a new order: alpaca-py's own connection, as it is on the wire."""
    return getattr(connection, "last_request", ("", ""))[0] == "POST"


def _is_snapshot(path: Path, *_: object) -> bool:
    return path.suffix == ".new"


def _is_reconnected(side: BrokerSide, _books: object, state: Any, *_: object) -> bool:
    return side.stream.stream.connections > 1 and side.recovery.is_done(state)


PLACES: Mapping[str, Place] = MappingProxyType(
    {
        "before-commit": Place(
            "before a turn is on the disk", 40, Call(EventLog, "commit", before=True, counts=_has_events)
        ),
        "in-commit": Place(
            "while a turn goes to the disk and its orders are made ready",
            6,
            Call(BrokerSide, "send", before=False),
        ),
        "after-commit": Place(
            "when it is on the disk, before its orders go out", 6, Call(Recorded, "__exit__", before=True)
        ),
        "before-send": Place(
            "before an order's request leaves", 6, Call(AlpacaBroker, "perform", before=True, counts=_is(Submit))
        ),
        "before-answer": Place(
            "between an order's request and its answer",
            6,
            Call(http.client.HTTPConnection, "getresponse", before=True, counts=_sends_an_order),
        ),
        "after-answer": Place(
            "after the answer, before it is recorded",
            6,
            Call(AlpacaBroker, "perform", before=False, counts=_is(Submit)),
        ),
        "before-cancel": Place(
            "before the request of a cancel leaves", 3, Call(AlpacaBroker, "perform", before=True, counts=_is(Cancel))
        ),
        "after-cancel": Place(
            "after its answer, before it is recorded",
            3,
            Call(AlpacaBroker, "perform", before=False, counts=_is(Cancel)),
        ),
        "arrival": Place("while something that came in is decided", 120, Call(Desk, "take", before=True)),
        "recovery": Place(
            "in the middle of a recovery",
            len(STEPS),
            Call(Engine, "handle", before=True, counts=_is(TakeRecoveryStep)),
        ),
        "compared": Place("when a recovery has seen the broker's books", 2, Call(Recovery, "advance", before=True)),
        "reconnect": Place(
            "when the stream is back, before the books are compared",
            2,
            Call(BrokerSide, "_compare", before=True, counts=_is_reconnected),
        ),
        "snapshot": Place("while a snapshot is written", 2, Call(Path, "replace", before=True, counts=_is_snapshot)),
        "any": Place("at any instant, from the first on", 350, Instant(STEP_SECONDS)),
    }
)


def note_orders(wire: Path) -> None:
    """What is sent is noted before it is: beside the file, for the trap at an answer, it is known what that is an answer to."""
    notes = os.open(wire, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    connection: Any = http.client.HTTPConnection
    begin, send = connection.putrequest, connection.send

    def putrequest(self: Any, method: str, url: str, *arguments: Any, **options: Any) -> None:
        self.last_request = (method, url)
        begin(self, method, url, *arguments, **options)

    def noted(self: Any, data: Any) -> None:
        body = data.partition(b"\r\n\r\n")[2]
        if body and _sends_an_order(self):
            os.write(notes, body + b"\n")
        send(self, data)

    connection.putrequest, connection.send = putrequest, noted


def end_with_the_parent() -> None:
    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        die()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main(arguments: Sequence[str]) -> int:
    wire, place, times, *rest = arguments
    end_with_the_parent()
    note_orders(Path(wire))
    if place != NOWHERE:
        keywords = Snapshots.__init__.__kwdefaults__
        assert keywords is not None
        keywords["every"] = SNAPSHOT_EVERY
        PLACES[place].trap.set(int(times))
    return execute(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
