"""The life of the ledger and its runs, and who may trade: create, start, end, halt, reduce, resume, stop a strategy."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from commands.base import Command
from commands.truth import RECONCILIATION
from mqd_ledger.errors import CommandRefused
from mqd_ledger.events import (
    CancelRequested,
    ControlEvent,
    Event,
    KillSwitchActivated,
    KillSwitchCompleted,
    LedgerCreated,
    RunEnded,
    RunStarted,
    Source,
    StrategySpec,
    StrategyStopped,
    TradingHalted,
    TradingReduced,
    TradingResumed,
)
from mqd_ledger.policy import Policy
from mqd_ledger.risk import CHECK_NAMES
from mqd_ledger.state import State
from mqd_ledger.values import TradingState


class CreateLedger(Command, frozen=True, gc=False):
    ledger_id: str
    currency: str = "USD"


class StartRun(Command, frozen=True, gc=False):
    mode: str
    code_version: str
    source: Source
    strategies: tuple[StrategySpec, ...]
    policy: Policy
    checks: tuple[str, ...] = CHECK_NAMES


class EndRun(Command, frozen=True, gc=False):
    reason: str


class ControlTrading(Command, frozen=True, gc=False):
    operator: str
    reason: str
    request_id: str = ""  # the same request heard again, even after others, is not done again


class HaltTrading(ControlTrading, frozen=True, gc=False):
    pass


class ReduceTrading(ControlTrading, frozen=True, gc=False):
    pass


class ResumeTrading(ControlTrading, frozen=True, gc=False):
    pass


class ActivateKillSwitch(ControlTrading, frozen=True, gc=False):
    pass


class CompleteKillSwitch(Command, frozen=True, gc=False):
    """`detail` says what was seen at the broker."""

    detail: str


class StopStrategy(Command, frozen=True, gc=False):
    strategy: str
    error: str


def create_ledger(command: CreateLedger, state: State) -> list[Event]:
    if state.ledger_id:
        raise CommandRefused(f"This ledger exists already: it is {state.ledger_id!r}.")
    if not command.ledger_id.replace("-", "").isalnum() or not command.ledger_id.isascii():
        raise CommandRefused(
            f"A ledger id is made of letters, digits and hyphens, because every order's id begins with it; "
            f"found {command.ledger_id!r}."
        )
    return [LedgerCreated(command.at, command.ledger_id, command.currency)]


def start_run(command: StartRun, state: State) -> list[Event]:
    if state.run_is_open:
        raise CommandRefused("A run is open already; it has to end before another starts.")
    run = state.run.run + 1 if state.run else 1
    return [
        RunStarted(
            command.at,
            run,
            command.mode,
            command.code_version,
            command.source,
            command.strategies,
            command.policy,
            command.checks,
        )
    ]


def end_run(command: EndRun, state: State) -> list[Event]:
    if state.run is None or not state.run_is_open:
        raise CommandRefused("No run is open.")
    return [RunEnded(command.at, state.run.run, command.reason)]


_CONTROL: Mapping[type[ControlTrading], tuple[TradingState, type[ControlEvent]]] = {
    HaltTrading: (TradingState.HALTED, TradingHalted),
    ReduceTrading: (TradingState.REDUCING, TradingReduced),
    ResumeTrading: (TradingState.ACTIVE, TradingResumed),
}


def check_reason(reason: str) -> None:
    if not reason.strip():
        raise CommandRefused("A change of the trading state needs a reason, for whoever reads the log later.")


def control_trading(command: ControlTrading, state: State) -> list[Event]:
    to, event = _CONTROL[type(command)]
    check_reason(command.reason)
    if command.request_id and command.request_id in state.requests:
        return []
    # A halt for differences ends with them; that of an operator has to last, so it takes its place.
    is_taken_over = to is TradingState.HALTED and state.trading_state_by == RECONCILIATION
    if state.trading_state is to and not (is_taken_over and command.operator != RECONCILIATION):
        return []
    if to is TradingState.ACTIVE and is_killing(state):
        raise CommandRefused(
            "The kill switch is still at work: not every position and order is gone at the broker yet. Trading can be "
            "resumed once `mqd-ledger status` says that it has completed."
        )
    if to is TradingState.ACTIVE and state.differences:
        raise CommandRefused(
            f"The books differ from the broker's account: {', '.join(state.differences)}. Look at them with "
            "`mqd-ledger reconcile` and accept each with `mqd-ledger reconcile --accept ID --reason TEXT`."
        )
    if state.trading_state is TradingState.HALTED and to is TradingState.REDUCING:
        raise CommandRefused(
            "Trading is halted, which is stricter than reducing; only a resume with a reason lifts a halt."
        )
    return [event(command.at, command.operator, command.reason, command.request_id)]


def activate_kill_switch(command: ActivateKillSwitch, state: State) -> list[Event]:
    """First the record; then every working order is asked back. What follows needs the broker's answers."""
    check_reason(command.reason)
    if (command.request_id and command.request_id in state.requests) or is_killing(state):
        return []
    activated = KillSwitchActivated(command.at, command.operator, command.reason, command.request_id)
    cancels = [
        CancelRequested(command.at, order.client_order_id, f"kill switch: {command.reason}")
        for orders in state.working.values()
        for order in orders.values()
        if not order.cancel_requested
    ]
    return [activated, *cancels]


