"""One order's life: every state with every trigger, and every surprise of the market told through the command that brings it."""

import pytest

from commands.base import Command
from commands.broker_reports import (
    ReportCanceled,
    ReportExpired,
    ReportRejected,
    ReportReplaced,
    ReportSubmitted,
    ReportUnknownOrder,
    ReportUnknownStatus,
)
from commands.executions import ReportBust, ReportCorrection, ReportFill
from mqd_ledger import events as e
from mqd_ledger.errors import IllegalTransition
from mqd_ledger.orders import TERMINAL, TRANSITIONS, Trigger, mermaid, transition
from mqd_ledger.state import State
from mqd_ledger.values import Anomaly, LotCause, OrderState, TimeInForce
from tests.dsl import BUY, OPENING, D, Given, given, kinds, sent, working, world

S, T = OrderState, Trigger

# The promise, written a second time by hand: from each state, what each trigger leads to ("!" where the operator is told).
LIFE = {
    S.PENDING: {
        T.DENIED: "REJECTED", T.SUBMITTED: "SUBMITTED", T.REJECTED: "REJECTED", T.PARTIAL_FILL: "PARTIALLY_FILLED!",
        T.FULL_FILL: "FILLED!", T.CANCELED: "CANCELED", T.EXPIRED: "EXPIRED", T.REPLACED: "CANCELED",
    },
    S.SUBMITTED: {
        T.REJECTED: "REJECTED", T.PARTIAL_FILL: "PARTIALLY_FILLED", T.FULL_FILL: "FILLED", T.CANCELED: "CANCELED",
        T.EXPIRED: "EXPIRED", T.REPLACED: "CANCELED",
    },
    S.PARTIALLY_FILLED: {
        T.SUBMITTED: "PARTIALLY_FILLED", T.REJECTED: "REJECTED!", T.PARTIAL_FILL: "PARTIALLY_FILLED",
        T.FULL_FILL: "FILLED", T.CANCELED: "CANCELED", T.EXPIRED: "EXPIRED", T.BUSTED: "PARTIALLY_FILLED!",
        T.CORRECTED: "PARTIALLY_FILLED!", T.REPLACED: "CANCELED",
    },
    S.FILLED: {
        T.SUBMITTED: "FILLED", T.REJECTED: "FILLED!", T.PARTIAL_FILL: "FILLED", T.FULL_FILL: "FILLED!",
        T.CANCELED: "FILLED!", T.EXPIRED: "FILLED!", T.BUSTED: "FILLED!", T.CORRECTED: "FILLED!",
        T.REPLACED: "FILLED!",
    },
    S.CANCELED: {
        T.SUBMITTED: "CANCELED", T.REJECTED: "CANCELED!", T.PARTIAL_FILL: "CANCELED!", T.FULL_FILL: "CANCELED!",
        T.EXPIRED: "CANCELED", T.BUSTED: "CANCELED!", T.CORRECTED: "CANCELED!", T.REPLACED: "CANCELED",
    },
    S.EXPIRED: {
        T.SUBMITTED: "EXPIRED", T.REJECTED: "EXPIRED!", T.PARTIAL_FILL: "EXPIRED!", T.FULL_FILL: "EXPIRED!",
        T.CANCELED: "EXPIRED", T.BUSTED: "EXPIRED!", T.CORRECTED: "EXPIRED!", T.REPLACED: "EXPIRED",
    },
    S.REJECTED: {
        T.SUBMITTED: "REJECTED!", T.PARTIAL_FILL: "REJECTED!", T.FULL_FILL: "REJECTED!", T.CANCELED: "REJECTED",
        T.EXPIRED: "REJECTED", T.BUSTED: "REJECTED!", T.CORRECTED: "REJECTED!", T.REPLACED: "REJECTED",
    },
}  # fmt: skip


@pytest.mark.parametrize("state", list(S))
@pytest.mark.parametrize("trigger", list(T))
def test_every_state_and_trigger_behaves_as_listed_and_all_others_stop_the_program(
    state: OrderState, trigger: Trigger
) -> None:
    promised = LIFE[state].get(trigger)
    if promised is None:
        with pytest.raises(
            IllegalTransition, match=f"in state {state} cannot be {trigger}. From {state} an order can be"
        ):
            transition(state, trigger)
        return
    row = transition(state, trigger)
    assert (row.to, row.anomaly is not None) == (S(promised.rstrip("!")), promised.endswith("!"))


def test_a_terminal_state_is_never_left() -> None:
    assert {row.to for (state, _), row in TRANSITIONS.items() if state in TERMINAL and row.to is not state} == set()
    assert set(S) - TERMINAL == {S.PENDING, S.SUBMITTED, S.PARTIALLY_FILLED}


def test_the_diagram_draws_every_step_that_is_no_surprise() -> None:
    drawn = mermaid().splitlines()
    for (state, trigger), row in TRANSITIONS.items():
        is_step = row.anomaly is None and row.to is not state
        assert (f"    {state} --> {row.to}: {trigger}" in drawn) == is_step
    assert drawn[:2] == ["stateDiagram-v2", "    [*] --> PENDING: requested"]
    assert [line for line in drawn if line.endswith("--> [*]")] == [
        f"    {state} --> [*]" for state in S if state in TERMINAL
    ]


NOW = OPENING
PENDING, SUBMITTED = sent("o", "BUY 10 SPY"), working("o", "BUY 10 SPY")


def fill(quantity: str, execution: str = "x", order: str = "o") -> ReportFill:
    return ReportFill(NOW, NOW, order, execution, "SPY", BUY, D(quantity), D(100))


