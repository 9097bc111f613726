"""The risk gate: every check right at its edge, all of them recorded, closed when in doubt, and never in the way out."""

import pytest
from msgspec import structs

from mqd_ledger import events as e
from mqd_ledger.errors import CommandRefused
from mqd_ledger.evolve import evolve
from mqd_ledger.policy import Limits, Policy
from mqd_ledger.risk import CHECKS, Proposal, evaluate
from mqd_ledger.state import State
from mqd_ledger.values import TradingState
from tests.dsl import BUY, SOURCE, D, Desk, at, closed, fold, limits, policy, requested, sent, working, world

MARK = closed("SPY 14:29 100")
LONG_10 = (
    *working("held", "BUY 10 SPY"),
    e.OrderFilled(at("14:30"), "held", "h", "SPY", BUY, D(10), D(100), D(0), D(10), D(0)),
    e.LotOpened(at("14:30"), "h", "SPY", "", "h", D(10), D(100), D(1000), at("14:30")),
)
LOST_50 = closed("SPY 14:30 95")  # ten shares, five dollars each
HOPE = working("b", "BUY 5 SPY LIMIT 1")
UNKNOWN = e.OrderAdopted(at("14:30"), "a", "b", "ZZZ", BUY, D(1))
HALT, REDUCE = e.TradingHalted(at("14:30"), "ann", "x"), e.TradingReduced(at("14:30"), "ann", "x")

Case = tuple[dict[str, object], tuple[e.Event, ...], str, str, bool]

