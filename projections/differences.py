"""Where was the broker's account not what the ledger says, and what became of it? One row per difference.

It is OPEN until somebody accepts it (BOOKED), or until broker and ledger agree again or a newer one takes its place (CLEARED).
"""

from collections.abc import Iterator

import msgspec

from mqd_ledger import events as e
from mqd_ledger.evolve.books import worth_of
from projections.shape import Kind, Meta, Statement, Table, amount, at

NAME = "differences"
VERSION = 1

DIFFERENCES = Table(
    "differences",
    key=("position",),
    columns={
        "position": Kind.INTEGER,  # of its finding in the log
        "difference_id": Kind.TEXT,
        "kind": Kind.TEXT,
        "subject": Kind.TEXT,  # a symbol, an order, cash
        "ours": Kind.TEXT,
        "theirs": Kind.TEXT,
        "quantity": Kind.DECIMAL,  # shares that the ledger had too few of
        "price": Kind.DECIMAL,
        "amount": Kind.DECIMAL,  # cash that the ledger had too little of
        "worth": Kind.DECIMAL,
        "needs_acceptance": Kind.BOOLEAN,
        "state": Kind.TEXT,  # OPEN, BOOKED, CLEARED
        "found_at": Kind.TIME,
        "settled_at": Kind.TIME,
        "settled_by": Kind.TEXT,  # who accepted it
        "reason": Kind.TEXT,  # of its end
        "evidence": Kind.TEXT,  # JSON: what was looked at
    },
    indexes=("difference_id",),
)
TABLES = (DIFFERENCES,)
READS = (e.DifferenceFound, e.DifferenceCleared, e.AdjustmentBooked)

_SETTLED = """update differences set state = ?, settled_at = ?, settled_by = ?, reason = ?
    where difference_id = ? and state = 'OPEN'"""


def apply(event: e.DifferenceFound | e.DifferenceCleared | e.AdjustmentBooked, meta: Meta) -> Iterator[Statement]:
    when = at(event.occurred_at)
    match event:
        case e.DifferenceFound():
            yield DIFFERENCES.insert, _found(event, meta)
        case e.DifferenceCleared():
            yield _SETTLED, ("CLEARED", when, None, event.reason, event.difference_id)
        case e.AdjustmentBooked():
            yield _SETTLED, ("BOOKED", when, event.operator, event.reason, event.difference_id)


def _found(event: e.DifferenceFound, meta: Meta) -> tuple[str | int | None, ...]:
    return (
        meta.position,
        event.difference_id,
        event.kind,
        event.subject,
        event.ours,
        event.theirs,
        amount(event.quantity),
        amount(event.price),
        amount(event.amount),
        amount(worth_of(event.quantity, event.price, event.amount)),
        int(event.needs_acceptance),
        "OPEN",
        at(event.occurred_at),
        None,
        None,
        None,
        msgspec.json.encode(event.evidence).decode(),
    )
