"""How many requests an account may still make: Alpaca counts 200 a minute, over all that its user does at once.

Nothing is ever sent that would be the 201st within any minute. Before that the less urgent waits: reads leave room for orders, and
orders leave room for what makes the account smaller or safer. What Alpaca's headers say counts where it is less than our own count,
for somebody else may be using the account as well.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from enum import IntEnum
from types import MappingProxyType

from mqd_ledger.errors import BadInput

MINUTE = 60.0
CLOSED_FOR = 5.0  # seconds after a 429 that does not say how long


class Urgency(IntEnum):
    """How many times the reserve has to stay free for what is more urgent."""

    EXIT = 0  # cancels, and orders that close a position
    ENTRY = 1
    READ = 2


PATIENCE: Mapping[Urgency, float] = MappingProxyType({Urgency.EXIT: 30.0, Urgency.ENTRY: 10.0, Urgency.READ: 90.0})


class Budget:
    """Shared by all threads that use one account."""

    def __init__(
        self, per_minute: int = 200, reserve: int = 20, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        if not 0 <= 2 * reserve < per_minute:
            raise BadInput(
                f"A budget of {per_minute} requests a minute cannot keep a reserve of {reserve}: orders keep it once and reads "
                "twice. Give less than half of it."
            )
        self._per_minute, self._reserve, self._monotonic = per_minute, reserve, monotonic
        self._sent: deque[float] = deque()  # within the last minute
        self._closed_until = 0.0
        self._changed = threading.Condition()

    def take(self, urgency: Urgency) -> bool:
        """Wait for one request, and count it. False where it would take longer than such a request is worth waiting for."""
        with self._changed:
            give_up_at = self._monotonic() + PATIENCE[urgency]
            while (seconds := self._wait(urgency)) > 0:
                if self._monotonic() + seconds > give_up_at:
                    return False
                self._changed.wait(seconds)
            self._sent.append(self._monotonic())
            return True

    def wait(self, urgency: Urgency) -> float:
        """How many seconds such a request would have to wait now."""
        with self._changed:
            return self._wait(urgency)

    def _wait(self, urgency: Urgency) -> float:
        now = self._monotonic()
        while self._sent and self._sent[0] <= now - MINUTE:
            self._sent.popleft()
        over = len(self._sent) - (self._per_minute - urgency * self._reserve)
        until = self._sent[over] + MINUTE if over >= 0 else now
        return max(0.0, until - now, self._closed_until - now)

    def heard(self, status: int, headers: Mapping[str, str]) -> None:
        """What an answer says of the limit."""
        with self._changed:
            now = self._monotonic()
            if status == 429:
                seconds = seconds_of(headers)
                self._closed_until = max(self._closed_until, now + (CLOSED_FOR if seconds is None else seconds))
                return
            remaining = headers.get("X-RateLimit-Remaining", "")
            if remaining.isdecimal():
                unseen = self._per_minute - len(self._sent) - int(remaining)
                self._sent.extend([now] * max(0, unseen))


def seconds_of(headers: Mapping[str, str]) -> float | None:
    """How long Alpaca asks to wait; None where it does not say, or only the date of it."""
    text = headers.get("Retry-After", "")
    return min(float(text), MINUTE) if text.isdecimal() else None