def is_killing(state: State) -> bool:
    """Whether the kill switch was activated and the broker has not yet shown an empty account."""
    return state.kill_switch is not None and not state.kill_switch_completed


def complete_kill_switch(command: CompleteKillSwitch, state: State) -> list[Event]:
    if not is_killing(state):
        return []
    if state.positions or state.working:
        left = ", ".join([*state.positions, *(f"an order of {symbol}" for symbol in state.working)])
        raise CommandRefused(f"The kill switch is not done: the ledger still has {left}.")
    return [KillSwitchCompleted(command.at, command.detail)]


def stop_strategy(command: StopStrategy, state: State) -> list[Event]:
    """The strategy is heard no more and its working orders are taken back; its position stays for the operator to decide."""
    if command.strategy in state.stopped_strategies:
        return []
    cancels = [
        CancelRequested(command.at, order.client_order_id, f"strategy {command.strategy} was stopped")
        for orders in state.working.values()
        for order in orders.values()
        if order.strategy == command.strategy and not order.cancel_requested
    ]
    return [StrategyStopped(command.at, command.strategy, command.error), *cancels]


DECIDERS: Mapping[type[Command], Callable[[Any, State], list[Event]]] = {
    CreateLedger: create_ledger,
    StartRun: start_run,
    EndRun: end_run,
    HaltTrading: control_trading,
    ReduceTrading: control_trading,
    ResumeTrading: control_trading,
    ActivateKillSwitch: activate_kill_switch,
    CompleteKillSwitch: complete_kill_switch,
    StopStrategy: stop_strategy,
}
READ_BACK: Mapping[type[Event], Callable[[Any, datetime], Command]] = {
    LedgerCreated: lambda event, _: CreateLedger(event.occurred_at, event.ledger_id, event.currency),
    RunStarted: lambda event, _: StartRun(
        event.occurred_at,
        event.mode,
        event.code_version,
        event.source,
        event.strategies,
        event.policy,
        event.checks,
    ),
    RunEnded: lambda event, _: EndRun(event.occurred_at, event.reason),
    TradingHalted: lambda event, _: HaltTrading(event.occurred_at, event.operator, event.reason, event.request_id),
    TradingReduced: lambda event, _: ReduceTrading(event.occurred_at, event.operator, event.reason, event.request_id),
    TradingResumed: lambda event, _: ResumeTrading(event.occurred_at, event.operator, event.reason, event.request_id),
    KillSwitchActivated: lambda event, _: ActivateKillSwitch(
        event.occurred_at, event.operator, event.reason, event.request_id
    ),
    KillSwitchCompleted: lambda event, _: CompleteKillSwitch(event.occurred_at, event.detail),
    StrategyStopped: lambda event, _: StopStrategy(event.occurred_at, event.strategy, event.error),
}
