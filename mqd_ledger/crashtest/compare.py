"""The ledger against the broker, when all is quiet: every line of the verdict is a sentence that must be true."""

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from mqd_ledger import events as e
from mqd_ledger.chain import check
from mqd_ledger.envelope import stored_names
from mqd_ledger.errors import LedgerError
from mqd_ledger.log import LogReader
from mqd_ledger.state import State
from mqd_ledger.values import plain

SHOWN = 3  # differences of one kind that are named


class Verdict(NamedTuple):
    sentence: str
    holds: bool
    detail: str


def compare(log: LogReader, state: State, account: Mapping[str, Any]) -> list[Verdict]:
    """`account` is the broker's own record of itself, from the loopback server's /loopback/state."""
    known, ours = _told(log)
    orders = [str(order["client_order_id"]) for order in account["orders"]]
    theirs = Counter[tuple[str, str, str]]()
    for order in account["orders"]:
        for fill in order["fills"]:
            theirs[str(order["client_order_id"]), _plain(fill["qty"]), _plain(fill["price"])] += 1
    return [
        _same("positions are the broker's", _positions(state), _broker_positions(account)),
        _same("cash is the broker's", {"cash": plain(state.cash)}, {"cash": _plain(account["cash"])}),
        _none("no fill was lost", [" ".join(fill) for fill in (theirs - ours).elements()], f"{theirs.total()} fills"),
        _none(
            "no fill was booked twice, or made up",
            [" ".join(fill) for fill in (ours - theirs).elements()],
            f"{ours.total()} fills",
        ),
        _none(
            "no order is at the broker twice, or unknown here",
            [order for order, count in Counter(orders).items() if count > 1 or order not in known],
            f"{len(orders)} orders at the broker, {len(known)} sent from here",
        ),
        _none("no order still works here that does not at the broker", _working(state, account), "none works"),
        _chain(log),
    ]


def _told(log: LogReader) -> tuple[set[str], Counter[tuple[str, str, str]]]:
    """The orders that the ledger knows of, and the executions that stand in the end."""
    known: set[str] = set()
    standing: dict[str, tuple[str, str, str]] = {}
    wanted = stored_names(
        e.OrderSent, e.OrderAdopted, e.OrderReplaced, e.OrderFilled, e.ExecutionBusted, e.ExecutionCorrected
    )
    for recorded in log.replay(types=wanted):
        match recorded.event:
            case e.OrderSent() | e.OrderAdopted():
                known.add(recorded.event.client_order_id)
            case e.OrderReplaced(replacement_id=replacement):
                known.add(replacement)
            case e.OrderFilled() as fill:
                standing[fill.execution_id] = _fill(fill.client_order_id, fill.last_quantity, fill.last_price)
            case e.ExecutionBusted() as bust:
                standing.pop(bust.execution_id, None)
            case e.ExecutionCorrected() as new:
                standing.pop(new.previous_execution_id, None)
                standing[new.execution_id] = _fill(new.client_order_id, new.last_quantity, new.last_price)
            case _:
                pass
    return known, Counter(standing.values())


def _fill(order: str, quantity: Decimal, price: Decimal) -> tuple[str, str, str]:
    return order, plain(quantity), plain(price)


def _positions(state: State) -> dict[str, str]:
    return {symbol: plain(quantity) for symbol, quantity in sorted(state.positions.items())}


def _broker_positions(account: Mapping[str, Any]) -> dict[str, str]:
    return {symbol: _plain(one["qty"]) for symbol, one in sorted(account["positions"].items())}


def _working(state: State, account: Mapping[str, Any]) -> list[str]:
    over = {
        order["client_order_id"]
        for order in account["orders"]
        if order["status"] in ("filled", "canceled", "expired", "rejected")
    }
    return [order for orders in state.working.values() for order in orders if order in over]


def _plain(text: object) -> str:
    return plain(Decimal(str(text)))


def _same(sentence: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> Verdict:
    if ours == theirs:
        return Verdict(sentence, True, ", ".join(f"{name} {value}" for name, value in ours.items()) or "none")  # noqa: FBT003
    return Verdict(sentence, False, f"ledger {dict(ours)}, broker {dict(theirs)}")  # noqa: FBT003


def _none(sentence: str, wrong: Sequence[str], otherwise: str) -> Verdict:
    if not wrong:
        return Verdict(sentence, True, otherwise)  # noqa: FBT003
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return Verdict(sentence, False, f"{len(wrong)}: {', '.join(wrong[:SHOWN])}{more}")  # noqa: FBT003


def _chain(log: LogReader) -> Verdict:
    try:
        head = check(log.rows())
    except LedgerError as broken:
        return Verdict("the chain is whole", False, str(broken))  # noqa: FBT003
    return Verdict("the chain is whole", True, f"{head.position:,} events, {head.hash.hex()[:16]}…")  # noqa: FBT003
