"""What Alpaca can be asked: account, positions, orders, executions, movements, the exchange's clock, and all of it at once.

Something unreadable among positions or open orders fails the whole question, since a position that is left out would look like one
that is gone. An activity that cannot be read is left out and told in `BrokerBooks.problems`: what it meant shows in the order's
filled quantity, the positions or the cash.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from mqd_ledger.brokers import alpaca_reading as reading
from mqd_ledger.brokers.alpaca_reading import Raw, Read, Unreadable, order_of, read
from mqd_ledger.brokers.alpaca_rest import AlpacaRest, Refused
from mqd_ledger.brokers.base import (
    BrokerAccount,
    BrokerBooks,
    BrokerClock,
    BrokerFill,
    BrokerMovement,
    BrokerOrder,
    BrokerPosition,
)
from mqd_ledger.values import iso

ORDERS_MAX, ACTIVITIES_MAX = 500, 100  # rows of one page
FEW = 3  # orders that are cheaper asked for one by one than all together
Working = Sequence[tuple[str, str | None]]  # client_order_id and broker_order_id of what the ledger has working
T = TypeVar("T")


DATED = timedelta(
    days=3
)  # a movement often has a date and no time, and is told a night later; each is booked once, by its id


class AlpacaQuestions:
    """`base.Broker` over REST. Every question may raise a `BrokerFailure`, or `Unreadable`."""

    def __init__(self, rest: AlpacaRest) -> None:
        self.rest = rest

    def account(self) -> BrokerAccount:
        return reading.account_of(_object(self.rest.get("/account")), self.rest.environment)

    def positions(self) -> tuple[BrokerPosition, ...]:
        return _all(read(self.rest.get("/positions"), "position", reading.position_of))

    def open_orders(self) -> tuple[BrokerOrder, ...]:
        return _all(read(self._order_rows({"status": "open"}), "order", order_of))

    def order(self, client_order_id: str) -> BrokerOrder | None:
        return self._one_order("/orders:by_client_order_id", {"client_order_id": client_order_id})

    def order_by_broker_id(self, broker_order_id: str) -> BrokerOrder | None:
        return self._one_order(f"/orders/{broker_order_id}", {})

    def _one_order(self, path: str, params: Mapping[str, str]) -> BrokerOrder | None:
        try:
            return order_of(_object(self.rest.get(path, params)))
        except Refused as verdict:
            if verdict.status == 404:
                return None
            raise

    def fills(self, after: datetime) -> tuple[BrokerFill, ...]:
        return _all(self._fills(after))

    def movements(self, after: datetime) -> tuple[BrokerMovement, ...]:
        return _all(self._movements(after))

    def clock(self) -> BrokerClock:
        return reading.clock_of(_object(self.rest.get("/clock")))

    # --- all of it

    def books(self, working: Working, after: datetime, asked_at: datetime) -> BrokerBooks:
        """All that a comparison needs: executions and movements after a time, and what has become of the orders in question.

        Open orders come before positions: what fills in between is seen twice rather than not at all.
        """
        open_orders = read(self._order_rows({"status": "open"}), "order", order_of)
        positions = self.positions()
        account = self.account()
        fills = self._fills(after)
        movements = self._movements(after - DATED)
        orders = self._orders_meant(working, fills.items, open_orders.items, after)
        problems = (*open_orders.problems, *fills.problems, *movements.problems, *orders.problems)
        return BrokerBooks(
            asked_at,
            account,
            positions,
            open_orders.items,
            orders.items,
            fills.items,
            movements.items,
            problems,
            open_orders.problems,
        )

    def _orders_meant(
        self, working: Working, fills: Iterable[BrokerFill], open_orders: Iterable[BrokerOrder], after: datetime
    ) -> Read[BrokerOrder]:
        """The orders that the ledger has working, those of the fills, and those that have taken another one's place. One of ours
        that cannot be read raises, for without it nothing can be said of it; one that only a fill names is a problem.
        """
        known = _Known(open_orders)
        ids = dict.fromkeys(fill.broker_order_id for fill in fills)
        missing = [name for name in ids if name not in known.by_id]
        missing += [name for name, _ in working if name not in known.by_client_id]
        if len(missing) > FEW:
            rows = self._order_rows({"status": "all", "after": iso(after)})
            known.add(read(rows, "order", order_of).items)  # what is missing there is asked for by itself
        meant, problems = [], []
        for name in ids:
            try:
                meant.append(known.of_id(name, self.order_by_broker_id))
            except Unreadable as problem:
                problems.append(f"Unreadable order {name} of a fill: {problem}")
        meant += [known.of_client_id(name, self.order) for name, _ in working]
        found = {order.broker_order_id: order for order in meant if order is not None}
        for order in list(found.values()):
            successor = order
            while successor.replaced_by and successor.replaced_by not in found:
                following = known.of_id(successor.replaced_by, self.order_by_broker_id)
                if following is None:
                    break
                successor = found[following.broker_order_id] = following
        return Read(tuple(found.values()), tuple(problems))

    # --- lists that come in pages

    def _order_rows(self, query: Mapping[str, str]) -> list[Any]:
        """By the id of the last row: times of rows have nanoseconds, those of a query do not."""
        params: dict[str, Any] = {**query, "direction": "asc", "limit": ORDERS_MAX}
        return self._pages("/orders", params, ORDERS_MAX, "after_order_id", replaces="after")

    def _fills(self, after: datetime) -> Read[BrokerFill]:
        found = read(self._activities("/account/activities/FILL", {}, after), "fill", reading.fill_of)
        return Read(reading.in_order(found.items), found.problems)

    def _movements(self, after: datetime) -> Read[BrokerMovement]:
        rows = self._activities("/account/activities", {"category": "non_trade_activity"}, after)
        others = [row for row in rows if not isinstance(row, Mapping) or row.get("activity_type") != "FILL"]
        return read(others, "movement", reading.movement_of)

    def _activities(self, path: str, query: Mapping[str, str], after: datetime) -> list[Any]:
        params = {**query, "after": iso(after), "direction": "asc", "page_size": ACTIVITIES_MAX}
        return self._pages(path, params, ACTIVITIES_MAX, "page_token")

    def _pages(self, path: str, params: dict[str, Any], size: int, token: str, replaces: str = "") -> list[Any]:
        """All rows, each once: where a page's rows changed places, the next page begins with some of them again."""
        rows: list[Any] = []
        seen: set[str] = set()
        while True:
            page = self.rest.get(path, params)
            if not isinstance(page, list):
                raise Unreadable(f"Instead of a list from {path} Alpaca sent {reading.shown(page)}.")
            new = [row for row in page if _id(row) not in seen]
            rows += new
            seen.update(_id(row) for row in new)
            last = _id(page[-1]) if page else ""
            if len(page) < size or not new or not last:
                return rows
            params = {name: value for name, value in params.items() if name != replaces} | {token: last}


