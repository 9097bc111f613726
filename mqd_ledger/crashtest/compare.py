"""The ledger against the broker, when all is quiet: every line of the verdict is a sentence that must be true.

To demand something else: a function of what `compare` is given, and its line there.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from mqd_ledger import app
from mqd_ledger import events as e
from mqd_ledger.envelope import stored_names
from mqd_ledger.log import LogReader
from mqd_ledger.state import State
from mqd_ledger.values import CENT, ZERO, DifferenceKind, Money, Quantity, plain

SHOWN = 3  # differences of one kind that are named
ENDED = ("filled", "canceled", "expired", "rejected", "replaced", "done_for_day")  # the broker's words


class Verdict(NamedTuple):
    sentence: str
    holds: bool
    detail: str


class Traded(NamedTuple):
    """What was filled of one order, and for how much."""

    quantity: Quantity
    notional: Money


NOTHING = Traded(ZERO, ZERO)


class Record(NamedTuple):
    """What the ledger tells of its dealings with the broker."""

    known: frozenset[str]  # client_order_ids
    traded: Mapping[str, Traded]
    starts: int
    sent: int
    sent_again: int  # attempts after an order's first
    fills: int
    cancels: int
    differences: Mapping[str, int]  # by kind
    adjusted: tuple[str, ...]  # what had to be booked because nothing else told it


def compare(record: Record, state: State, account: Mapping[str, Any], sent: Iterable[bytes]) -> list[Verdict]:
    """`account` is the broker's own record of itself, from the loopback server; `sent` every order as it was on the wire."""
    orders, contents = account["orders"], _contents(sent)
    unrecorded = [name for name in contents if name not in record.known]
    changed = [name for name, bodies in contents.items() if len(bodies) > 1]
    theirs = {str(order["client_order_id"]): _traded(order["fills"]) for order in orders}
    undone = frozenset(str(order["client_order_id"]) for order in orders if order["undone"])
    unheard = [name for name in undone if theirs[name] != record.traded.get(name, NOTHING)]
    return [
        _same("positions are the broker's", _positions(state), _broker_positions(account)),
        _cash(state.cash, Decimal(account["cash"])),
        *_fills(record.traded, theirs, unheard),
        _none("every order at the broker is known here, once", _strangers(record, orders), f"{len(orders):,} orders"),
        _none("no order works on one side only", _half_ended(state, orders), "none is open"),
        _none("no order left before it was recorded", unrecorded, f"{len(contents):,} left"),
        _none("no order was sent twice with two contents", changed, f"{record.sent_again} were sent again"),
        _adjusted(record.adjusted, unheard),
    ]


def proofs(ledger: Path) -> list[Verdict]:
    """All that `verify --rerun` proves."""
    return [
        Verdict(f"verify: {one.name}", one.passed, one.detail.partition("; ")[0] if one.passed else one.detail)
        for one in app.verify(ledger, rerun=True)
    ]


# --- what the ledger tells --------------------------------------------------------------------------------------------


def record_of(log: LogReader) -> Record:
    known: set[str] = set()
    standing: dict[str, tuple[str, Quantity, Money]] = {}
    counts = Counter[type[e.Event]]()
    again = 0
    kinds: dict[str, DifferenceKind] = {}
    adjusted: list[str] = []
    for recorded in log.replay(types=stored_names(*_TOLD)):
        event = recorded.event
        counts[type(event)] += 1
        match event:
            case e.OrderSent():
                known.add(event.client_order_id)
                again += event.attempt > 1
            case e.OrderAdopted():
                known.add(event.client_order_id)
            case e.OrderReplaced():
                known.add(event.replacement_id)
            case e.OrderFilled():
                standing[event.execution_id] = _execution(event)
            case e.ExecutionBusted():
                standing.pop(event.execution_id, None)
            case e.ExecutionCorrected():
                standing.pop(event.previous_execution_id, None)
                standing[event.execution_id] = _execution(event)
            case e.DifferenceFound():
                kinds[event.difference_id] = event.kind
            case e.AdjustmentBooked() if kinds[event.difference_id] is not DifferenceKind.OPENING:
                adjusted += _adjustment(event)
            case _:
                pass
    traded: dict[str, Traded] = {}
    for order, quantity, notional in standing.values():
        before = traded.get(order, NOTHING)
        traded[order] = Traded(before.quantity + quantity, before.notional + notional)
    return Record(
        frozenset(known),
        traded,
        counts[e.RecoveryStarted],
        counts[e.OrderSent] - again,
        again,
        counts[e.OrderFilled],
        counts[e.CancelRequested],
        dict(Counter(kind.value for kind in kinds.values())),
        tuple(adjusted),
    )


_TOLD = (
    e.RecoveryStarted,
    e.OrderSent,
    e.OrderAdopted,
    e.OrderReplaced,
    e.OrderFilled,
    e.CancelRequested,
    e.ExecutionBusted,
    e.ExecutionCorrected,
    e.DifferenceFound,
    e.AdjustmentBooked,
)


