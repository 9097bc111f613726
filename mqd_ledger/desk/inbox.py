"""The one door of the desk: a bounded queue that other threads put arrivals into."""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from queue import Full
from threading import Lock
from typing import NamedTuple

from commands import Command
from mqd_ledger.state import State

ARRIVALS_MAX = 10_000

# What an arrival asks of the ledger, once the deciding thread has the state at hand and knows when it is.
Translate = Callable[[State, datetime], Iterable[Command]]


class Arrival(NamedTuple):
    received_at: datetime
    translate: Translate


class Inbox:
    """Half of the wake-up of a `queue.Queue`, which stands between a bar and its order. `SimpleQueue` is as fast, but its wait for
    so many seconds lasts for ever where a signal's handler runs past their end.
    """

    def __init__(self, clock: Callable[[], datetime], size: int = ARRIVALS_MAX) -> None:
        self._clock, self._size = clock, size
        self._arrivals: deque[Arrival] = deque()
        self._bell = Lock()  # held, but for when something came that nobody has waited for yet
        self._bell.acquire()

    def put(self, translate: Translate) -> None:
        """For workers: of what the desk has asked for there is always room."""
        self._add(Arrival(self._clock(), translate))

    def offer(self, translate: Translate, received_at: datetime | None = None) -> None:
        """Raises `queue.Full` where there is no room: for a stream, which must not wait and knows what to do about a loss."""
        if len(self._arrivals) >= self._size:
            raise Full
        self._add(Arrival(received_at or self._clock(), translate))

    def _add(self, arrival: Arrival) -> None:
        self._arrivals.append(arrival)
        with suppress(RuntimeError):  # it was rung already
            self._bell.release()

    def take(self, seconds: float) -> Arrival | None:
        """The next arrival, waiting so long for it at most. Only one thread takes."""
        if not self._arrivals and self._bell.acquire(timeout=seconds) and not self._arrivals:
            self._bell.acquire(timeout=seconds)  # the bell had rung for one that was taken without waiting
        return self._arrivals.popleft() if self._arrivals else None

    def __len__(self) -> int:
        return len(self._arrivals)