class _Known:
    """Orders that were told already, and a way to ask for the others."""

    def __init__(self, orders: Iterable[BrokerOrder]) -> None:
        self.by_id: dict[str, BrokerOrder] = {}
        self.by_client_id: dict[str, BrokerOrder] = {}
        self.add(orders)

    def add(self, orders: Iterable[BrokerOrder]) -> None:
        for order in orders:
            self.by_id[order.broker_order_id] = self.by_client_id[order.client_order_id] = order

    def of_id(self, name: str, ask: Callable[[str], BrokerOrder | None]) -> BrokerOrder | None:
        return self.by_id.get(name) or ask(name)

    def of_client_id(self, name: str, ask: Callable[[str], BrokerOrder | None]) -> BrokerOrder | None:
        return self.by_client_id.get(name) or ask(name)


def _id(row: object) -> str:
    return str(row.get("id", "")) if isinstance(row, Mapping) else ""


def _object(raw: object) -> Raw:
    if not isinstance(raw, Mapping):
        raise Unreadable(f"Instead of an object Alpaca sent {reading.shown(raw)}.")
    return raw


def _all(found: Read[T]) -> tuple[T, ...]:
    """Everything, or what stands in the way of it."""
    if found.problems:
        raise Unreadable(" ".join(found.problems))
    return found.items