# check -> limits, what happened before, when the order comes, the order, does it pass
EDGES: dict[str, list[Case]] = {
    "trading_is_allowed": [
        ({}, (), "14:30", "BUY 1 SPY", True),
        ({}, (HALT,), "14:30", "BUY 1 SPY", False),
        ({}, (*LONG_10, HALT), "14:30", "SELL 1 SPY", False),
        ({}, (REDUCE,), "14:30", "BUY 1 SPY", False),
        ({}, (*LONG_10, REDUCE), "14:30", "SELL 10 SPY", True),
        ({}, (*LONG_10, REDUCE), "14:30", "SELL 11 SPY", False),
    ],
    "session_is_open": [
        ({"session": "regular"}, (), "14:30", "BUY 1 SPY", True),
        ({"session": "regular"}, (), "14:29:59", "BUY 1 SPY", False),
        ({"session": "regular"}, (), "20:59:59", "BUY 1 SPY", True),
        ({"session": "regular"}, (), "21:00", "BUY 1 SPY", False),
        ({"session": "extended"}, (), "21:00", "BUY 1 SPY", True),
        ({"session": "extended"}, (), "2026-01-06T01:00", "BUY 1 SPY", False),
        ({"session": "any"}, (), "2026-01-04T03:00", "BUY 1 SPY", True),
    ],
    "price_is_known": [
        ({}, (), "14:30", "BUY 1 SPY", True),
        ({}, (), "14:30", "BUY 1 QQQ", False),
        ({}, (), "14:30", "BUY 1 QQQ LIMIT 10", True),
    ],
    "price_is_fresh": [
        ({"stale_after": 90}, (), "14:31:30", "BUY 1 SPY", True),
        ({"stale_after": 90}, (), "14:31:30.000001", "BUY 1 SPY", False),
        ({"stale_after": 90}, (), "14:30", "BUY 1 QQQ LIMIT 10", False),
    ],
    "daily_loss_is_within_limit": [
        ({"daily_loss_max": D(50)}, (*LONG_10, LOST_50), "14:31", "BUY 1 SPY", True),
        ({"daily_loss_max": D("49.99")}, (*LONG_10, LOST_50), "14:31", "BUY 1 SPY", False),
        ({"daily_loss_max": D("49.99")}, (*LONG_10, LOST_50), "14:31", "SELL 10 SPY", True),
        ({"daily_loss_max": D("49.99")}, (*LONG_10, LOST_50), "14:31", "SELL 11 SPY", False),
        ({"daily_loss_max": D("49.99")}, (*LONG_10, LOST_50), "2026-01-05T23:59:59", "BUY 1 SPY", False),
        # The first thing that happens on the next day: nothing has been lost on it yet.
        ({"daily_loss_max": D("49.99")}, (*LONG_10, LOST_50), "2026-01-06T00:00", "BUY 1 SPY", True),
    ],
    "weekly_loss_is_within_limit": [
        ({"weekly_loss_max": D(50)}, (*LONG_10, LOST_50), "14:31", "BUY 1 SPY", True),
        ({"weekly_loss_max": D(49)}, (*LONG_10, LOST_50), "14:31", "BUY 1 SPY", False),
        ({"weekly_loss_max": D(49)}, (*LONG_10, LOST_50), "2026-01-11T23:59", "BUY 1 SPY", False),
        ({"weekly_loss_max": D(49)}, (*LONG_10, LOST_50), "2026-01-12T00:00", "BUY 1 SPY", True),
    ],
    "position_notional_is_within_limit": [
        ({"position_notional_max": D(1000)}, (), "14:30", "BUY 10 SPY", True),
        ({"position_notional_max": D(1000)}, (), "14:30", "BUY 10.000000001 SPY", False),
        ({"position_notional_max": D(1000)}, (), "14:30", "BUY $1000 SPY", True),
        ({"position_notional_max": D(1000)}, (), "14:30", "BUY $1000.01 SPY", False),
        ({"position_notional_max": D(1000)}, LONG_10, "14:30", "BUY 1 SPY", False),
        ({"position_notional_max": D(900)}, LONG_10, "14:30", "SELL 1 SPY", True),
        ({"position_notional_max": D(1000)}, (), "14:30", "SELL 10 SPY", True),
        ({"position_notional_max": D(1000)}, (), "14:30", "SELL 11 SPY", False),
        # What works already counts, by shares or by dollars, and only what is left of it.
        ({"position_notional_max": D(1000)}, working("w", "BUY 5 SPY"), "14:30", "BUY 5 SPY", True),
        ({"position_notional_max": D(1000)}, working("w", "BUY 5 SPY"), "14:30", "BUY 6 SPY", False),
        ({"position_notional_max": D(1000)}, working("w", "BUY $500 SPY"), "14:30", "BUY $500 SPY", True),
        ({"position_notional_max": D(1000)}, working("w", "BUY $500 SPY"), "14:30", "BUY $501 SPY", False),
        # A sale that may never happen makes no room.
        ({"position_notional_max": D(1000)}, working("w", "SELL 5 SPY LIMIT 500"), "14:30", "BUY 11 SPY", False),
        # A limit far from the market hides nothing: what is held is worth its mark, what is sold short the better price.
        ({"position_notional_max": D(1010)}, LONG_10, "14:30", "BUY 10 SPY LIMIT 1", True),
        ({"position_notional_max": D(1009)}, LONG_10, "14:30", "BUY 10 SPY LIMIT 1", False),
        ({"position_notional_max": D(999)}, (), "14:30", "SELL 10 SPY LIMIT 1", False),
        ({"position_notional_max": D(1999)}, (), "14:30", "BUY 10 SPY STOP 200", False),
        ({"position_notional_max": D(950)}, (), "14:30", "BUY 10 SPY LIMIT 95", True),
    ],
    "position_percent_is_within_limit": [
        ({"position_percent_max": D(20)}, (), "14:30", "BUY 20 SPY", True),
        ({"position_percent_max": D(20)}, (), "14:30", "BUY 20.1 SPY", False),
        ({"position_percent_max": D(5)}, LONG_10, "14:30", "SELL 1 SPY", True),
    ],
    "exposure_is_within_limit": [
        ({"exposure_max": D(1500)}, (*LONG_10, closed("QQQ 14:29 50")), "14:30", "BUY 10 QQQ", True),
        ({"exposure_max": D(1500)}, (*LONG_10, closed("QQQ 14:29 50")), "14:30", "BUY 10.1 QQQ", False),
        ({"exposure_max": D(1500)}, (*working("w", "BUY 5 QQQ LIMIT 100"),), "14:30", "BUY 10 SPY", True),
        ({"exposure_max": D(1500)}, (*working("w", "BUY 5 QQQ LIMIT 101"),), "14:30", "BUY 10 SPY", False),
        # An order at the broker whose price nobody knows could be any size; the way out stays open.
        ({"exposure_max": D(1500)}, (UNKNOWN,), "14:30", "BUY 1 SPY", False),
    ],
    "open_positions_are_within_limit": [
        ({"positions_max": 2}, LONG_10, "14:30", "BUY 1 QQQ LIMIT 10", True),
        ({"positions_max": 1}, LONG_10, "14:30", "BUY 1 QQQ LIMIT 10", False),
        ({"positions_max": 1}, LONG_10, "14:30", "BUY 1 SPY", True),
        ({"positions_max": 1}, working("w", "BUY 1 QQQ LIMIT 10"), "14:30", "BUY 1 SPY", False),
    ],
    "orders_today_are_within_limit": [
        ({"orders_per_day_max": 2}, sent("a", "BUY 1 SPY"), "14:30", "BUY 2 SPY", True),
        ({"orders_per_day_max": 1}, sent("a", "BUY 1 SPY"), "14:30", "BUY 2 SPY", False),
        ({"orders_per_day_max": 1}, LONG_10, "14:30", "SELL 1 SPY", True),
        ({"orders_per_day_max": 1}, sent("a", "BUY 1 SPY"), "2026-01-06T00:00", "BUY 2 SPY", True),
    ],
    "order_is_not_a_duplicate": [
        ({"duplicate_window": 30}, sent("a", "BUY 1 SPY"), "14:30:29.999999", "BUY 1 SPY", False),
        ({"duplicate_window": 30}, sent("a", "BUY 1 SPY"), "14:30:30", "BUY 1 SPY", True),
        ({"duplicate_window": 30}, sent("a", "BUY 1 SPY"), "14:30", "BUY 1.0 SPY", False),
        ({"duplicate_window": 30}, sent("a", "BUY 1 SPY"), "14:30", "BUY 2 SPY", True),
        ({"duplicate_window": 30}, sent("a", "BUY 1 SPY"), "14:30", "SELL 1 SPY", True),
        ({"duplicate_window": 30}, sent("a", "BUY $100 SPY"), "14:30", "BUY $100 SPY", False),
        ({}, sent("a", "BUY 1 SPY"), "14:30", "BUY 1 SPY", True),
    ],
    "buying_power_covers_the_order": [
        ({}, (), "14:30", "BUY 100 SPY", True),
        ({}, (), "14:30", "BUY 100.1 SPY", False),
        ({}, working("w", "BUY 50 SPY"), "14:30", "BUY 50 SPY", True),
        ({}, working("w", "BUY 50 SPY"), "14:30", "BUY 51 SPY", False),
        ({}, working("w", "BUY $5000 QQQ"), "14:30", "BUY 50 SPY", True),
        ({}, working("w", "BUY $5000 QQQ"), "14:30", "BUY 51 SPY", False),
        ({}, LONG_10, "14:30", "BUY 90 SPY", True),
        ({}, LONG_10, "14:30", "BUY 91 SPY", False),
        # A working sale of what is held needs no money of its own.
        ({}, (*LONG_10, *working("w", "SELL 10 SPY LIMIT 120")), "14:30", "BUY 90 QQQ LIMIT 100", True),
        ({}, (*LONG_10, *working("w", "SELL 10 SPY LIMIT 120")), "14:30", "BUY 91 QQQ LIMIT 100", False),
    ],
    "notional_is_above_minimum": [
        ({"order_notional_min": D(100)}, (), "14:30", "BUY 1 SPY", True),
        ({"order_notional_min": D("100.01")}, (), "14:30", "BUY 1 SPY", False),
        ({"order_notional_min": D(5000)}, LONG_10, "14:30", "SELL 1 SPY", True),
    ],
    "fractions_are_allowed": [
        ({}, (), "14:30", "BUY 0.5 SPY", True),
        ({}, (), "14:30", "BUY 0.5 SPY GTC", False),
        ({}, (), "14:30", "BUY $50 SPY LIMIT 100", False),
        ({}, (), "14:30", "SELL 0.5 SPY", False),
        ({}, LONG_10, "14:30", "SELL 9.5 SPY", True),
        ({}, LONG_10, "14:30", "SELL 10.5 SPY", False),
        ({"whole_share_symbols": ("SPY",)}, (), "14:30", "BUY 0.5 SPY", False),
        ({"whole_share_symbols": ("SPY",)}, (), "14:30", "BUY 5 SPY GTC", True),
    ],
    "account_can_hold_the_symbol": [
        ({}, (), "14:30", "BUY 1 SPY LIMIT 10000", True),
        ({}, (), "14:30", "BUY 1 SPY LIMIT 10000.01", False),
        ({}, (), "14:30", "BUY 0.5 SPY LIMIT 10000.01", True),
    ],
    "short_selling_is_allowed": [
        ({"short_selling": False}, LONG_10, "14:30", "SELL 10 SPY", True),
        ({"short_selling": False}, LONG_10, "14:30", "SELL 10.1 SPY", False),
        ({"short_selling": True}, LONG_10, "14:30", "SELL 11 SPY", True),
        ({"short_selling": False}, (), "14:30", "SELL 1 SPY", False),
        ({"short_selling": False}, (*LONG_10, *working("w", "SELL 5 SPY")), "14:30", "SELL 5 SPY", True),
        ({"short_selling": False}, (*LONG_10, *working("w", "SELL 5 SPY")), "14:30", "SELL 6 SPY", False),
        # What one hopes to buy first cannot be sold yet.
        ({"short_selling": False}, (*LONG_10, *HOPE), "14:30", "SELL 11 SPY", False),
        ({"short_selling": False}, (*LONG_10, *HOPE, *working("s", "SELL 5 SPY")), "14:30", "SELL 6 SPY", False),
    ],
}


