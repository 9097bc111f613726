"""Made-up bars for a machine that has none: the same seed gives the same bars on every machine.

One-minute bars over real sessions, in whole cents, computed in integers alone. Prices wander around a fair value and
now and then jump two to three percent away from it and come back, so that a mean reversion rule has something to
trade; one jump in six goes on, so that stops are hit as well. Symbols begin with SYN and the provider is
"synthetic": nobody can take it for the market.
"""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.validation import Prices
from mqd_ledger.sessions import next_session, session_on
from mqd_ledger.values import Bar

PROVIDER = "synthetic"
MINUTE = timedelta(minutes=1)
JUMPS_PER_SESSION = 5
ONE = 1_000_000  # deviations from the fair value are millionths of it


class _Dice:
    """splitmix64: whole numbers from a seed, on any machine."""

    def __init__(self, seed: int, name: str) -> None:
        self.state = int.from_bytes(f"{seed}/{name}".encode(), "big") % 2**64

    def below(self, limit: int) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        mixed = self.state
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        return (mixed ^ (mixed >> 31)) % limit

    def around_zero(self, reach: int) -> int:
        """Between -reach and reach, more often near zero: the sum of two throws."""
        return self.below(reach + 1) - self.below(reach + 1)


class _Walk:
    """One symbol's price from minute to minute."""

    def __init__(self, seed: int, symbol: str) -> None:
        self.symbol = symbol
        self.dice = _Dice(seed, symbol)
        self.fair = 4_000 + self.dice.below(16_000)  # cents: 40 to 200 dollars
        self.deviation = 0
        self.close = self.fair
        self.prices = Prices()

    def minute(self) -> tuple[int, int, int, int, int]:
        """Open, high, low, close in cents, and the volume."""
        dice, open_ = self.dice, self.close
        jumped = dice.below(390) < JUMPS_PER_SESSION
        if jumped:
            size = 23_000 + dice.below(8_000)
            if abs(self.deviation) > 12_000:  # goes on the way it went
                self.deviation += size if self.deviation > 0 else -size
            else:
                self.deviation = size if dice.below(2) else -size
        elif abs(self.deviation) > 15_000 and dice.below(60) == 0:
            self.deviation *= 2
        else:
            self.deviation = self.deviation * 88 // 100 + dice.around_zero(900)
        self.close = max(100, self.fair * (ONE + self.deviation) // ONE)
        wick = max(1, self.fair // 4_000)
        high = max(open_, self.close) + dice.below(wick + 1)
        low = min(open_, self.close) - dice.below(wick + 1)
        volume = 500 + dice.below(9_500) + (5_000 if jumped else 0)
        return open_, high, low, self.close, volume

    def next_day(self) -> None:
        """Overnight the fair value moves by up to one percent, and every jump is over."""
        self.fair = max(1_000, self.fair * (ONE + self.dice.around_zero(10_000)) // ONE)
        self.deviation = 0
        self.close = self.fair

    def dollars(self, cents: int) -> str:
        return f"{cents // 100}.{cents % 100:02d}"


def sample_bars(
    symbols: Sequence[str] = ("SYNA", "SYNB"), sessions: int = 5, seed: int = 7, start: date = date(2026, 1, 5)
) -> Iterator[Bar]:
    """Bars of that many sessions from that date on, in order of (end of the bar, symbol)."""
    for symbol in symbols:
        if not symbol.startswith("SYN"):
            raise BadInput(f"{symbol!r} cannot be a made-up symbol. Those begin with SYN, such as SYNA.")
    walks = [_Walk(seed, symbol) for symbol in sorted(set(symbols))]
    session = session_on(start)
    day = start
    while session is None:
        day += timedelta(days=1)
        session = session_on(day)
    for number in range(sessions):
        if number:
            session = next_session(session.open_at)
            for walk in walks:
                walk.next_day()
        start_at = session.open_at
        while start_at < session.close_at:
            for walk in walks:
                *cents, volume = walk.minute()
                open_, high, low, close = (walk.prices[walk.dollars(price)] for price in cents)
                yield Bar(walk.symbol, "1m", start_at, open_, high, low, close, volume, PROVIDER)
            start_at += MINUTE
