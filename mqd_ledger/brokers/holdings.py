"""Shares and cash of the broker's account against those of the ledger: what is left over once orders and executions are booked.

A broker's word for money that moves without a trade is a row of `TRANSFERS`, `INCOME` or `FEES`; one for shares that change in
number is a row of `CORPORATE`. What has no row is found as a difference in cash or shares, with the rows as evidence.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType

from msgspec import structs

from commands import Command
from commands.cash import FEE_KINDS, ReportCash, ReportFee
from commands.truth import CASH, ReportAgreement, ReportDifference, cash_moved_in, open_as_told
from mqd_ledger.brokers.base import BrokerBooks, BrokerMovement, BrokerPosition
from mqd_ledger.brokers.suspicions import Suspicions
from mqd_ledger.evolve.books import cash_moved_by
from mqd_ledger.state import State
from mqd_ledger.values import CENT, QUANTITY_STEP, ZERO, DifferenceKind, Money, Price, Quantity, Symbol, iso, plain

SHARES = "shares"  # what a suspicion is about, beside CASH
TRANSFERS = frozenset({"CSD", "CSW", "JNLC", "TRANS", "ACATC"})  # money put in or taken out, by its sign
INCOME: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("DIV", "DIVCGL", "DIVCGS", "DIVFT", "DIVNRA", "DIVROC", "DIVTXEX", "DIVWH", "CDIV", "SDIV"), "DIVIDEND"
        ),
        **dict.fromkeys(("INT", "INTNRA", "INTTW"), "INTEREST"),
    }
)
FEES = frozenset({"FEE", "CFEE", "DIVFEE", "PTC"})
CORPORATE = frozenset({"SPLIT", "SSP", "SSO", "SPIN", "REORG", "MA", "NC", "SC"})
SPIN_OFFS = frozenset({"SSO", "SPIN"})  # shares of another company, out of the worth of those that are held
# New shares for one old one, as companies split; the other way round where they are put together.
RATIOS = frozenset(Decimal(new) / old for new, old in ((3, 2), (4, 3), (5, 4), (5, 2)))
RATIO_MAX = 100
SAME_WORTH = Decimal("0.01")  # of the cost: so close the two sides of a split are
NEAR = Decimal("0.2")  # of a price that is known: so far from it shares may have been traded while nobody listened
DATED = timedelta(
    hours=36
)  # a movement often has a date and no time: around the first day it may be older than the books


def is_opening(state: State) -> bool:
    """Whether the account has still to be taken over: no recovery of this ledger has ever passed, so nothing was traded."""
    return not state.taken_over


# --- shares -----------------------------------------------------------------------------------------------------------


def shares(
    state: State, books: BrokerBooks, at: datetime, suspicions: Suspicions, doubted: frozenset[Symbol]
) -> Iterator[Command]:
    """Symbol by symbol. One in which an order has no answer yet is not judged."""
    theirs = {position.symbol: position for position in books.positions if position.quantity}
    open_about = {found.subject for found in state.differences.values()}
    gaps, lasting = 0, []
    for symbol in sorted({*theirs, *state.positions, *_symbols(state)} - doubted):
        position = theirs.get(symbol)
        quantity = position.quantity if position is not None else ZERO
        gap = quantity - state.positions.get(symbol, ZERO)
        if not gap:
            if symbol in open_about:
                yield ReportAgreement(at, symbol, f"both have {plain(quantity)}")
            continue
        gaps += 1
        if suspicions.lasts(SHARES, symbol, (gap, _executions(symbol, state))):
            lasting.append(_difference(symbol, position, gap, state, books, at, suspicions.since(SHARES, symbol)))
    if not gaps:
        return
    gap = books.account.cash - state.cash
    is_judged = not is_opening(state) and not doubted and suspicions.lasts(CASH, CASH, (gap, state.fills_total))
    if is_judged and gaps == len(lasting):
        yield from _with_cash(lasting, gap, theirs, state)
    else:  # as if they were paid for; once it is clear what has moved in cash, they are found again if they were not
        yield from [report for report in lasting if open_as_told(report, state) is None]


def _with_cash(
    lasting: list[ReportDifference], gap: Money, theirs: Mapping[Symbol, BrokerPosition], state: State
) -> Iterator[ReportDifference]:
    """Those that were not found yet, each with its part of what differs in cash: once all are accepted, nothing differs.

    Whether they were paid for or only moved is taken from what leaves less of the cash unexplained; the last takes that rest.
    Where cash has moved since all of them were found, one is found again.
    """
    new = [report for report in lasting if open_as_told(report, state) is None]
    named = {report.subject for report in new}
    rest = gap - sum((cash_moved_in(found) for found in state.differences.values() if found.subject not in named), ZERO)
    if abs(rest) <= CENT:
        rest = ZERO
    elif not new and (told := open_as_told(lasting[-1], state)) is not None:
        new, rest = lasting[-1:], rest + cash_moved_in(told)
    moved = {
        report.subject: cash_moved_by(report.quantity, report.price, ZERO)
        for report in new
        if report.kind is not DifferenceKind.CORPORATE_ACTION
    }
    if abs(rest - sum(moved.values())) >= abs(rest):
        moved = dict.fromkeys(moved, ZERO)
    if moved:
        moved[next(reversed(moved))] += rest - sum(moved.values())
    for report in new:
        if report.subject in moved:
            today = _price_today(report.subject, theirs.get(report.subject), state)
            yield _booked_at(report, moved[report.subject], today)
        else:
            yield report


def _booked_at(report: ReportDifference, moved: Money, today: Price) -> ReportDifference:
    """At the price that the cash says was paid, where that can be one; else at today's, with what that is wrong by beside it."""
    paid = (-moved / report.quantity).quantize(QUANTITY_STEP)
    is_near = any(abs(paid - known) <= NEAR * known for known in (report.price, today))
    is_paid = paid > 0 and (is_near or not today)
    price = paid if is_paid else today
    amount = moved - cash_moved_by(report.quantity, price, ZERO)
    if is_paid and abs(amount) <= CENT:
        amount = ZERO  # only the price's last digit
    return structs.replace(report, price=price, amount=amount, evidence={**report.evidence, "cash_moved": plain(moved)})


