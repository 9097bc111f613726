"""What all commands have in common."""

from datetime import datetime

import msgspec

from mqd_ledger.errors import CommandRefused
from mqd_ledger.orders import Order
from mqd_ledger.state import State


class Command(msgspec.Struct, frozen=True, gc=False):
    """Something that is asked. `at` is when it reached us (aware UTC), stamped once at the door."""

    at: datetime


def order_of(state: State, client_order_id: str) -> Order:
    order = state.orders.get(client_order_id)
    if order is None:
        raise CommandRefused(
            f"No order {client_order_id!r} is known here. An order that was not sent from this ledger has to be adopted "
            "(ReportUnknownOrder) before anything is reported of it."
        )
    return order
