"""The broker as the truth: whose account this is, the steps of a recovery, differences and the adjustments that follow.

A difference is found, with its evidence, before anything is booked for it; what is booked is never an order. The same difference
found again changes nothing. What is accepted settles shares and cash at once: `amount` stands for what of the shares was not paid.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from commands.base import Command
from commands.books import enter, split
from mqd_ledger.errors import CommandRefused
from mqd_ledger.events import (
    AccountAttached,
    AdjustmentBooked,
    BrokerReachable,
    BrokerReportIgnored,
    BrokerUnreachable,
    DifferenceCleared,
    DifferenceFound,
    Event,
    RecoveryStarted,
    RecoveryStepTaken,
    TradingHalted,
    TradingReduced,
    TradingResumed,
)
from mqd_ledger.evolve.books import cash_moved_by, is_split, worth_of
from mqd_ledger.state import State
from mqd_ledger.values import CENT, ZERO, DifferenceKind, LotCause, Money, Price, Quantity, Symbol, TradingState

RECONCILIATION = "reconciliation"  # the operator's name where nobody was asked
RAW_MAX = 4000  # characters of an unusable report that are kept
CASH = "cash"  # the subject of a difference in money


_WHY_UNASKED: Mapping[DifferenceKind, str] = MappingProxyType(
    {
        DifferenceKind.OPENING: "the account held it before these books began",
        DifferenceKind.MISSED_FILL: "the report of the execution books it",
        DifferenceKind.MANUAL_TRADE: "the report of the execution books it",
        DifferenceKind.MANUAL_ORDER: "the order is followed from now on",
    }
)


class AttachAccount(Command, frozen=True, gc=False):
    broker: str
    environment: str
    account_number: str


class StartRecovery(Command, frozen=True, gc=False):
    pass


class TakeRecoveryStep(Command, frozen=True, gc=False):
    step: int
    name: str
    passed: bool
    is_last: bool
    detail: str


class ReportDifference(Command, frozen=True, gc=False):
    """Where the broker's account is not what the ledger says; the fields are those of `DifferenceFound`."""

    kind: DifferenceKind
    subject: Symbol
    ours: str
    theirs: str
    quantity: Quantity = ZERO
    price: Price = ZERO
    amount: Money = ZERO
    evidence: Mapping[str, str] = MappingProxyType({})


class ReportAgreement(Command, frozen=True, gc=False):
    """Broker and ledger agree (again) about a subject."""

    subject: str
    reason: str


class AcceptDifference(Command, frozen=True, gc=False):
    difference_id: str
    operator: str
    reason: str
    request_id: str = ""


class ReportUnreachable(Command, frozen=True, gc=False):
    what: str
    detail: str


class ReportReachable(Command, frozen=True, gc=False):
    what: str
    detail: str


class ReportUnusable(Command, frozen=True, gc=False):
    what: str
    raw: str
    reason: str


def attach_account(command: AttachAccount, state: State) -> list[Event]:
    attached = (state.environment, state.account_number)
    if attached == (command.environment, command.account_number):
        return []
    if state.account_number:
        raise CommandRefused(
            f"This ledger keeps the books of the {state.environment} account {state.account_number}, but the keys belong to "
            f"the {command.environment} account {command.account_number}. Use that account's keys, or another ledger."
        )
    return [AccountAttached(command.at, command.broker, command.environment, command.account_number)]


def start_recovery(command: StartRecovery, state: State) -> list[Event]:
    return [RecoveryStarted(command.at, _run(state))]


def take_recovery_step(command: TakeRecoveryStep, state: State) -> list[Event]:
    return [
        RecoveryStepTaken(
            command.at, _run(state), command.step, command.name, command.passed, command.is_last, command.detail
        )
    ]


def _run(state: State) -> int:
    if state.run is None or not state.run_is_open:
        raise CommandRefused("No run is open that could be recovered.")
    return state.run.run


def report_difference(command: ReportDifference, state: State) -> list[Event]:
    """The difference and, if it is small enough to be booked unasked, its adjustment; else trading is halted for it."""
    numbers = command.quantity, command.price, command.amount
    if not all(number.is_finite() for number in numbers) or command.price < 0:
        raise CommandRefused(
            "A difference is of numbers, at a price that is not below zero; found "
            f"{command.quantity} of {command.subject} at {command.price}, and {command.amount} of cash."
        )
    told = open_as_told(command, state)
    if told is not None and abs(cash_moved_by(*numbers) - cash_moved_in(told)) <= CENT:
        return []
    known = _open_about(command.subject, state)
    worth = worth_of(*numbers)
    is_opening = command.kind is DifferenceKind.OPENING
    needs_acceptance = not is_opening and worth > state.policy.unattended.difference_accepted_max
    found = DifferenceFound(
        command.at,
        f"D{state.differences_total + 1}",
        command.kind,
        command.subject,
        command.ours,
        command.theirs,
        command.quantity,
        command.price,
        command.amount,
        dict(command.evidence),
        needs_acceptance,
    )
    outdated: list[Event] = []
    if known is not None:
        outdated = [
            DifferenceCleared(command.at, known.difference_id, known.subject, f"{found.difference_id} takes its place")
        ]
    if not needs_acceptance:
        why = _WHY_UNASKED.get(command.kind, "under the threshold" if worth else "there is nothing to book")
        booked = _adjustment(found, command.at, RECONCILIATION, why, "", state)
        resumed = _resumed(command.at, RECONCILIATION, known, state) if known is not None else []
        return [found, *outdated, *booked, *resumed]
    if state.trading_state is TradingState.HALTED:
        return [found, *outdated]
    reason = f"{found.difference_id}: {command.subject} is {command.theirs} at the broker, {command.ours} in the ledger"
    return [found, *outdated, TradingHalted(command.at, RECONCILIATION, reason)]


