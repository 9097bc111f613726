"""The policy of a run: every limit and model in force, as plain frozen values.

`settings.py` builds one from files and arguments; `RunStarted` carries it into the log, so that a log explains itself and an
old decision can be taken again under the rules of its day. A limit that is None does not apply. Percentages are of 100
(20 means 20 %); money is US dollars; durations are whole seconds.
"""

from decimal import Decimal
from typing import Literal

import msgspec

from mqd_ledger.values import ZERO, LotMethod, Money, Quantity, Symbol


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the risk gate holds every order against."""

    session: Literal["regular", "extended", "any"] = "regular"  # when orders may be sent
    stale_after: int | None = 90  # oldest usable price
    daily_loss_max: Money | None = Decimal(500)
    weekly_loss_max: Money | None = None
    position_notional_max: Money | None = Decimal(1000)  # per symbol, after the order
    position_percent_max: Decimal | None = Decimal(20)  # per symbol, of equity
    exposure_max: Money | None = Decimal(50000)  # gross, all symbols
    positions_max: int | None = 10
    orders_per_day_max: int | None = 200
    duplicate_window: int | None = 30  # same symbol, side and quantity
    order_notional_min: Money | None = Decimal(100)
    short_selling: bool = False
    whole_share_symbols: tuple[Symbol, ...] = ()  # symbols of which the broker sells no fractions


class Sizing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many shares a signal without a size of its own asks for."""

    method: Literal["notional", "fixed"] = "notional"
    percent: Decimal = Decimal(10)  # notional: of equity
    quantity: Quantity = Decimal(1)  # fixed: shares
    fractional: bool = False


class Commission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: Literal["none", "per_share", "bps"] = "none"
    per_share: Money = ZERO
    minimum: Money = ZERO  # per execution, with per_share
    bps: Decimal = ZERO  # of the notional


class Slippage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: Literal["none", "bps", "volume_share"] = "none"
    bps: Decimal = ZERO
    impact: Decimal = Decimal("0.1")  # volume_share: price moves by impact x (share of the bar's volume) squared


class Simulation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the simulated broker fills."""

    commission: Commission = Commission()
    slippage: Slippage = Slippage()
    participation_percent_max: Decimal | None = None  # of a bar's volume; what is over waits for the next bar


class Operation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an unattended run decides on its own."""

    resend_within: int = (
        30  # of its request, an order that never reached the broker is sent again; an older one is canceled
    )
    attempts_max: int = 3  # of sending one order
    difference_accepted_max: Money = Decimal(
        25
    )  # a difference to the broker's account up to it is booked without asking
    reconcile_every: int = 300
    settle: int = 10  # a disagreement has to last so long: what the broker answers lags behind its own stream
    feed_silent_after: int = 90
    kill_at_daily_loss: Money | None = None  # the kill switch acts by itself
    at_close: Literal["hold", "cancel", "flatten"] = "hold"
    close_before: int = 300  # the close by which orders are canceled or positions closed


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    limits: Limits = Limits()
    sizing: Sizing = Sizing()
    simulation: Simulation = Simulation()
    lot_method: LotMethod = LotMethod.FIFO
    day_starts: Literal["utc", "exchange"] = "utc"  # midnight UTC, or midnight in New York
    operation: Operation | msgspec.UnsetType = msgspec.UNSET  # runs of version 0.1.0 recorded none

    @property
    def unattended(self) -> Operation:
        return self.operation if isinstance(self.operation, Operation) else Operation()
