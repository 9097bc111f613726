"""Money that moves without a trade: deposits, withdrawals, income and fees that come apart from an execution."""

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from commands.base import Command
from mqd_ledger.errors import CommandRefused
from mqd_ledger.events import CashMoved, Event, FeeCharged
from mqd_ledger.state import State
from mqd_ledger.values import Money

# Kind -> the sign that its amounts have; zero: either, for who is short pays dividends, and who borrowed pays interest.
CASH_KINDS: Mapping[str, int] = MappingProxyType({"DEPOSIT": 1, "WITHDRAWAL": -1, "DIVIDEND": 0, "INTEREST": 0})
FEE_KINDS = ("SEC", "TAF", "CAT", "OTHER")


class ReportCash(Command, frozen=True, gc=False):
    """`amount` is positive for a deposit and negative for a withdrawal, and either for income. One movement_id counts once."""

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
    sign = CASH_KINDS[command.kind]
    if not command.amount or sign * command.amount < 0:
        raise CommandRefused(
            f"A deposit is above zero, a withdrawal below, and income either; found {command.kind} of {command.amount}."
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