def _symbols(state: State) -> set[Symbol]:
    """Those that an open difference is about."""
    return {found.subject for found in state.differences.values() if found.quantity}


def _executions(symbol: Symbol, state: State) -> int:
    return sum(order.executions for order in state.orders.values() if order.symbol == symbol)


def _difference(
    symbol: Symbol,
    position: BrokerPosition | None,
    gap: Quantity,
    state: State,
    books: BrokerBooks,
    at: datetime,
    since: datetime,
) -> ReportDifference:
    held = state.positions.get(symbol, ZERO)
    action = _corporate_action(symbol, position, held, state, books)
    if is_opening(state):
        kind = DifferenceKind.OPENING
    elif action:
        kind = DifferenceKind.CORPORATE_ACTION
    else:
        kind = DifferenceKind.UNKNOWN
    evidence = {
        "asked_at": iso(books.asked_at),
        "seen_since": iso(since),
        "last_execution_at": iso(state.last_execution_at),
        "account": books.account.account_number,
        "their_cash": plain(books.account.cash),
        "our_cash": plain(state.cash),
    }
    if position is not None:
        evidence["average_price"] = plain(position.average_price)
        evidence["current_price"] = "" if position.current_price is None else plain(position.current_price)
    if action:
        evidence["corporate_action"] = action
    theirs = plain(position.quantity) if position is not None else "0"
    price = _price(kind, symbol, position, held, state)
    return ReportDifference(at, kind, symbol, plain(held), theirs, gap, price, evidence=evidence)


def _price(
    kind: DifferenceKind, symbol: Symbol, position: BrokerPosition | None, held: Quantity, state: State
) -> Price:
    """What was bought is booked at what it cost; what is gone, at what it would have brought.

    What the account held before counts at today's price: what it had earned by then is no profit of these books, and what it had
    lost no loss that their limits should act on.
    """
    if kind is DifferenceKind.CORPORATE_ACTION:
        return ZERO
    today = _price_today(symbol, position, state)
    if position is None or kind is DifferenceKind.OPENING:
        return today
    is_more = abs(position.quantity) > abs(held) and position.quantity * held >= 0
    return (position.average_price.quantize(QUANTITY_STEP) if is_more else ZERO) or today


def _price_today(symbol: Symbol, position: BrokerPosition | None, state: State) -> Price:
    """Zero where nobody knows any."""
    known = state.marks.get(symbol)
    price = known.price if known is not None else ZERO
    if position is not None:
        price = position.current_price or price or position.average_price
    return price.quantize(QUANTITY_STEP)