def verdicts(changes: dict[str, object], before: tuple[e.Event, ...], when: str, order: str) -> dict[str, e.Check]:
    state = fold([*world(structs.replace(policy(), limits=limits(**changes)), deposit="10000"), MARK, *before])
    checks, reasons = evaluate(requested("new", order, at(when)), state)
    assert len(reasons) == sum(not check.passed for check in checks)
    return {check.name: check for check in checks}


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name, cases in EDGES.items() for case in cases],
    ids=lambda value: str(value)[:60],
)
def test_each_check_holds_to_its_limit_and_not_beyond(name: str, case: Case) -> None:
    changes, before, when, order, passes = case
    check = verdicts(changes, before, when, order)[name]
    assert check.passed is passes, check


def test_every_check_has_a_case_that_passes_and_one_that_fails() -> None:
    assert list(EDGES) == [check.__name__ for check in CHECKS]
    assert {name for name, cases in EDGES.items() if {case[-1] for case in cases} != {True, False}} == set()


def test_all_checks_are_recorded_also_after_one_has_failed() -> None:
    desk = Desk(Policy(limits=Limits(session="regular")), when=at("2026-01-04T12:00"))  # a Sunday
    order = desk.order("BUY 5 SPY")
    denied = desk.tape.events[-1]
    assert isinstance(denied, e.OrderDenied)
    assert [check.name for check in denied.checks] == [check.__name__ for check in CHECKS]
    assert denied.reasons == ("session_is_open does not hold: at 2026-01-04T12:00:00Z; allowed regular",)
    assert desk.state.orders[order].approved is False


