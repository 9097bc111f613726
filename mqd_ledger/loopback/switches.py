"""Everything about which Alpaca's documentation is silent or contradicts itself, as a choice with the likelier value as default.

To add a switch: a field here, with the question it answers, and the one place that asks it.
"""

from decimal import Decimal
from typing import Literal

import msgspec


class Switches(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    binary_updates: bool = True  # trade_updates as binary frames of JSON; else as text
    has_event_id: bool = True  # whether a trade update carries one
    activity_is_execution: bool = True  # whether the uuid in a FILL activity's id is the stream's execution_id
    ioc_ends: Literal["canceled", "expired"] = "canceled"  # what becomes of the unfilled rest of an IOC or FOK order
    announces_accepted: bool = False  # whether an order outside trading hours is followed by an `accepted` event
    announces_pending_cancel: bool = True  # whether `pending_cancel` precedes `canceled`
    announces_pending_replace: bool = False  # whether `pending_replace` precedes `replaced`
    replace_counts_filled: bool = True  # whether the quantity of a replacement includes what its predecessor has filled
    shorts_are_negative: bool = True  # the sign of a short position's qty and market_value
    busts_are_negative: bool = True  # the sign of qty in a trade_bust
    partial_percent: int = 10  # how often an order that could execute at once is filled only in part
    market_collar_percent: Decimal = Decimal(0)  # how far above the ask a market order is valued for its buying power
    requests_per_minute: int | None = None  # per account, 200 at Alpaca; None: no limit, so that tests need not wait
    dead_socket_seconds: float = 0  # how long a connection that broke without a close still holds its account's place
    auth_seconds: float = 10  # how long a stream waits for its keys