def _corporate_action(
    symbol: Symbol, position: BrokerPosition | None, held: Quantity, state: State, books: BrokerBooks
) -> str:
    """How the number of shares has changed without a trade; empty where it was not so.

    Shares that take the place of others come as those go, at today's price: for nothing, they would be a profit.
    """
    if position is None or position.quantity * held < 0:
        return ""
    kinds = CORPORATE if held else SPIN_OFFS
    rows = [row for row in books.movements if row.symbol == symbol and row.kind in kinds]
    if rows:
        return f"{rows[-1].kind} {rows[-1].detail or rows[-1].movement_id}"
    if not held:
        return ""
    ratio = position.quantity / held
    cost = sum((lot.cost_basis for lot in state.lots[symbol]), ZERO)
    is_same_worth = abs(position.quantity * position.average_price - cost) <= SAME_WORTH * abs(cost)
    return f"{plain(ratio.quantize(CENT))} for 1 at the same cost" if is_same_worth and _is_usual(ratio) else ""


def _is_usual(ratio: Decimal) -> bool:
    upward = ratio if ratio > 1 else 1 / ratio
    return upward in RATIOS or (upward <= RATIO_MAX and upward == upward.to_integral_value())


# --- cash -------------------------------------------------------------------------------------------------------------


def movements(state: State, books: BrokerBooks, at: datetime) -> Iterator[Command]:
    """What the broker says that moved. Nothing before the account has been taken over: its cash has all of it in it."""
    if is_opening(state):
        return
    for row in sorted(books.movements, key=lambda row: (row.occurred_at, row.movement_id)):
        if row.amount and row.occurred_at > state.attached_at and (report := _movement(row, at)) is not None:
            yield report


def _dated(gap: Money, state: State, books: BrokerBooks, at: datetime) -> Command | None:
    """A movement of the day on which the books were opened, before that or after it: the account's cash says which."""
    for row in books.movements:
        is_of_the_day = timedelta(0) <= state.attached_at - row.occurred_at <= DATED
        is_booked = row.movement_id in state.movements or row.movement_id in state.charges
        is_lacking = gap * row.amount > 0 and abs(row.amount) <= abs(gap) + CENT
        if is_of_the_day and not is_booked and is_lacking and (report := _movement(row, at)) is not None:
            return report
    return None


def _movement(row: BrokerMovement, at: datetime) -> Command | None:
    reason = f"{row.kind} {row.symbol} {row.detail}".strip()
    if row.kind in FEES:
        words = row.detail.upper().split()
        kind = next((kind for kind in FEE_KINDS if kind in words or (kind == "SEC" and "REG" in words)), "OTHER")
        return ReportFee(at, row.movement_id, kind, -row.amount, reason)
    if row.kind in TRANSFERS:
        return ReportCash(at, row.movement_id, "DEPOSIT" if row.amount > 0 else "WITHDRAWAL", row.amount, reason)
    if row.kind in INCOME:
        return ReportCash(at, row.movement_id, INCOME[row.kind], row.amount, reason)
    return None


def cash(state: State, books: BrokerBooks, at: datetime, suspicions: Suspicions) -> Iterator[Command]:
    """Judged only while all shares agree: those that do not have their price in cash."""
    theirs = {position.symbol: position.quantity for position in books.positions if position.quantity}
    if theirs != state.positions:
        return
    gap = books.account.cash - state.cash
    if abs(gap) <= CENT:
        if any(found.subject == CASH for found in state.differences.values()):
            yield ReportAgreement(at, CASH, f"both have {plain(books.account.cash)}")
        return
    if not suspicions.lasts(CASH, CASH, (gap, state.fills_total)):
        return
    dated = None if is_opening(state) else _dated(gap, state, books, at)
    if dated is not None:
        yield dated
        return
    report = ReportDifference(
        at,
        DifferenceKind.OPENING if is_opening(state) else DifferenceKind.CASH,
        CASH,
        plain(state.cash),
        plain(books.account.cash),
        amount=gap,
        evidence=_cash_evidence(state, books, suspicions.since(CASH, CASH), gap),
    )
    if open_as_told(report, state) is None:
        yield report


def _cash_evidence(state: State, books: BrokerBooks, since: datetime, gap: Money) -> dict[str, str]:
    evidence = {
        "asked_at": iso(books.asked_at),
        "seen_since": iso(since),
        "last_execution_at": iso(state.last_execution_at),
        "account": books.account.account_number,
        "their_equity": plain(books.account.equity),
        "our_equity": plain(state.equity),
        "gap": plain(gap),
    }
    unread = [row for row in books.movements if row.amount and _movement(row, books.asked_at) is None]
    for number, row in enumerate(unread, 1):
        evidence[f"movement_{number}"] = f"{row.kind} {row.movement_id}: {plain(row.amount)} {row.detail}".strip()
    return evidence