def fills(quantity: str, filled: str, execution: str = "x", leaves: str = "0") -> tuple[e.Event, ...]:
    """An execution and its lot."""
    of = D(quantity)
    return (
        e.OrderFilled(NOW, "o", execution, "SPY", BUY, of, D(100), D(0), D(filled), D(leaves)),
        e.LotOpened(NOW, execution, "SPY", "", execution, of, D(100), of * 100, NOW),
    )


BUST = ReportBust(NOW, NOW, "o", "x", "SPY", BUY, D(10), D(100))
CANCELED, EXPIRED = e.OrderCanceled(NOW, "o", "asked"), e.OrderExpired(NOW, "o", "close")
REJECTED = e.OrderRejected(NOW, "o", "no")
REPLACED = ReportReplaced(NOW, NOW, "o", "o2", "b2", D(5), D(101), None, TimeInForce.DAY)
FILLED = fills("10", "10")

# Each anomaly: what had happened, the report that surprises, the state afterwards and the position.
SURPRISES: list[tuple[Anomaly, tuple[e.Event, ...], Command, OrderState, str]] = [
    (Anomaly.FILL_BEFORE_ACKNOWLEDGEMENT, PENDING, fill("4"), S.PARTIALLY_FILLED, "4"),
    (Anomaly.FILL_BEFORE_ACKNOWLEDGEMENT, PENDING, fill("10"), S.FILLED, "10"),
    (Anomaly.FILL_AFTER_CANCEL, (*SUBMITTED, CANCELED), fill("4"), S.CANCELED, "4"),
    (Anomaly.FILL_AFTER_EXPIRY, (*SUBMITTED, EXPIRED), fill("4"), S.EXPIRED, "4"),
    (Anomaly.FILL_AFTER_REJECT, (*SUBMITTED, REJECTED), fill("10"), S.REJECTED, "10"),
    (Anomaly.OVERFILL, (*SUBMITTED, *FILLED), fill("1", "y"), S.FILLED, "11"),
    (Anomaly.OVERFILL, SUBMITTED, fill("11"), S.FILLED, "11"),
    (Anomaly.CANCEL_AFTER_FILL, (*SUBMITTED, *FILLED), ReportCanceled(NOW, NOW, "o", "late"), S.FILLED, "10"),
    (Anomaly.EXPIRY_AFTER_FILL, (*SUBMITTED, *FILLED), ReportExpired(NOW, NOW, "o", "late"), S.FILLED, "10"),
    (Anomaly.REJECT_AFTER_FILL, (*SUBMITTED, *FILLED), ReportRejected(NOW, NOW, "o", "late"), S.FILLED, "10"),
    (
        Anomaly.REJECT_AFTER_FILL,
        (*SUBMITTED, *fills("4", "4", leaves="6")),
        ReportRejected(NOW, NOW, "o", "late"),
        S.REJECTED,
        "4",
    ),
    (Anomaly.REJECT_AFTER_CANCEL, (*SUBMITTED, CANCELED), ReportRejected(NOW, NOW, "o", "late"), S.CANCELED, "0"),
    (Anomaly.ACKNOWLEDGEMENT_AFTER_REJECT, (*PENDING, REJECTED), ReportSubmitted(NOW, NOW, "o", "b"), S.REJECTED, "0"),
    (Anomaly.EXECUTION_BUSTED, (*SUBMITTED, *FILLED), BUST, S.FILLED, "0"),
    (
        Anomaly.EXECUTION_CORRECTED,
        (*SUBMITTED, *FILLED),
        ReportCorrection(NOW, NOW, "o", "x", "y", D(9), D(100)),
        S.FILLED,
        "9",
    ),
    (Anomaly.UNKNOWN_ORDER, (), ReportUnknownOrder(NOW, NOW, "o", "b", "SPY", BUY, D(10)), S.SUBMITTED, "0"),
    (Anomaly.UNKNOWN_EXECUTION, SUBMITTED, BUST, S.SUBMITTED, "0"),
    (Anomaly.UNKNOWN_STATUS, SUBMITTED, ReportUnknownStatus(NOW, NOW, "o", "suspended"), S.SUBMITTED, "0"),
    (Anomaly.CANCEL_AFTER_FILL, (*SUBMITTED, *FILLED), REPLACED, S.FILLED, "10"),
]


@pytest.mark.parametrize(("anomaly", "before", "report", "state", "position"), SURPRISES)
def test_every_surprise_of_the_market_is_told_and_the_position_follows_the_executions(
    anomaly: Anomaly, before: tuple[e.Event, ...], report: Command, state: OrderState, position: str
) -> None:
    decided = given(world(), before).when(report)
    told = [event.anomaly for event in decided.events if isinstance(event, e.OrderAnomalyFound)]
    assert told == [anomaly]
    after = decided.then(*(type(event) for event in decided.events))
    assert after.orders["o"].state is state
    assert after.positions.get("SPY", D(0)) == D(position)
    again = Given([])
    again.state = after
    again.when(report).then_nothing()


def test_every_anomaly_there_is_has_its_surprise() -> None:
    assert {anomaly for anomaly, *_ in SURPRISES} == set(Anomaly)


def test_what_a_bust_left_open_may_be_filled_again_without_alarm() -> None:
    busted = e.ExecutionBusted(NOW, "o", "x", "SPY", BUY, D(10), D(100), D(0))
    gone = e.LotClosed(NOW, "x", "SPY", "", "x", D(10), D(1000), D(100), D(0), NOW, LotCause.BUST)
    state: State = given(world(), SUBMITTED, FILLED, busted, gone).when(fill("10", "y")).then(*fills("10", "10", "y"))
    assert state.orders["o"].filled_quantity == 10
    more = Given([])
    more.state = state
    assert kinds(more.when(fill("1", "z")).events) == ["OrderFilled", "OrderAnomalyFound", "LotOpened"]
