"""A websocket of alpaca-py that is watched from outside: one stream class of that library, unmodified on the wire, kept alive.

The library's streams try again for ever without a word to the caller, wait for ever for an answer to the keys, and take a socket
that has gone mute for a quiet one. So each connection here is a stream object of its own (`connection.py`), which ends where the
library would try again; a second thread watches it, says what happened and makes the next one.

    ("up", name)                        connected, authorized and subscribed; what came before it has to be read elsewhere
    ("down", name, reason)              told once for each reason, not for every attempt that fails
    ("frame", name, raw, received_at)   what the stream brought

Items go into `sink`, which raises `queue.Full` rather than wait. What finds no room is counted and lost, and as soon as there is
room again the stream says "down" and "up", as after a break: whoever listens reads what it missed.

To supervise another stream: a factory that makes `class Stream(Watched, TheLibrarysClass)` with its subscriptions, as `alpaca.py`
does. To know another refusal: a row in `TROUBLES`.
"""

import queue
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from time import monotonic
from types import MappingProxyType
from typing import Any, Literal, Self

from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.connection import Connection, Make, Timing

Item = tuple[Literal["up"], str] | tuple[Literal["down"], str, str] | tuple[Literal["frame"], str, Any, datetime]
Sink = Callable[[Item], None]  # such as put_nowait of a bounded queue

# What a server says or how it refuses -> what that means. Trying again soon helps with none of them.
TROUBLES: Mapping[re.Pattern[str], str] = MappingProxyType(
    {
        re.compile("auth failed|unauthorized|HTTP 40[13]"): "the keys were refused",
        re.compile("connection limit|HTTP 429"): "another connection holds this account's only place",
        re.compile(
            "insufficient subscription|symbol limit"
        ): "the account's data plan does not include what was asked for",
    }
)
GOLDEN = 0.618033988749895  # its multiples spread evenly over 0 to 1: jitter that needs no dice


class Supervised:
    """Keeps one stream connected from `start` to `stop`. `expects` says whether a message is due sooner or later, as bars are in
    a session; it is asked on the watching thread. `clock` stamps what comes, `decode` reads the stream's messages.
    """

    def __init__(
        self,
        name: str,
        make: Make,
        sink: Sink,
        clock: Callable[[], datetime],
        *,
        decode: Callable[[Any], Any],
        expects: Callable[[], bool] = lambda: False,
        timing: Timing = Timing(),  # noqa: B008  frozen
    ) -> None:
        self.name, self.clock, self.decode, self.timing = name, clock, decode, timing
        self._make, self._sink, self._expects = make, sink, expects
        self.connections = 0  # made so far
        self.lost = 0  # frames for which there was no room
        self._left_behind: list[Connection] = []
        self._current: Connection | None = None
        self._is_lossy = False
        self._waiting: deque[Item] = deque()  # "up" and "down" are never lost
        self._told: str | None = None
        self._lock = threading.Lock()
        self._stopping, self._woken = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._tick = min(0.25, timing.open_within / 4, timing.silent_after / 4)

    def start(self) -> Self:
        if self._thread is not None:
            raise BadInput(f"The stream {self.name} runs already; stop it before it is started again.")
        self._stopping.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True, name=f"watches {self.name}")
        self._thread.start()
        return self

    def stop(self, timeout: float = 10) -> bool:
        """Ends thread and socket; says nothing more. Whether both are gone in time."""
        self._stopping.set()
        self.wake()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
            self._thread = None
        return not self.left_behind

    @property
    def is_up(self) -> bool:
        connection = self._current
        return connection is not None and connection.up_at is not None

    @property
    def left_behind(self) -> int:
        """Threads that could not be ended and still live."""
        self._left_behind = [connection for connection in self._left_behind if connection.is_alive]
        return len(self._left_behind)

    @property
    def latency(self) -> float | None:
        """Seconds from the last ping to its pong, None before the first."""
        protocol = None if self._current is None else self._current.protocol
        return (protocol.latency or None) if protocol is not None else None

    def wake(self) -> None:
        self._woken.set()

    # --- what is told

    def take(self, connection: Connection, raw: Any, at: datetime) -> None:
        with self._lock:
            if connection is not self._current:
                return  # of a thread that was left behind
            connection.frames += 1
            if not (self._flushed() and self._offered(("frame", self.name, raw, at))):
                self.lost += 1
                self._is_lossy = True

    def tell_up(self, connection: Connection) -> None:
        with self._lock:
            if connection is self._current:
                self._told = None
                self._waiting.append(("up", self.name))
                self._flushed()

    def _forget(self) -> None:
        with self._lock:
            self._current = None

    def _tell_down(self, reason: str) -> None:
        self._forget()
        with self._lock:
            if reason != self._told:
                self._told = reason
                self._waiting.append(("down", self.name, reason))
                self._flushed()

    def _tell_losses(self) -> None:
        with self._lock:
            if self._flushed() and self._is_lossy:
                self._is_lossy = False
                reason = f"{self.lost} frames were lost so far because they were not taken in time"
                self._waiting += [("down", self.name, reason), ("up", self.name)]
                self._flushed()

    def _flushed(self) -> bool:
        while self._waiting:
            if not self._offered(self._waiting[0]):
                return False
            self._waiting.popleft()
        return True

    def _offered(self, item: Item) -> bool:
        try:
            self._sink(item)
        except queue.Full:
            return False
        return True

    # --- the watching thread

    def _watch(self) -> None:
        try:
            self._keep_connected()
        except BaseException as error:
            connection = self._current
            self._tell_down(f"it is watched no more, start the program again: {type(error).__name__}: {error}")
            if connection is not None:
                connection.end(self.timing.end_within)
            raise

    def _keep_connected(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            with self._lock:
                connection = self._current = Connection(self, self._make)
            self.connections += 1
            reason = self._attend(connection)
            meaning = next((said for words, said in TROUBLES.items() if words.search(reason)), "")
            if self._stopping.is_set():
                self._forget()
            else:
                self._tell_down(f"{meaning} ({reason})" if meaning else reason)
            if not connection.end(self.timing.end_within):
                self._left_behind.append(connection)
            failures = 1 if connection.was_useful else failures + 1
            self._rest(self.timing.limit_wait if meaning else self._backoff(failures))
            while self.left_behind >= self.timing.left_behind_max and not self._stopping.is_set():
                self._tell_down(f"{self.left_behind} of its threads do not end; start the program again")
                self._rest(self.timing.backoff_max)

    def _attend(self, connection: Connection) -> str:
        """Wait until a connection is over; why."""
        timing = self.timing
        expected_since: float | None = None
        while True:
            self._woken.wait(self._tick)
            self._woken.clear()
            now = monotonic()
            if self._stopping.is_set():
                return ""
            if not connection.is_alive:
                return connection.reason or "the connection ended without a reason"
            self._tell_losses()
            if connection.up_at is None:
                if connection.started_at is not None and now - connection.started_at > timing.open_within:
                    return f"it was not ready {timing.open_within:g} s after connecting"
                continue
            expected_since = (expected_since or now) if self._expects() else None
            if expected_since and now - max(connection.heard_at, expected_since) > timing.silent_after:
                return f"nothing came for {timing.silent_after:g} s although something was due"

    def _backoff(self, failures: int) -> float:
        longest = min(self.timing.backoff_max, self.timing.backoff_min * 2.0 ** min(failures - 1, 30))
        return longest * (1 + self.connections * GOLDEN % 1) / 2

    def _rest(self, seconds: float) -> None:
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0 and not self._stopping.is_set():
            self._stopping.wait(min(left, self._tick))
            with self._lock:
                self._flushed()
