"""Who may trade: what operators and the kill switch decide."""

from mqd_ledger.events.base import Event
from mqd_ledger.values import Symbol


class ControlEvent(Event, frozen=True, gc=False):
    """`request_id` is the asker's: a request that reaches us twice, even after others, counts once."""

    operator: str
    reason: str
    request_id: str = ""


class TradingHalted(ControlEvent, frozen=True, gc=False):
    """No orders at all from now on."""


class TradingReduced(ControlEvent, frozen=True, gc=False):
    """Only orders that make a position smaller."""


class TradingResumed(ControlEvent, frozen=True, gc=False):
    """An operator lifted the halt or the reduction."""


class KillSwitchActivated(ControlEvent, frozen=True, gc=False):
    """No new order from now on; every order is canceled and every position closed, until the broker shows neither."""


class KillSwitchCompleted(Event, frozen=True, gc=False):
    """The broker shows no open order and no position. Trading stays halted until an operator resumes it."""

    detail: str  # what was looked at


class PositionCloseRequested(ControlEvent, frozen=True, gc=False):
    """Somebody (an operator, the kill switch, the policy at the close) wants a position gone. The order that does it follows."""

    symbol: Symbol = ""
