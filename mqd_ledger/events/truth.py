"""The broker as the truth: recovery, differences, adjustments, the way to it."""

from mqd_ledger.events.base import AccountEvent
from mqd_ledger.events.runs import RunEvent
from mqd_ledger.values import DifferenceKind, Money, Price, Quantity, Symbol


class AccountAttached(AccountEvent, frozen=True, gc=False):
    """The broker's account that this ledger keeps the books of; another one is refused from then on."""

    broker: str  # "alpaca"
    environment: str  # "paper", "live", "loopback"
    account_number: str


class RecoveryStarted(RunEvent, frozen=True, gc=False):
    """Trading is blocked from here until the last step has passed."""


class RecoveryStepTaken(RunEvent, frozen=True, gc=False):
    """One of the steps between a start and the first order. The last one, passed, lets trading begin."""

    step: int
    name: str
    passed: bool
    is_last: bool
    detail: str


class DifferenceFound(AccountEvent, frozen=True, gc=False):
    """What the broker says is not what the ledger says. `ours` and `theirs` are what was compared, as text."""

    difference_id: str
    kind: DifferenceKind
    subject: str  # a symbol, an order, "cash"
    ours: str
    theirs: str
    quantity: Quantity  # signed: shares that the ledger has too few of; zero for cash
    price: Price  # at which they would be booked
    # Money in or out that would be booked beside the shares, or alone: what is paid for shares is no part of it, and the worth of
    # shares that came (or went) without being paid for is. So cash changes by amount - quantity x price.
    amount: Money
    evidence: dict[str, str]
    needs_acceptance: bool


class DifferenceCleared(AccountEvent, frozen=True, gc=False):
    """An open difference is none any more: broker and ledger agree again, or a newer one takes its place."""

    difference_id: str
    subject: str
    reason: str


class AdjustmentBooked(AccountEvent, frozen=True, gc=False):
    """The books follow the broker. Never a trade: nothing was sent for it."""

    difference_id: str
    symbol: Symbol  # "" for cash
    quantity: Quantity
    price: Price
    amount: Money
    operator: str  # who accepted it; "reconciliation" for what is under the threshold
    reason: str
    request_id: str = ""


class BrokerUnreachable(AccountEvent, frozen=True, gc=False):
    """A way to the broker is down; no order goes out while it is."""

    what: str  # "orders" (requests), "trade_updates" (its stream)
    detail: str


class BrokerReachable(AccountEvent, frozen=True, gc=False):
    what: str
    detail: str


class BrokerReportIgnored(AccountEvent, frozen=True, gc=False):
    """Something came from the broker that could not be used. It is kept as it came; the next comparison finds what it meant."""

    what: str  # "trade_updates", "orders"
    raw: str
    reason: str
