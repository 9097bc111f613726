"""The process that is killed: `python -m mqd_ledger.crashtest.victim PLACE TIMES ARGUMENT...` is the ordinary program, but the
TIMES-th time that it comes by PLACE it ends itself with SIGKILL, as a power cut would: nothing is flushed, no handler runs.

To add a place: a row in `PLACES`, which says around which function of the program the trap is set, and on which side of it.
"""

import functools
import http.client
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from mqd_ledger.brokers.alpaca import AlpacaBroker, Submit
from mqd_ledger.cli.main import execute
from mqd_ledger.desk.broker_side import BrokerSide
from mqd_ledger.desk.loop import Desk
from mqd_ledger.log import EventLog
from mqd_ledger.recovery import Recovery

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows SIGTERM ends a process as hard


class Place(NamedTuple):
    sentence: str
    owner: type
    method: str
    before: bool  # the function does its work
    counts: Callable[..., bool] = lambda *_: True  # whether this call is one of those meant, by its arguments


def _sends_an_order(connection: http.client.HTTPConnection, *_: object) -> bool:
    """Whether the request whose answer is waited for is a new order: alpaca-py's own connection, as it is on the wire."""
    return getattr(connection, "last_request", ("", ""))[0] == "POST"


PLACES: Mapping[str, Place] = MappingProxyType(
    {
        "before-commit": Place("before a turn is on the disk", EventLog, "commit", before=True),
        "after-commit": Place("after it is on the disk, before its orders are sent", BrokerSide, "send", before=True),
        "before-send": Place(
            "before an order's request leaves",
            AlpacaBroker,
            "perform",
            before=True,
            counts=lambda _, effect: isinstance(effect, Submit),
        ),
        "before-answer": Place(
            "between an order's request and its answer",
            http.client.HTTPConnection,
            "getresponse",
            before=True,
            counts=_sends_an_order,
        ),
        "after-answer": Place(
            "after the answer, before it is recorded",
            AlpacaBroker,
            "perform",
            before=False,
            counts=lambda _, effect: isinstance(effect, Submit),
        ),
        "arrival": Place("while something that came in is decided", Desk, "take", before=True),
        "recovery": Place("in the middle of a recovery", Recovery, "advance", before=False),
    }
)


def set_trap(place: Place, times: int) -> None:
    original = getattr(place.owner, place.method)
    left = times

    @functools.wraps(original)
    def trapped(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= place.counts(*arguments)
        is_now = left == 0 and place.counts(*arguments)
        if is_now and place.before:
            os.kill(os.getpid(), KILL)
        result = original(*arguments, **options)
        if is_now:
            os.kill(os.getpid(), KILL)
        return result

    setattr(place.owner, place.method, trapped)


def remember_requests() -> None:
    """So that the trap at an answer knows what it is the answer to."""
    original = http.client.HTTPConnection.putrequest

    @functools.wraps(original)
    def putrequest(self: Any, method: str, url: str, *arguments: Any, **options: Any) -> None:
        self.last_request = (method, url)
        original(self, method, url, *arguments, **options)

    http.client.HTTPConnection.putrequest = putrequest  # type: ignore[method-assign]


def main(arguments: Sequence[str]) -> int:
    place, times, *rest = arguments
    remember_requests()
    set_trap(PLACES[place], int(times))
    return execute(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
