"""All orders of one account, and what of them goes out as trade updates: told by the account's ledger alone.

`OrderBook` follows the engine's events, live and when a ledger is read back, and makes the same records of them; live it also says
what goes out as trade updates. The client's order id lies in the ledger as the order's strategy, the successor of a replaced order
as the reason of its cancel, so nothing has to be kept beside the ledger.

Times: an order's own are those of its events; what a bar does to it is stamped with the moment at which that bar was known. No two
stamps of an account are equal. An order that was filled stays `filled` where the market takes an execution back.
"""

from datetime import datetime
from typing import Any

from commands import Command
from mqd_ledger.engine import Reaction
from mqd_ledger.events import (
    BarClosed,
    CancelRequested,
    Event,
    ExecutionBusted,
    ExecutionCorrected,
    OrderCanceled,
    OrderDenied,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrderRequested,
    OrderSubmitted,
)
from mqd_ledger.loopback.chance import ulid, uuid_of
from mqd_ledger.loopback.clock import nanosecond_text
from mqd_ledger.loopback.orders import Execution, OrderRecord, expires_at, is_trading, order_json
from mqd_ledger.loopback.switches import Switches
from mqd_ledger.state import State
from mqd_ledger.values import EPOCH, MICROSECOND, ZERO, Price, Quantity, Side, TimeInForce, plain

REPLACED_BY = "replaced by "


