"""What strategies wish, and how they end."""

from mqd_ledger.events.base import Event
from mqd_ledger.values import Direction, Money, Price, Quantity, Symbol


class StrategyEvent(Event, frozen=True, gc=False):
    strategy: str


class SignalRaised(StrategyEvent, frozen=True, gc=False):
    """A strategy's wish. Without quantity or notional the sizing of the policy applies."""

    symbol: Symbol
    direction: Direction
    reason: str
    quantity: Quantity | None
    notional: Money | None
    stop_price: Price | None
    target_price: Price | None
    confidence: str | None


class SignalIgnored(StrategyEvent, frozen=True, gc=False):
    """A signal that asked for nothing new: already there, or an order of its own still works."""

    symbol: Symbol
    direction: Direction
    reason: str


class StrategyStopped(StrategyEvent, frozen=True, gc=False):
    error: str
