"""What did the risk gate say to each order, and why? One row per decision, with every check as JSON."""

from collections.abc import Iterator

import msgspec

from mqd_ledger import events as e
from projections.shape import Kind, Meta, Statement, Table, at

NAME = "risk_decisions"
VERSION = 1

DECISIONS = Table(
    "risk_decisions",
    key=("position",),
    columns={
        "position": Kind.INTEGER,  # in the log
        "client_order_id": Kind.TEXT,
        "decided_at": Kind.TIME,
        "verdict": Kind.TEXT,  # APPROVED, DENIED
        "reasons": Kind.TEXT,  # a sentence per failed check
        "failed_checks": Kind.TEXT,  # their names
        "checks_count": Kind.INTEGER,
        "checks": Kind.TEXT,  # JSON: name, passed, allowed, inputs
    },
)
TABLES = (DECISIONS,)
READS = (e.OrderApproved, e.OrderDenied)


def apply(event: e.OrderApproved | e.OrderDenied, meta: Meta) -> Iterator[Statement]:
    denied = isinstance(event, e.OrderDenied)
    yield (
        DECISIONS.insert,
        (
            meta.position,
            event.client_order_id,
            at(event.occurred_at),
            "DENIED" if denied else "APPROVED",
            " ".join(event.reasons) if isinstance(event, e.OrderDenied) else "",
            ", ".join(check.name for check in event.checks if not check.passed),
            len(event.checks),
            msgspec.json.encode(event.checks).decode(),
        ),
    )