def test_an_error_inside_a_check_denies_the_order_and_the_other_checks_still_run() -> None:
    def ledger_is_in_the_mood(_proposal: Proposal) -> e.Check:
        raise ZeroDivisionError("no mood")

    checks = (ledger_is_in_the_mood, *CHECKS)
    results, reasons = evaluate(requested("new", "BUY 1 SPY"), fold([*world(), MARK]), checks)
    assert [check.passed for check in results] == [False, *[True] * len(CHECKS)]
    assert reasons == ("ledger_is_in_the_mood does not hold: error ZeroDivisionError: no mood",)


def test_getting_out_is_possible_whatever_is_lost_owned_or_spent() -> None:
    tight = {
        "daily_loss_max": D(1), "weekly_loss_max": D(1), "position_notional_max": D(1), "position_percent_max": D(1),
        "exposure_max": D(1), "positions_max": 0, "orders_per_day_max": 0, "order_notional_min": D(10**6),
        "short_selling": False,
    }  # fmt: skip
    state = fold(
        [*world(structs.replace(policy(), limits=limits(**tight)), deposit="1000"), MARK, *LONG_10, LOST_50, REDUCE]
    )
    unknown = e.OrderAdopted(at("14:31"), "a", "b", "ZZZ", BUY, D(5))
    evolve(state, unknown)
    _, reasons = evaluate(requested("out", "SELL 10 SPY", at("14:31")), state)
    assert reasons == ()
    _, reasons = evaluate(requested("in", "BUY 1 SPY", at("14:31")), state)
    assert len(reasons) == 10


def test_two_closing_orders_together_cannot_turn_a_position_over() -> None:
    before = (*LONG_10, *working("w", "SELL 6 SPY LIMIT 120"), *working("b", "BUY 6 SPY LIMIT 80"))
    found = verdicts({"short_selling": False, "daily_loss_max": D(-1)}, before, "14:30", "SELL 5 SPY")
    assert not found["daily_loss_is_within_limit"].passed  # it does more than reduce
    assert found["short_selling_is_allowed"].inputs == {"position_after": "-1"}