class OrderBook:
    """All orders of one account. As the engine's first reactor it hears of an event before the broker answers it."""

    def __init__(self, state: State, switches: Switches, *names: object) -> None:
        """`names` (seed, account) are what every id here is derived from."""
        self.orders: list[OrderRecord] = []
        self.by_id: dict[str, OrderRecord] = {}
        self.by_client_id: dict[str, OrderRecord] = {}
        self.open: dict[str, OrderRecord] = {}  # by engine id
        self.outbox: list[dict[str, Any]] = []
        self.created: dict[str, Any] = {}  # the last new order, as it was when it came
        self.stamped = EPOCH
        self._state = state
        self._switches = switches
        self._names = names
        self._by_engine_id: dict[str, OrderRecord] = {}
        self._replaced: OrderRecord | None = None
        self._at: datetime | None = None  # of the bar that orders are meeting
        self._updates = 0

    @property
    def reactions(self) -> dict[type[Event], Reaction]:
        return {
            OrderRequested: self._requested,
            OrderSubmitted: self._submitted,
            OrderFilled: self._filled,
            CancelRequested: self._cancel_requested,
            OrderCanceled: self._canceled,
            OrderExpired: self._expired,
            OrderRejected: self._rejected,
            OrderDenied: self._rejected,
            BarClosed: self._bar_closed,
            ExecutionBusted: self._busted,
            ExecutionCorrected: self._corrected,
        }

    def instant(self, at: datetime) -> datetime:
        """`at`, or just after the last stamp of this account if that is later."""
        return max(at, self.stamped + MICROSECOND)

    def hold_cancel(self, order: OrderRecord, at: datetime) -> None:
        """A cancel is asked for and nothing comes of it."""
        order.cancel_requested_at = self._stamp(at)
        order.status = "pending_cancel"
        self._emit("pending_cancel", order)

    def _stamp(self, at: datetime) -> datetime:
        self.stamped = self.instant(at)
        return self.stamped

    def _requested(self, event: OrderRequested, _now: datetime) -> tuple[Command, ...]:
        at = self._stamp(event.occurred_at)
        number = len(self.orders) + 1
        held = self._state.positions.get(event.symbol, ZERO)
        closes = held > 0 if event.side is Side.SELL else held < 0
        order = OrderRecord(
            number=number,
            id=uuid_of(*self._names, "order", number),
            client_order_id=event.strategy,
            engine_id=event.client_order_id,
            symbol=event.symbol,
            side=event.side,
            order_type=event.order_type,
            quantity=event.quantity,
            notional=event.notional,
            limit_price=event.limit_price,
            stop_price=event.stop_price,
            time_in_force=event.time_in_force,
            extended_hours=event.extended_hours,
            created_at=at,
            updated_at=at,
            submitted_at=at,
            expires_at=expires_at(at, event.time_in_force, extended=event.extended_hours),
            position_intent=f"{event.side.lower()}_to_{'close' if closes else 'open'}",
        )
        if not is_trading(at, extended=event.extended_hours):
            order.status = "accepted"
        if self._replaced is not None:
            order.replaces, self._replaced = self._replaced.id, None
        self.orders.append(order)
        self.by_id[order.id] = self.by_client_id[order.client_order_id] = order
        self._by_engine_id[order.engine_id] = self.open[order.engine_id] = order
        self.created = order_json(order)
        if order.status == "pending_new" and order.replaces is None:
            self._emit("pending_new", order, execution_id=None)
        elif order.status == "accepted" and self._switches.announces_accepted:
            self._emit("accepted", order)
        return ()

    def _submitted(self, event: OrderSubmitted, _now: datetime) -> tuple[Command, ...]:
        order = self._by_engine_id[event.client_order_id]
        if order.status == "pending_new":
            self._become_new(order, event.occurred_at)
        return ()

    def _become_new(self, order: OrderRecord, at: datetime) -> None:
        order.status, order.updated_at = "new", self._stamp(at)
        self._emit("new", order, execution_id=self._next_id("new"))

    def _bar_closed(self, event: BarClosed, _now: datetime) -> tuple[Command, ...]:
        """Seen before the broker fills anything by it. A bar of a second is the price of a moment, known at its start."""
        bar = event.bar
        self._at = bar.start_at if bar.interval == "1s" else event.occurred_at
        for order in self.open.values():
            is_due = order.submitted_at <= bar.start_at and is_trading(bar.start_at, extended=order.extended_hours)
            if order.status == "accepted" and order.symbol == bar.symbol and is_due:
                self._become_new(order, self._at)
        return ()

    def _filled(self, event: OrderFilled, _now: datetime) -> tuple[Command, ...]:
        order = self._by_engine_id[event.client_order_id]
        at = order.updated_at = self._stamp(self._at or event.occurred_at)
        execution_id = self._id_of("execution", event.execution_id)
        is_one = self._switches.activity_is_execution
        activity_id = execution_id if is_one else self._id_of("activity", event.execution_id)
        order.filled_quantity = event.filled_quantity
        order.filled_notional += event.last_quantity * event.last_price
        execution = Execution(
            event.execution_id,
            execution_id,
            activity_id,
            at,
            event.last_price,
            event.last_quantity,
            event.filled_quantity,
            event.leaves_quantity,
        )
        order.executions.append(execution)
        if event.leaves_quantity:
            order.status = "partially_filled"
        else:
            order.status, order.filled_at = "filled", at
            self.open.pop(order.engine_id, None)
        self._emit(
            "partial_fill" if event.leaves_quantity else "fill",
            order,
            execution_id=execution_id,
            price=plain(event.last_price),
            qty=plain(event.last_quantity),
            position_qty=plain(self._state.positions.get(order.symbol, ZERO)),
        )
        return ()

    def _busted(self, event: ExecutionBusted, _now: datetime) -> tuple[Command, ...]:
        """The order's status stays: only its executions become fewer."""
        order = self._by_engine_id[event.client_order_id]
        order.updated_at = self._stamp(event.occurred_at)
        undone = self._take_out(order, event.execution_id)
        quantity = -event.last_quantity if self._switches.busts_are_negative else event.last_quantity
        self._tell_of("trade_bust", order, undone, event.last_price, quantity, self._id_of("bust", event.execution_id))
        return ()

    def _corrected(self, event: ExecutionCorrected, _now: datetime) -> tuple[Command, ...]:
        order = self._by_engine_id[event.client_order_id]
        at = order.updated_at = self._stamp(event.occurred_at)
        undone = self._take_out(order, event.previous_execution_id)
        order.filled_quantity += event.last_quantity
        order.filled_notional += event.last_quantity * event.last_price
        execution_id = self._id_of("correction", event.execution_id)
        sizes = event.last_price, event.last_quantity
        leaves = order.leaves_quantity
        corrected = Execution(event.execution_id, execution_id, execution_id, at, *sizes, order.filled_quantity, leaves)
        order.executions.append(corrected)
        self._tell_of("trade_correct", order, undone, *sizes, execution_id)
        return ()

    @staticmethod
    def _take_out(order: OrderRecord, engine_id: str) -> str:
        """Forget an execution; its execution_id."""
        undone = next(execution for execution in order.executions if execution.engine_id == engine_id)
        order.executions.remove(undone)
        order.undone += 1
        order.filled_quantity -= undone.quantity
        order.filled_notional -= undone.quantity * undone.price
        return undone.execution_id

    def _tell_of(
        self, event: str, order: OrderRecord, undone: str, price: Price, quantity: Quantity, execution_id: str
    ) -> None:
        self._emit(
            event,
            order,
            execution_id=execution_id,
            previous_execution_id=undone,
            price=plain(price),
            qty=plain(quantity),
            position_qty=plain(self._state.positions.get(order.symbol, ZERO)),
        )

    def _cancel_requested(self, event: CancelRequested, _now: datetime) -> tuple[Command, ...]:
        order = self._by_engine_id[event.client_order_id]
        at = self._stamp(event.occurred_at)
        replaced = event.reason.startswith(REPLACED_BY)
        if not replaced:
            order.cancel_requested_at = at
        order.updated_at = at
        status = "pending_replace" if replaced else "pending_cancel"
        announces = self._switches.announces_pending_replace if replaced else self._switches.announces_pending_cancel
        if announces:
            order.status = status
            self._emit(status, order)
        return ()

    def _canceled(self, event: OrderCanceled, _now: datetime) -> tuple[Command, ...]:
        order = self._by_engine_id[event.client_order_id]
        if event.reason.startswith(REPLACED_BY):
            order.replaced_by = uuid_of(*self._names, "order", len(self.orders) + 1)  # the next order is its successor
            order.replaced_at = self._end(order, event.occurred_at, "replaced")
            self._emit("replaced", order)
            self._replaced = order
        elif order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK) and order.cancel_requested_at is None:
            self._finish(order, self._at or event.occurred_at, self._switches.ioc_ends)
        else:
            self._finish(order, event.occurred_at, "canceled")
        return ()

    def _expired(self, event: OrderExpired, _now: datetime) -> tuple[Command, ...]:
        self._finish(self._by_engine_id[event.client_order_id], event.occurred_at, "expired")
        return ()

    def _rejected(self, event: OrderRejected | OrderDenied, _now: datetime) -> tuple[Command, ...]:
        order = self._by_engine_id[event.client_order_id]
        order.failed_at = self._end(order, event.occurred_at, "rejected")
        self._emit("rejected", order)
        return ()

    def _finish(self, order: OrderRecord, at: datetime, status: str) -> None:
        stamp = self._end(order, at, status)
        if status == "expired":
            order.expired_at = stamp
        else:
            order.canceled_at = stamp
        self._emit(status, order)

    def _end(self, order: OrderRecord, at: datetime, status: str) -> datetime:
        self.open.pop(order.engine_id, None)
        order.status, order.updated_at = status, self._stamp(at)
        return order.updated_at

    def _id_of(self, what: str, engine_id: str) -> str:
        """Of an execution: the same whenever the ledger is read back, and never that of another one."""
        return uuid_of(*self._names, what, engine_id)

    def _next_id(self, what: str) -> str:
        self._updates += 1
        return uuid_of(*self._names, what, self._updates)

    def _emit(self, event: str, order: OrderRecord, **more: str | None) -> None:
        """In the ledger's order; whoever reads a ledger back throws the outbox away."""
        at = nanosecond_text(order.updated_at)
        update: dict[str, Any] = {"event": event, "at": at, "timestamp": at, "order": order_json(order), **more}
        if "execution_id" not in update:
            update["execution_id"] = self._next_id(event)
        self._updates += 1
        if self._switches.has_event_id:
            update["event_id"] = ulid(order.updated_at, self._updates, *self._names)
        self.outbox.append(update)
