"""The one door of the desk: a bounded queue that other threads put arrivals into."""

from collections.abc import Callable, Iterable
from datetime import datetime
from queue import Empty, Full, Queue
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
    def __init__(self, clock: Callable[[], datetime], size: int = ARRIVALS_MAX) -> None:
        self._clock, self._size = clock, size
        # No `SimpleQueue`: its wait for so many seconds lasts for ever where a signal's handler runs past their end.
        self._queue: Queue[Arrival] = Queue()

    def put(self, translate: Translate) -> None:
        """For workers: of what the desk has asked for there is always room."""
        self._queue.put(Arrival(self._clock(), translate))

    def offer(self, translate: Translate, received_at: datetime | None = None) -> None:
        """Raises `queue.Full` where there is no room: for a stream, which must not wait and knows what to do about a loss."""
        if self._queue.qsize() >= self._size:
            raise Full
        self._queue.put(Arrival(received_at or self._clock(), translate))

    def take(self, seconds: float) -> Arrival | None:
        """The next arrival, waiting so long for it at most."""
        try:
            return self._queue.get(timeout=seconds) if seconds > 0 else self._queue.get_nowait()
        except Empty:
            return None

    def __len__(self) -> int:
        return self._queue.qsize()
