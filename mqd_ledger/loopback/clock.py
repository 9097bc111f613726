"""Market time: runs while there is trading, jumps over nights and weekends, and may run faster than the clock on the wall.

Each session is played from five minutes before its open to ten minutes after its close. `later` is the one function of that, and
both clocks use it: the server's `MarketClock`, and the `LoopbackClock` of whoever trades against it.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from threading import Lock
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from mqd_ledger.errors import BadInput
from mqd_ledger.sessions import Session, next_session, session_on
from mqd_ledger.values import MICROSECOND, iso, microseconds

NEW_YORK = ZoneInfo("America/New_York")
BEFORE_OPEN, AFTER_CLOSE = timedelta(minutes=5), timedelta(minutes=10)


def played_span(at: datetime) -> tuple[datetime, datetime]:
    """The played span that holds an instant, else the next one."""
    session: Session | None = session_on(at.astimezone(NEW_YORK).date())
    if session is None or at >= session.close_at + AFTER_CLOSE:
        session = next_session(at)
    return session.open_at - BEFORE_OPEN, session.close_at + AFTER_CLOSE


def later(at: datetime, played: timedelta) -> datetime:
    """Market time after so much more of it has been played."""
    while True:
        start, end = played_span(at)
        at = max(at, start)
        if played < end - at:
            return at + played
        played -= end - at
        at = end


def nanosecond_text(at: datetime) -> str:
    """RFC 3339 with nine digits, which sorts like the time. Python's times have six; the rest follows from them, never 000."""
    nanoseconds = 1 + microseconds(at) * 7919 % 999
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}{nanoseconds:03d}Z"


class MarketClock:
    """The server's time. With a speed it runs by itself from `start` on; without one it stands until `advance_to`.

    `skew` seconds are added to what is stamped: a broker whose clock is wrong.
    """

    def __init__(
        self, start: datetime, speed: float | None = 1, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        if speed is not None and speed <= 0:
            raise BadInput(f"A market clock runs at a speed above zero, or without one step by step; found {speed}.")
        self.speed = speed
        self.skew = timedelta()
        self._monotonic = monotonic
        self._market, self._wall = start, monotonic()
        self._stamped = start
        self._lock = Lock()

    def now(self) -> datetime:
        if self.speed is None:
            return self._market
        with self._lock:
            wall = self._monotonic()
            self._market = later(self._market, timedelta(seconds=(wall - self._wall) * self.speed))
            self._wall = wall
            return self._market

    def stamp(self) -> datetime:
        """An instant after now that was never given before, later than every one that was. So whatever is stamped at the very
        start of a minute comes after it, and misses the bar that starts there.
        """
        now = self.now() + self.skew
        with self._lock:
            self._stamped = max(now, self._stamped) + MICROSECOND
            return self._stamped

    def advance_to(self, at: datetime) -> None:
        if self.speed is not None:
            raise BadInput(
                f"This clock runs by itself, {self.speed} times as fast as the wall's; only one without speed is set."
            )
        if at < self._market:
            raise BadInput(f"Market time never goes back: it is {iso(self._market)}, and {iso(at)} was asked for.")
        self._market = at

    def seconds_until(self, at: datetime) -> float:
        """How long to wait, at most until the end of this span, after which one has to ask again."""
        if self.speed is None:
            return float("inf")
        now = self.now()
        return max(0.0, (min(at, played_span(now)[1]) - now).total_seconds() / self.speed)

    def shown(self) -> dict[str, Any]:
        """What GET /loopback/clock answers."""
        return {"now": iso(self.now()), "speed": self.speed, "skew": self.skew.total_seconds()}


class LoopbackClock:
    """The server's market time seen from outside: asked for once a second at most, computed in between; it never goes back."""

    def __init__(
        self, url: str, *, every: float = 1.0, timeout: float = 5.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._host = urlsplit(url).netloc
        self._every, self._timeout, self._monotonic = every, timeout, monotonic
        self._lock = Lock()
        self._rate = 0.0
        self.is_over = False  # there are no more bars to play
        try:
            self._market, self._wall = self._ask(), monotonic()
        except (OSError, HTTPException) as error:
            raise BadInput(
                f"No loopback server answers at {url} ({error}). Start one with `mqd-ledger loopback`, or correct the address."
            ) from error
        self._asked = self._wall
        self._last = self._market
        self._span = played_span(self._market)

    @property
    def rate(self) -> float:
        """Market seconds per second of the wall while the market is played; 0 where it is moved by hand."""
        return self._rate

    def now(self) -> datetime:
        with self._lock:
            wall = self._monotonic()
            if not self._rate or wall - self._asked >= self._every:
                self._asked = wall
                with suppress(
                    OSError, HTTPException, ValueError, KeyError
                ):  # while the server is down, time goes on as it did
                    self._market, self._wall = self._ask(), wall
            played = timedelta(seconds=(wall - self._wall) * self._rate)
            self._last = max(self._last, self._later(played) if played else self._market)
            return self._last

    def _later(self, played: timedelta) -> datetime:
        """`later`, without a look at the calendar where the span that was found last still holds the whole way."""
        start, end = self._span
        if not start <= self._market < end:
            start, end = self._span = played_span(self._market)
        at = self._market + played
        return at if start <= self._market and at < end else later(self._market, played)

    def _ask(self) -> datetime:
        connection = HTTPConnection(self._host, timeout=self._timeout)
        try:
            connection.request("GET", "/loopback/clock")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        self._rate = float(answer["speed"] or 0)
        self.is_over = bool(answer["is_over"])
        return datetime.fromisoformat(answer["now"])