def open_as_told(command: ReportDifference, state: State) -> DifferenceFound | None:
    """The open difference that says the same of its subject; what it would do to cash may be another thing by now."""
    known = _open_about(command.subject, state)
    return known if known is not None and (known.ours, known.theirs) == (command.ours, command.theirs) else None


def cash_moved_in(found: DifferenceFound) -> Money:
    """What cash changes by once it is accepted."""
    return cash_moved_by(found.quantity, found.price, found.amount)


def _open_about(subject: str, state: State) -> DifferenceFound | None:
    return next((found for found in state.differences.values() if found.subject == subject), None)


def _adjustment(
    found: DifferenceFound, at: datetime, operator: str, reason: str, request_id: str, state: State
) -> list[Event]:
    symbol = found.subject if found.quantity else ""
    booked = AdjustmentBooked(
        at, found.difference_id, symbol, found.quantity, found.price, found.amount, operator, reason, request_id
    )
    if not found.quantity:
        return [booked]
    entry = f"{state.ledger_id}-{found.difference_id}"
    if is_split(found.kind, state.positions.get(symbol, ZERO), found.quantity, found.price):
        lots = split(symbol, entry, found.quantity, at, state)
        if lots:
            return [booked, *lots]
    lots = enter(symbol, "", entry, found.quantity, found.price, at, state, cause=LotCause.ADJUSTMENT)
    return [booked, *lots]


def report_agreement(command: ReportAgreement, state: State) -> list[Event]:
    """An open difference has gone away by itself: a late fill arrived, or the broker mended its side."""
    known = _open_about(command.subject, state)
    if known is None:
        return []
    cleared = DifferenceCleared(command.at, known.difference_id, known.subject, command.reason)
    return [cleared, *_resumed(command.at, RECONCILIATION, known, state)]


def _resumed(at: datetime, operator: str, settled: DifferenceFound, state: State) -> list[Event]:
    """Trading goes on as it was where it was halted for differences and nothing else, and this was the last of them."""
    others = [found for found in state.differences.values() if found is not settled and found.needs_acceptance]
    was_for_them = state.trading_state is TradingState.HALTED and state.trading_state_by == RECONCILIATION
    if others or not was_for_them or state.kill_switch is not None:
        return []
    as_before = TradingReduced if state.halted_from is TradingState.REDUCING else TradingResumed
    return [as_before(at, operator, f"{settled.difference_id} is settled")]


def accept_difference(command: AcceptDifference, state: State) -> list[Event]:
    if command.request_id and command.request_id in state.requests:
        return []
    found = state.differences.get(command.difference_id)
    if found is None:
        known = ", ".join(state.differences) or "none"
        raise CommandRefused(f"There is no open difference {command.difference_id!r}; open are: {known}.")
    if not command.reason.strip():
        raise CommandRefused("Accepting a difference needs a reason, for whoever reads the log later.")
    booked = _adjustment(found, command.at, command.operator, command.reason, command.request_id, state)
    return [*booked, *_resumed(command.at, command.operator, found, state)]


def report_unreachable(command: ReportUnreachable, state: State) -> list[Event]:
    return [] if command.what in state.blocks else [BrokerUnreachable(command.at, command.what, command.detail)]


def report_reachable(command: ReportReachable, state: State) -> list[Event]:
    return [BrokerReachable(command.at, command.what, command.detail)] if command.what in state.blocks else []


def report_unusable(command: ReportUnusable, _state: State) -> list[Event]:
    return [BrokerReportIgnored(command.at, command.what, command.raw[:RAW_MAX], command.reason)]


DECIDERS: Mapping[type[Command], Callable[[Any, State], list[Event]]] = {
    AttachAccount: attach_account,
    StartRecovery: start_recovery,
    TakeRecoveryStep: take_recovery_step,
    ReportDifference: report_difference,
    ReportAgreement: report_agreement,
    AcceptDifference: accept_difference,
    ReportUnreachable: report_unreachable,
    ReportReachable: report_reachable,
    ReportUnusable: report_unusable,
}
READ_BACK: Mapping[type[Event], Callable[[Any, datetime], Command]] = {
    AccountAttached: lambda event, _: AttachAccount(
        event.occurred_at, event.broker, event.environment, event.account_number
    ),
    RecoveryStarted: lambda event, _: StartRecovery(event.occurred_at),
    RecoveryStepTaken: lambda event, _: TakeRecoveryStep(
        event.occurred_at, event.step, event.name, event.passed, event.is_last, event.detail
    ),
    DifferenceFound: lambda event, _: ReportDifference(
        event.occurred_at,
        event.kind,
        event.subject,
        event.ours,
        event.theirs,
        event.quantity,
        event.price,
        event.amount,
        event.evidence,
    ),
    AdjustmentBooked: lambda event, _: AcceptDifference(
        event.occurred_at, event.difference_id, event.operator, event.reason, event.request_id
    ),
    DifferenceCleared: lambda event, _: ReportAgreement(event.occurred_at, event.subject, event.reason),
    BrokerUnreachable: lambda event, _: ReportUnreachable(event.occurred_at, event.what, event.detail),
    BrokerReachable: lambda event, _: ReportReachable(event.occurred_at, event.what, event.detail),
    BrokerReportIgnored: lambda event, _: ReportUnusable(event.occurred_at, event.what, event.raw, event.reason),
}
