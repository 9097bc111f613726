"""Who may trade, and what stands between us and the broker."""

from collections.abc import Callable
from typing import Any

from mqd_ledger import events as e
from mqd_ledger.state import State
from mqd_ledger.values import TradingState


def trading(to: TradingState) -> Callable[[State, Any], None]:
    def changed(state: State, event: e.ControlEvent) -> None:
        state.requests.add(event.request_id)
        if to is TradingState.HALTED and state.trading_state is not to:
            state.halted_from = state.trading_state
        state.trading_state, state.trading_state_reason, state.trading_state_by = to, event.reason, event.operator
        if to is TradingState.ACTIVE:
            state.kill_switch, state.kill_switch_completed = None, False

    return changed


def kill_switch_activated(state: State, event: e.KillSwitchActivated) -> None:
    state.requests.add(event.request_id)
    state.kill_switch, state.kill_switch_completed = event, False
    state.trading_state, state.trading_state_by = TradingState.HALTED, event.operator
    state.trading_state_reason = f"kill switch: {event.reason}"


def kill_switch_completed(state: State, _event: e.KillSwitchCompleted) -> None:
    state.kill_switch_completed = True


def close_requested(state: State, event: e.PositionCloseRequested) -> None:
    state.requests.add(event.request_id)


def account_attached(state: State, event: e.AccountAttached) -> None:
    state.account_number, state.environment = event.account_number, event.environment
    state.attached_at = event.occurred_at


def recovery_started(state: State, _event: e.RecoveryStarted) -> None:
    state.blocks["recovery"] = "the account has not been compared with the broker yet"


def recovery_step_taken(state: State, event: e.RecoveryStepTaken) -> None:
    if not event.passed:
        state.blocks["recovery"] = f"{event.name}: {event.detail}"
    elif event.is_last:
        state.taken_over = True
        state.blocks.pop("recovery", None)


def difference_found(state: State, event: e.DifferenceFound) -> None:
    state.differences_total += 1
    state.differences[event.difference_id] = event


def difference_cleared(state: State, event: e.DifferenceCleared) -> None:
    del state.differences[event.difference_id]


def broker_unreachable(state: State, event: e.BrokerUnreachable) -> None:
    state.blocks[event.what] = event.detail


def broker_reachable(state: State, event: e.BrokerReachable) -> None:
    state.blocks.pop(event.what, None)
