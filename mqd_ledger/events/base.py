"""What every event has in common."""

from datetime import datetime

import msgspec


class Event(msgspec.Struct, frozen=True, gc=False):
    """`occurred_at` is when it happened in the world; the envelope's `recorded_at` is when we learned it."""

    occurred_at: datetime


class AccountEvent(Event, frozen=True, gc=False):
    """Money and identity of the account itself."""