def test_the_limits_state_comes_from_the_log_and_no_restart_resets_it() -> None:
    desk = Desk(policy(daily_loss_max=D(49), orders_per_day_max=3), deposit="10000")
    desk.trade("BUY 10 SPY", "100")
    desk.bar("SPY 14:30 95")
    again = fold(desk.tape.events)
    anew = e.RunStarted(desk.at, 2, "paper", "0", SOURCE, (), policy(daily_loss_max=D(49)))
    restarted = fold([*desk.tape.events, e.RunEnded(desk.at, 1, "x"), anew])
    for state in (desk.state, again, restarted):
        assert (state.day.orders, state.day.start_equity - state.equity) == (1, D(50))
        assert evaluate(requested("n", "BUY 1 SPY", desk.at), state)[1] != ()
    assert repr(again) == repr(desk.state)


@pytest.mark.parametrize(
    ("day_starts", "before", "after"),
    (
        ("utc", "2026-01-05T23:59:59.999999", "2026-01-06T00:00"),
        ("exchange", "2026-01-06T04:59:59.999999", "2026-01-06T05:00"),  # New York is five hours behind in winter
        ("exchange", "2026-07-07T03:59:59.999999", "2026-07-07T04:00"),  # and four in summer
    ),
)
def test_the_trading_day_begins_at_midnight_of_the_place_that_the_policy_names(
    day_starts: str, before: str, after: str
) -> None:
    when = at(before[:10] + "T01:00") if "07-07" in before else at("14:30")
    state = fold(world(structs.replace(policy(), day_starts=day_starts), when=when))
    evolve(state, e.FeeCharged(at(before), "f", "SEC", D(5), ""))
    assert state.day.start_equity - state.equity == D(5)
    evolve(state, e.FeeCharged(at(after), "g", "SEC", D(1), ""))
    assert state.day.start_equity - state.equity == D(1)
    assert state.day.starts_at == at(after)


def test_the_trading_week_begins_on_monday_and_a_new_midnight_moves_its_end() -> None:
    state = fold(world(when=at("2026-01-07T15:00")))
    assert (state.week.starts_at, state.week.ends_at) == (at("2026-01-05T00:00"), at("2026-01-12T00:00"))
    new_york = structs.replace(policy(), day_starts="exchange")
    evolve(state, e.FeeCharged(at("2026-01-09T15:00"), "f", "SEC", D(5), ""))
    evolve(state, e.RunStarted(at("2026-01-09T16:00"), 2, "paper", "0", SOURCE, (), new_york))
    assert (state.day.ends_at, state.week.ends_at) == (at("2026-01-10T05:00"), at("2026-01-12T05:00"))
    assert state.week.start_equity - state.equity == D(5)


def test_a_fraction_of_a_dear_share_fits_a_small_account_and_a_whole_one_does_not() -> None:
    small = structs.replace(
        limits(daily_loss_max=D(50), weekly_loss_max=D(150), position_notional_max=D(100), position_percent_max=D(50)),
        order_notional_min=D(1),
        short_selling=False,
    )
    state = fold([*world(Policy(limits=small), deposit="200"), closed("SPY 14:29 600")])
    results, reasons = evaluate(requested("n", "BUY 1 SPY"), state)
    failed = {check.name for check in results if not check.passed}
    assert {
        "account_can_hold_the_symbol",
        "position_notional_is_within_limit",
        "buying_power_covers_the_order",
    } <= failed
    assert "account_can_hold_the_symbol does not hold: price 600, equity 200; allowed 200" in reasons
    assert evaluate(requested("n", "BUY 0.166 SPY"), state)[1] == ()
    assert evaluate(requested("n", "BUY $100 SPY"), state)[1] == ()


def test_an_operator_halts_reduces_and_resumes() -> None:
    desk = Desk(deposit="10000")
    desk.trade("BUY 10 SPY", "100")
    allowed: dict[TradingState, list[str]] = {}
    for event in (REDUCE, HALT, e.TradingResumed(at("14:30"), "ann", "ok")):
        evolve(desk.state, event)
        wishes = ("BUY 1 SPY", "SELL 10 SPY", "SELL 11 SPY")
        passed = [wish for wish in wishes if not evaluate(requested("n", wish), desk.state)[1]]
        allowed[desk.state.trading_state] = passed
    assert allowed == {
        TradingState.REDUCING: ["SELL 10 SPY"],
        TradingState.HALTED: [],
        TradingState.ACTIVE: ["BUY 1 SPY", "SELL 10 SPY", "SELL 11 SPY"],
    }


def test_a_quantity_beyond_all_arithmetic_is_denied_and_does_not_stop_the_program() -> None:
    state: State = fold([*world(policy(position_percent_max=D(20))), MARK])
    assert evaluate(requested("n", "BUY 1E+40 SPY"), state)[1] != ()
    with pytest.raises(CommandRefused):
        Desk().order("BUY 1E-40 SPY")
