"""Money that moves without a trade: deposits, withdrawals and fees that come apart from an execution."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from commands.base import Command
from mqd_ledger.errors import CommandRefused
from mqd_ledger.events import CashMoved, Event, FeeCharged
from mqd_ledger.state import State
from mqd_ledger.values import Money

CASH_KINDS = ("DEPOSIT", "WITHDRAWAL")
FEE_KINDS = ("SEC", "TAF", "CAT", "OTHER")


class ReportCash(Command, frozen=True, gc=False):
    """`amount` is positive for a deposit and negative for a withdrawal. One movement_id counts once."""

    movement_id: str
    kind: str
    amount: Money
    reason: str


class ReportFee(Command, frozen=True, gc=False):
    """`amount` is positive where we pay. One fee_id counts once."""

    fee_id: str
    kind: str
    amount: Money
    reason: str


def report_cash(command: ReportCash, state: State) -> list[Event]:
    if command.kind not in CASH_KINDS or not command.amount.is_finite():
        raise CommandRefused(f"Cash moves as {' or '.join(CASH_KINDS)}; found {command.kind} of {command.amount}.")
    if (command.amount > 0) != (command.kind == "DEPOSIT") or not command.amount:
        raise CommandRefused(
            f"A deposit is above zero and a withdrawal below; found {command.kind} of {command.amount}."
        )
    if command.movement_id in state.movements:
        return []
    return [CashMoved(command.at, command.movement_id, command.kind, command.amount, command.reason)]


def report_fee(command: ReportFee, state: State) -> list[Event]:
    if command.kind not in FEE_KINDS or not command.amount.is_finite():
        raise CommandRefused(f"A fee is one of {', '.join(FEE_KINDS)}; found {command.kind} of {command.amount}.")
    if command.fee_id in state.charges:
        return []
    return [FeeCharged(command.at, command.fee_id, command.kind, command.amount, command.reason)]


DECIDERS: Mapping[type[Command], Callable[[Any, State], list[Event]]] = {
    ReportCash: report_cash,
    ReportFee: report_fee,
}
READ_BACK: Mapping[type[Event], Callable[[Any, datetime], Command]] = {
    CashMoved: lambda event, _: ReportCash(
        event.occurred_at, event.movement_id, event.kind, event.amount, event.reason
    ),
    FeeCharged: lambda event, _: ReportFee(event.occurred_at, event.fee_id, event.kind, event.amount, event.reason),
}
