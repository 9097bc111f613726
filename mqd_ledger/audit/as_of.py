"""The account as of an instant: orders, positions, lots, profit and limits, from the log alone.

Two readings of "as of": *as known then* takes the events that had been recorded by the instant (what the engine itself could know);
*as it was then* takes those that had happened by it, including what was reported only later.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mqd_ledger.chain import Row
from mqd_ledger.envelope import decode
from mqd_ledger.errors import BadInput
from mqd_ledger.events import Event, OrderAdopted, OrderEvent, OrderRequested
from mqd_ledger.evolve import evolve
from mqd_ledger.log import LogReader
from mqd_ledger.projector import project
from mqd_ledger.state import State
from mqd_ledger.values import from_microseconds, iso, microseconds

AS_KNOWN: Literal["recorded"] = "recorded"


def as_of(ledger: Path, until: datetime, by: Literal["recorded", "event"]) -> dict[str, Any]:
    """Everything that was so at `until` (aware): plain values, ready to be shown."""
    state = State()
    count = 0
    with LogReader.open(ledger) as log:
        first = next(log.rows(upto=1), None)
        begun = None if first is None else from_microseconds(first[5] if by == AS_KNOWN else first[4])
        if begun is None or begun > until:
            begins = "it is empty" if begun is None else f"its first event is of {iso(begun)}"
            raise BadInput(f"Nothing in {ledger} is as old as {iso(until)}: {begins}. Give a later --until.")

        def rows() -> Iterator[Row]:
            nonlocal count
            unborn: set[int] = set()  # positions of events whose order, by the times given, was not there yet
            for row in _until(log, microseconds(until), by):
                event = decode(row[3], row[8])
                if row[7] in unborn or _is_unborn(event, state):
                    unborn.add(row[0])
                    continue
                evolve(state, event)
                count += 1
                yield row

        with project(rows(), only=("orders", "positions", "lots", "pnl")) as projected:
            tables = {name: projected.rows(name) for name in ("orders", "positions", "lots", "pnl_daily")}
    return {
        "until": until,
        "by": by,
        "events": count,
        "trading_state": state.trading_state.value,
        "cash": state.cash,
        "equity": state.equity,
        "realized_pnl": state.realized_pnl,
        "unrealized_pnl": state.unrealized_pnl,
        **tables,
        "limits": limits_of(state),
    }


def _until(log: LogReader, instant: int, by: Literal["recorded", "event"]) -> Iterator[Row]:
    """Recorded times never fall, so the known part is the front of the log; what happened by an instant lies scattered."""
    for row in log.rows():
        if by == AS_KNOWN and row[5] > instant:
            return
        if by == AS_KNOWN or row[4] <= instant:
            yield row


def _is_unborn(event: Event, state: State) -> bool:
    """The broker's clock may be behind ours: then an order's first reports are of a time before it was asked for."""
    is_birth = isinstance(event, OrderRequested | OrderAdopted)
    return isinstance(event, OrderEvent) and not is_birth and event.client_order_id not in state.orders


def limits_of(state: State) -> dict[str, Any]:
    """The day's and week's use of the limits, with the limits themselves (None: not set)."""
    limits = state.policy.limits
    return {
        "day_starts_at": state.day.starts_at,
        "day_pnl": state.equity - state.day.start_equity,
        "daily_loss_max": limits.daily_loss_max,
        "week_pnl": state.equity - state.week.start_equity,
        "weekly_loss_max": limits.weekly_loss_max,
        "orders_today": state.day.orders,
        "orders_per_day_max": limits.orders_per_day_max,
        "exposure": state.gross_exposure,
        "exposure_max": limits.exposure_max,
        "open_positions": len(state.positions),
        "positions_max": limits.positions_max,
        "peak_equity": state.peak_equity,
        "drawdown": state.drawdown,
        "consecutive_losses": state.consecutive_losses,
    }