def _execution(event: e.OrderFilled | e.ExecutionCorrected) -> tuple[str, Quantity, Money]:
    return event.client_order_id, event.last_quantity, event.last_quantity * event.last_price


def _adjustment(event: e.AdjustmentBooked) -> list[str]:
    booked = [f"{plain(event.quantity)} {event.symbol}"] if event.quantity else []
    booked += [f"{plain(event.amount)} of cash"] if event.amount else []
    return [f"{event.difference_id} {one}" for one in booked]


# --- what must be so --------------------------------------------------------------------------------------------------


def _traded(fills: Iterable[Mapping[str, Any]]) -> Traded:
    sizes = [(Decimal(str(fill["qty"])), Decimal(str(fill["price"]))) for fill in fills]
    return Traded(sum((size for size, _ in sizes), ZERO), sum((size * price for size, price in sizes), ZERO))


def _fills(ours: Mapping[str, Traded], theirs: Mapping[str, Traded], unheard: Sequence[str]) -> list[Verdict]:
    orders = sorted({*ours, *theirs} - {*unheard})
    pairs = [(order, ours.get(order, NOTHING), theirs.get(order, NOTHING)) for order in orders]
    shares = sum((one.quantity for one in theirs.values()), ZERO)
    lost = [
        f"{order} {plain(their.quantity - our.quantity)}"
        for order, our, their in pairs
        if our.quantity < their.quantity
    ]
    more = [
        f"{order} {plain(our.quantity - their.quantity)}"
        for order, our, their in pairs
        if our.quantity > their.quantity
    ]
    dearer = [
        f"{order} {plain(our.notional)}, there {plain(their.notional)}"
        for order, our, their in pairs
        if our.quantity == their.quantity and abs(our.notional - their.notional) > CENT
    ]
    return [
        _none("no fill was lost", lost, f"{plain(shares)} shares traded at the broker"),
        _none("no fill was booked twice, or made up", more, "as many here"),
        _none("each was booked at its price", dearer, "to the cent, order by order"),
    ]


def _positions(state: State) -> dict[str, str]:
    return {symbol: plain(quantity) for symbol, quantity in sorted(state.positions.items())}


def _broker_positions(account: Mapping[str, Any]) -> dict[str, str]:
    return {symbol: plain(Decimal(str(one["qty"]))) for symbol, one in sorted(account["positions"].items())}


def _cash(ours: Money, theirs: Money) -> Verdict:
    """A price that follows from an average is a ten-thousandth off, so that a cent may be missing."""
    holds = abs(ours - theirs) <= CENT
    return Verdict("cash is the broker's", holds, f"{ours:,.2f}" if holds else f"ledger {ours}, broker {theirs}")


def _adjusted(adjusted: Sequence[str], unheard: Sequence[str]) -> Verdict:
    """What the market takes back while nobody listens is told nowhere else: only shares and cash show it, once each."""
    sentence = "nothing had to be adjusted"
    if not unheard:
        return _none(sentence, adjusted, "every share and cent has its execution")
    what = f"what was taken back of {len(unheard)} fills unheard"
    if len(adjusted) > 2 * len(unheard):
        return _none(f"{sentence} but {what}", adjusted, "")
    return Verdict(f"{sentence} but {what}", True, ", ".join(adjusted) or "nothing")  # noqa: FBT003


def _strangers(record: Record, orders: Sequence[Mapping[str, Any]]) -> list[str]:
    """One that somebody else placed and that ended without a trade concerns nobody."""
    counted = Counter(
        str(order["client_order_id"])
        for order in orders
        if order["client_order_id"] in record.known or order["fills"] or order["status"] not in ENDED
    )
    return [order for order, count in counted.items() if count > 1 or order not in record.known]


def _half_ended(state: State, orders: Sequence[Mapping[str, Any]]) -> list[str]:
    there = {str(order["client_order_id"]) for order in orders if order["status"] not in ENDED}
    here = {name for of_symbol in state.working.values() for name in of_symbol}
    return sorted(there ^ here)


def _contents(sent: Iterable[bytes]) -> dict[str, set[str]]:
    """By client_order_id, each content once."""
    contents: dict[str, set[str]] = {}
    for body in sent:
        order = json.loads(body)
        contents.setdefault(order["client_order_id"], set()).add(json.dumps(order, sort_keys=True))
    return contents


def _same(sentence: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> Verdict:
    holds = ours == theirs
    told = ", ".join(f"{name} {value}" for name, value in ours.items()) or "none"
    return Verdict(sentence, holds, told if holds else f"ledger {dict(ours)}, broker {dict(theirs)}")


def _none(sentence: str, wrong: Sequence[str], otherwise: str) -> Verdict:
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return Verdict(sentence, not wrong, f"{len(wrong)}: {', '.join(wrong[:SHOWN])}{more}" if wrong else otherwise)
