"""The broker as the truth: whose account it is, recovery, differences and what is booked for them, what blocks orders."""

from decimal import Decimal

import pytest

from commands.base import Command
from commands.broker_reports import ReportAbsent, ReportCanceled, ReportSubmitted, ReportUnknownStatus
from commands.cash import ReportCash
from commands.control import EndRun, HaltTrading, ReduceTrading, ResumeTrading
from commands.executions import ReportBust, ReportCorrection, ReportFill
from commands.market import EndSession, OpenSession, ReportBar, ReportFeedRecovered, ReportFeedStale
from commands.trading import CancelOrder
from commands.truth import (
    CASH,
    RAW_MAX,
    RECONCILIATION,
    AcceptDifference,
    AttachAccount,
    ReportAgreement,
    ReportDifference,
    ReportReachable,
    ReportUnreachable,
    ReportUnusable,
    StartRecovery,
    TakeRecoveryStep,
)
from mqd_ledger import events as e
from mqd_ledger.state import State
from mqd_ledger.values import Anomaly, DifferenceKind, LotCause, LotMethod, OrderState, TradingState
from tests.dsl import (
    BUY,
    MINUTE,
    OPENING,
    D,
    Desk,
    Given,
    bar,
    books_balance,
    closed,
    given,
    kinds,
    lots_of,
    policy,
    sent,
    submit,
    working,
    world,
)

NOW = OPENING
MARKED = closed("SPY 14:29 100")
K = DifferenceKind
LARGE = ReportDifference(NOW, K.UNKNOWN, "SPY", "0", "10", D(10), D(100), evidence={"asked_at": "14:30"})
SMALL = ReportDifference(NOW, K.CASH, CASH, "100000", "100001.5", amount=D("1.5"))


def after(state: State) -> Given:
    return Given(state)


def difference_of(command: ReportDifference, number: int = 1, *, waits: bool = True) -> e.DifferenceFound:
    return e.DifferenceFound(
        command.at, f"D{number}", command.kind, command.subject, command.ours, command.theirs, command.quantity,
        command.price, command.amount, dict(command.evidence), waits,
    )  # fmt: skip


def accept(name: str = "D1", request_id: str = "") -> AcceptDifference:
    return AcceptDifference(NOW, name, "ann", "bought on the phone", request_id)


# --- the account ---------------------------------------------------------------------------------------------------------


def test_a_ledger_is_of_one_account_and_of_no_other() -> None:
    mine = AttachAccount(NOW, "alpaca", "paper", "PA1")
    state = given(world()).when(mine).then(e.AccountAttached(NOW, "alpaca", "paper", "PA1"))
    assert (state.account_number, state.environment, state.attached_at) == ("PA1", "paper", NOW)
    after(state).when(mine).then_nothing()
    after(state).when(AttachAccount(NOW, "alpaca", "paper", "PA2")).refused("paper account PA1.*paper account PA2")
    after(state).when(AttachAccount(NOW, "alpaca", "live", "PA1")).refused("the live account PA1. Use that account's")


# --- recovery ------------------------------------------------------------------------------------------------------------


def test_trading_is_blocked_from_the_start_of_a_recovery_to_its_last_step() -> None:
    desk = Desk()
    desk.do(StartRecovery(NOW))
    assert desk.state.blocks == {"recovery": "the account has not been compared with the broker yet"}
    desk.do(TakeRecoveryStep(NOW, 3, "fetch", passed=False, is_last=False, detail="the broker does not answer"))
    assert (
        denial(desk) == "trading_state ACTIVE, blocked_by recovery (fetch: the broker does not answer); allowed ACTIVE"
    )
    desk.do(TakeRecoveryStep(NOW, 3, "fetch", passed=True, is_last=False, detail="2 positions"))
    assert "recovery" in desk.state.blocks
    desk.do(TakeRecoveryStep(NOW, 7, "limits", passed=False, is_last=True, detail="no"))
    assert desk.state.blocks == {"recovery": "limits: no"}
    desk.do(TakeRecoveryStep(NOW, 7, "limits", passed=True, is_last=True, detail="within all limits"))
    assert desk.state.blocks == {}
    assert kinds(desk.do(submit("BUY 1 SPY"))) == ["OrderRequested", "OrderApproved", "OrderSent"]


def test_only_an_open_run_recovers() -> None:
    nothing = given(e.LedgerCreated(NOW, "L"))
    nothing.when(StartRecovery(NOW)).refused("No run is open that could be recovered")
    over = given(world(), e.RunEnded(NOW, 1, "over"))
    over.when(TakeRecoveryStep(NOW, 1, "log", passed=True, is_last=False, detail="")).refused("No run is open")
    given(world()).when(StartRecovery(NOW)).then(e.RecoveryStarted(NOW, 1))


def denial(desk: Desk) -> str:
    denied = desk.do(submit("BUY 1 SPY", desk.at))[1]
    assert isinstance(denied, e.OrderDenied)
    (sentence,) = denied.reasons
    return sentence.removeprefix("trading_is_allowed does not hold: ")


@pytest.mark.parametrize(
    ("blocking", "lifting", "why"),
    (
        (
            ReportUnreachable(NOW, "trade_updates", "closed (1006)"),
            ReportReachable(NOW, "trade_updates", "connected"),
            "trade_updates (closed (1006))",
        ),
        (
            ReportFeedStale(NOW, "bars", "silent for 95 s"),
            ReportFeedRecovered(NOW, "bars", "they come again"),
            "feed bars (silent for 95 s)",
        ),
        (
            EndSession(NOW, "2026-01-05", "flatten"),
            OpenSession(NOW, "2026-01-06", NOW),
            "session (2026-01-05 is ending: flatten)",
        ),
    ),
)
def test_what_is_down_blocks_every_order_and_is_told_with_its_reason(
    blocking: Command, lifting: Command, why: str
) -> None:
    desk = Desk()
    desk.do(OpenSession(NOW, "2026-01-05", NOW))
    assert desk.do(lifting) == [] or isinstance(lifting, OpenSession)
    desk.do(OpenSession(NOW, "2026-01-05", NOW))
    assert len(desk.do(blocking)) == 1
    assert desk.do(blocking) == []
    assert denial(desk) == f"trading_state ACTIVE, blocked_by {why}; allowed ACTIVE"
    assert len(desk.do(lifting)) == 1
    assert kinds(desk.do(submit("BUY 1 SPY")))[1] == "OrderApproved"


def test_two_blocks_are_both_told_and_lifting_one_leaves_the_other() -> None:
    desk = Desk()
    desk.do(ReportUnreachable(NOW, "orders", "timeout"), ReportUnreachable(NOW, "trade_updates", "closed"))
    assert "blocked_by orders (timeout), trade_updates (closed)" in denial(desk)
    desk.do(ReportReachable(NOW, "orders", "answers"))
    assert "blocked_by trade_updates (closed)" in denial(desk)


def test_what_cannot_be_used_is_kept_as_it_came_but_not_without_end() -> None:
    report = ReportUnusable(NOW, "trade_updates", "x" * (RAW_MAX + 5), "no number")
    state = given(world()).when(report).then(e.BrokerReportIgnored(NOW, "trade_updates", "x" * RAW_MAX, "no number"))
    assert state.blocks == {}


# --- differences ---------------------------------------------------------------------------------------------------------


def test_a_large_difference_halts_trading_and_waits() -> None:
    found = difference_of(LARGE)
    reason = "D1: SPY is 10 at the broker, 0 in the ledger"
    state = given(world()).when(LARGE).then(found, e.TradingHalted(NOW, RECONCILIATION, reason))
    assert (state.differences, state.positions) == ({"D1": found}, {})
    after(state).when(LARGE).then_nothing()
    after(state).when(ResumeTrading(NOW, "ann", "never mind")).refused(
        "differ from the broker's account: D1.*--accept ID"
    )
    after(state).when(accept("D9")).refused("no open difference 'D9'; open are: D1")
    after(state).when(AcceptDifference(NOW, "D1", "ann", " ")).refused("needs a reason")


def test_an_accepted_difference_is_booked_as_it_was_found_and_trading_goes_on() -> None:
    booked = e.AdjustmentBooked(NOW, "D1", "SPY", D(10), D(100), D(0), "ann", "bought on the phone", "r1")
    state = (
        after(halted())
        .when(accept(request_id="r1"))
        .then(
            booked,
            e.LotOpened(NOW, "L-D1", "SPY", "", "L-D1", D(10), D(100), D(1000), NOW),
            e.TradingResumed(NOW, "ann", "D1 is settled"),
        )
    )
    assert (state.positions, state.cash, state.equity) == ({"SPY": D(10)}, D(99000), D(100000))
    assert (state.differences, state.trading_state) == ({}, TradingState.ACTIVE)
    assert state.orders == {}
    books_balance(state)
    after(state).when(accept(request_id="r1")).then_nothing()
    after(state).when(accept(request_id="r2")).refused("open are: none")


def halted(*more: Command) -> State:
    state = given(world(), MARKED).when(LARGE).then(e.DifferenceFound, e.TradingHalted)
    for command in more:
        decided = after(state).when(command)
        decided.then(*(type(event) for event in decided.events))
    return state


def test_shares_that_are_gone_at_the_broker_realize_what_they_were_sold_for() -> None:
    desk = Desk(policy(LotMethod.FIFO), deposit="1000")
    desk.trade("BUY 4 SPY", "100", "x", strategy="s")
    gone = ReportDifference(NOW, K.MANUAL_TRADE, "SPY", "4", "1", D(-3), D(110))
    found, halt = desk.do(gone)
    assert (type(found), type(halt)) == (e.DifferenceFound, e.TradingHalted)
    _, lot, _ = desk.do(accept())
    assert lot == e.LotClosed(NOW, "x", "SPY", "s", "L-D1", D(3), D(300), D(110), D(30), NOW, LotCause.ADJUSTMENT)
    assert (desk.state.realized_pnl, desk.state.day.realized_pnl) == (D(30), D(30))
    assert (desk.state.positions, desk.state.strategy_positions) == ({"SPY": D(1)}, {("s", "SPY"): D(1)})
    books_balance(desk.state)


def test_a_difference_that_turns_a_position_round_closes_its_lots_and_opens_one_on_the_other_side() -> None:
    desk = Desk()
    desk.trade("BUY 4 SPY", "100", "x")
    desk.do(ReportDifference(NOW, K.UNKNOWN, "SPY", "4", "-2", D(-6), D(90)))
    assert kinds(desk.do(accept())) == ["AdjustmentBooked", "LotClosed", "LotOpened", "TradingResumed"]
    assert (lots_of(desk.state), desk.state.positions["SPY"]) == ([("L-D1", D(-2), D(90))], D(-2))
    books_balance(desk.state)


def test_up_to_the_threshold_a_difference_is_booked_unasked_and_trading_goes_on() -> None:
    booked = e.AdjustmentBooked(NOW, "D1", "", D(0), D(0), D("1.5"), RECONCILIATION, "under the threshold")
    state = given(world()).when(SMALL).then(difference_of(SMALL, waits=False), booked)
    assert (state.cash, state.equity, state.deposits) == (D("100001.5"), D("100001.5"), D("100001.5"))
    assert (state.day.start_equity, state.peak_equity, state.trading_state) == (
        D("100001.5"),
        D("100001.5"),
        TradingState.ACTIVE,
    )
    books_balance(state)
    exactly = ReportDifference(NOW, K.CASH, CASH, "1", "2", amount=D(-25))
    after(state).when(exactly).then(difference_of(exactly, 2, waits=False), e.AdjustmentBooked)
    over = ReportDifference(NOW, K.CASH, CASH, "1", "2", amount=D("-25.01"))
    after(state).when(over).then(difference_of(over, 3), e.TradingHalted)


def test_what_the_account_held_before_the_ledger_is_booked_however_much_it_is() -> None:
    desk = Desk(deposit="1")
    shares = ReportDifference(NOW, K.OPENING, "SPY", "0", "50", D(50), D(98))
    money = ReportDifference(NOW, K.OPENING, CASH, "-4899", "20000", amount=D(24899))
    assert kinds(desk.do(shares, money)) == [
        "DifferenceFound",
        "AdjustmentBooked",
        "LotOpened",
        "DifferenceFound",
        "AdjustmentBooked",
    ]
    assert (desk.state.cash, desk.state.equity, desk.state.unrealized_pnl) == (D(20000), D(25000), D(100))
    books_balance(desk.state)


MOVED = e.DifferenceFound, e.TradingHalted
IN_KIND = ReportDifference(NOW, K.UNKNOWN, "SPY", "0", "10", D(10), D(100), D(1000))


def test_shares_that_nobody_paid_for_come_as_money_put_in_that_bought_them() -> None:
    state = after(given(world(), MARKED).when(IN_KIND).then(*MOVED)).when(accept()).then(
        e.AdjustmentBooked(NOW, "D1", "SPY", D(10), D(100), D(1000), "ann", "bought on the phone"),
        e.LotOpened(NOW, "L-D1", "SPY", "", "L-D1", D(10), D(100), D(1000), NOW),
        e.TradingResumed(NOW, "ann", "D1 is settled"),
    )  # fmt: skip
    assert (state.cash, state.equity, state.deposits) == (D(100000), D(101000), D(101000))
    assert (state.equity - state.day.start_equity, state.peak_equity, state.max_drawdown) == (D(0), D(101000), D(0))
    books_balance(state)


def test_shares_that_went_without_a_payment_keep_what_they_had_earned() -> None:
    desk = Desk()
    desk.trade("BUY 4 SPY", "90", "x", strategy="s")
    earned = desk.state.equity - desk.state.day.start_equity
    desk.do(ReportDifference(NOW, K.UNKNOWN, "SPY", "4", "1", D(-3), D(100), D(-300)), accept())
    assert (desk.state.cash, desk.state.realized_pnl, desk.state.unrealized_pnl) == (D(99640), D(30), D(10))
    assert desk.state.equity - desk.state.day.start_equity == earned == 40
    assert desk.state.strategy_positions == {("s", "SPY"): D(1)}
    books_balance(desk.state)


@pytest.mark.parametrize(
    ("quantity", "amount", "waits"),
    (
        ("0.25", "25", False),  # moved: 25 of shares, nothing of cash
        ("0.25", "0", False),  # paid for
        ("0.26", "26", True),
        ("0.25", "25.5", False),
        ("0.01", "27", True),  # hardly a share, and 26 of cash
    ),
)
def test_a_difference_is_worth_its_shares_or_its_cash_whichever_is_more(
    quantity: str, amount: str, waits: bool
) -> None:
    found = ReportDifference(NOW, K.UNKNOWN, "SPY", "0", quantity, D(quantity), D(100), D(amount))
    first, *_ = given(world(), MARKED).when(found).events
    assert first == difference_of(found, waits=waits)


def test_the_same_shares_with_other_cash_are_another_difference_and_another_price_alone_is_none() -> None:
    found = after(halted())
    found.when(ReportDifference(NOW, K.UNKNOWN, "SPY", "0", "10", D(10), D(99), D(-10))).then_nothing()
    found.when(ReportDifference(NOW, K.UNKNOWN, "SPY", "0", "10", D(10), D(100), D("0.01"))).then_nothing()
    cleared = e.DifferenceCleared(NOW, "D1", "SPY", "D2 takes its place")
    state = found.when(IN_KIND).then(difference_of(IN_KIND, 2), cleared)
    assert (list(state.differences), state.trading_state) == (["D2"], TradingState.HALTED)


def test_a_newer_difference_takes_the_place_of_an_open_one_about_the_same() -> None:
    newer = ReportDifference(NOW, K.UNKNOWN, "SPY", "0", "12", D(12), D(100))
    cleared = e.DifferenceCleared(NOW, "D1", "SPY", "D2 takes its place")
    state = after(halted()).when(newer).then(difference_of(newer, 2), cleared)
    assert list(state.differences) == ["D2"]
    assert state.trading_state is TradingState.HALTED


def test_a_difference_that_has_become_small_is_booked_and_trading_goes_on() -> None:
    smaller = ReportDifference(NOW, K.UNKNOWN, "SPY", "0", "0.2", D("0.2"), D(100))
    state = (
        after(halted())
        .when(smaller)
        .then(
            difference_of(smaller, 2, waits=False),
            e.DifferenceCleared(NOW, "D1", "SPY", "D2 takes its place"),
            e.AdjustmentBooked,
            e.LotOpened,
            e.TradingResumed(NOW, RECONCILIATION, "D1 is settled"),
        )
    )
    assert (state.differences, state.positions) == ({}, {"SPY": D("0.2")})


def test_a_difference_that_went_away_by_itself_lets_trading_go_on() -> None:
    agreed = ReportAgreement(NOW, "SPY", "the missing fill arrived")
    state = (
        after(halted())
        .when(agreed)
        .then(
            e.DifferenceCleared(NOW, "D1", "SPY", "the missing fill arrived"),
            e.TradingResumed(NOW, RECONCILIATION, "D1 is settled"),
        )
    )
    after(state).when(agreed).then_nothing()
    after(halted()).when(ReportAgreement(NOW, "QQQ", "never was one")).then_nothing()


def test_trading_goes_on_only_after_the_last_difference() -> None:
    other = ReportDifference(NOW, K.UNKNOWN, "QQQ", "0", "3", D(3), D(200))
    both = halted(other)
    assert (list(both.differences), both.trading_state_by) == (["D1", "D2"], RECONCILIATION)
    one_left = after(both).when(accept("D2")).then(e.AdjustmentBooked, e.LotOpened)
    after(one_left).when(accept("D1")).then(e.AdjustmentBooked, e.LotOpened, e.TradingResumed)


@pytest.mark.parametrize("request_id", ("", "r7"))
def test_an_operators_halt_outlasts_the_differences_whenever_it_came(request_id: str) -> None:
    halt = HaltTrading(NOW, "bob", "no more today", request_id)
    before = given(world(), MARKED).when(halt).then(e.TradingHalted)
    before = after(before).when(LARGE).then(difference_of(LARGE))
    during = after(halted()).when(halt).then(e.TradingHalted(NOW, "bob", "no more today", request_id))
    after(during).when(halt).then_nothing()
    for state in (before, during):
        settled = after(state).when(accept()).then(e.AdjustmentBooked, e.LotOpened)
        assert (settled.trading_state, settled.trading_state_by) == (TradingState.HALTED, "bob")


def test_a_reduction_stands_again_once_the_differences_are_settled() -> None:
    reduced = given(world(), MARKED).when(ReduceTrading(NOW, "bob", "thin market")).then(e.TradingReduced)
    state = after(reduced).when(LARGE).then(e.DifferenceFound, e.TradingHalted)
    state = (
        after(state).when(accept()).then(e.AdjustmentBooked, e.LotOpened, e.TradingReduced(NOW, "ann", "D1 is settled"))
    )
    assert state.trading_state is TradingState.REDUCING


@pytest.mark.parametrize(
    "numbers", ((D("NaN"), D(1), D(0)), (D(1), D("Infinity"), D(0)), (D(0), D(0), D("NaN")), (D(1), D(-1), D(0)))
)
def test_a_difference_that_is_no_number_is_refused(numbers: tuple[Decimal, Decimal, Decimal]) -> None:
    given(world()).when(ReportDifference(NOW, K.UNKNOWN, "SPY", "0", "?", *numbers)).refused(
        "A difference is of numbers"
    )


# --- splits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "mark", "lots"),
    (
        ("30", "25", [("L-D1-1", D(24), D(25)), ("L-D1-2", D(16), D("26.25"))]),  # four for one
        ("-5", "200", [("L-D1-1", D(3), D(200)), ("L-D1-2", D(2), D(210))]),  # one for two
        ("5", "66.666666667", [("L-D1-1", D(9), D("66.666666667")), ("L-D1-2", D(6), D(70))]),
    ),
)
def test_a_split_keeps_equity_cost_and_every_strategys_part(
    change: str, mark: str, lots: list[tuple[str, Decimal, Decimal]]
) -> None:
    desk = Desk()
    desk.trade("BUY 6 SPY", "100", "x", strategy="s")
    desk.trade("BUY 4 SPY", "105", "y", strategy="t")
    before = desk.state.equity
    desk.do(ReportDifference(NOW, K.CORPORATE_ACTION, "SPY", "10", str(10 + D(change)), D(change)))
    assert lots_of(desk.state) == lots
    assert [lot.strategy for lot in desk.state.lots["SPY"]] == ["s", "t"]
    assert desk.state.strategy_positions == {("s", "SPY"): lots[0][1], ("t", "SPY"): lots[1][1]}
    assert desk.state.marks["SPY"].price == D(mark)
    assert abs(desk.state.equity - before) < D("0.00000001")
    assert (desk.state.realized_pnl, desk.state.consecutive_losses) == (D(0), 0)
    assert sum(lot.cost_basis for lot in desk.state.lots["SPY"]) == D(1020)
    books_balance(desk.state)


def test_a_split_of_a_short_position_keeps_it_short() -> None:
    desk = Desk()
    desk.trade("SELL 10 SPY", "100", "x")
    desk.do(ReportDifference(NOW, K.CORPORATE_ACTION, "SPY", "-10", "-20", D(-10)))
    assert lots_of(desk.state) == [("L-D1-1", D(-20), D(50))]
    books_balance(desk.state)


@pytest.mark.parametrize(("change", "position"), (("-10", {}), ("-12", {"SPY": D(-2)})))
def test_a_corporate_action_that_ends_a_position_or_turns_it_round_is_no_split(
    change: str, position: dict[str, Decimal]
) -> None:
    desk = Desk()
    desk.trade("BUY 10 SPY", "100", "x")
    desk.do(ReportDifference(NOW, K.CORPORATE_ACTION, "SPY", "10", str(10 + D(change)), D(change)))
    assert (desk.state.positions, desk.state.realized_pnl) == (position, D(-1000))
    books_balance(desk.state)


def test_a_corporate_action_in_what_is_not_held_is_booked_like_any_other_difference() -> None:
    desk = Desk()
    desk.do(ReportDifference(NOW, K.CORPORATE_ACTION, "NEW", "0", "3", D(3)))
    assert lots_of(desk.state, "NEW") == [("L-D1", D(3), D(0))]
    books_balance(desk.state)


def test_a_split_that_leaves_a_lot_without_a_share_is_booked_in_one() -> None:
    desk = Desk()
    desk.trade("BUY 0.000000001 SPY", "100", "x")
    desk.trade("BUY 3 SPY", "100", "y")
    desk.do(ReportDifference(NOW, K.CORPORATE_ACTION, "SPY", "3", "0.3", D("-2.7")))
    assert desk.state.positions["SPY"] == D("0.300000001")
    books_balance(desk.state)


# --- money -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ("DIVIDEND", "INTEREST"))
@pytest.mark.parametrize("amount", ("12.5", "-3"))
def test_income_is_profit_and_no_deposit(kind: str, amount: str) -> None:
    state = given(world(deposit="1000")).when(ReportCash(NOW, "m", kind, D(amount), "SPY")).then(e.CashMoved)
    assert (state.income, state.deposits, state.cash) == (D(amount), D(1000), 1000 + D(amount))
    assert (state.equity - state.day.start_equity, state.peak_equity) == (D(amount), max(state.equity, D(1000)))
    books_balance(state)


def test_income_of_nothing_is_refused() -> None:
    given(world()).when(ReportCash(NOW, "m", "DIVIDEND", D(0), "")).refused("income either; found DIVIDEND of 0")


# --- orders that never arrived -----------------------------------------------------------------------------------------------


def absent(seconds: int) -> ReportAbsent:
    when = NOW + MINUTE * seconds / 60
    return ReportAbsent(when, when, "o")


def test_a_young_order_that_never_arrived_is_sent_again_a_few_times() -> None:
    state = given(world(), MARKED, sent("o", "BUY 1 SPY")).when(absent(11)).then(e.OrderSent(absent(11).at, "o", 2))
    state = after(state).when(absent(22)).then(e.OrderSent(absent(22).at, "o", 3))
    reason = "it never reached the broker in 3 attempts, and 29 s later it is not sent again"
    state = after(state).when(absent(29)).then(e.OrderCanceled(absent(29).at, "o", reason))
    assert (state.orders["o"].state, state.working) == (OrderState.CANCELED, {})
    after(state).when(absent(40)).then_nothing()


@pytest.mark.parametrize(
    "before",
    (
        e.TradingHalted(NOW, "ann", "stop"),
        e.TradingReduced(NOW, "ann", "less"),
        e.CancelRequested(NOW, "o", "changed my mind"),
        e.FeedStale(NOW, "bars", "silent"),
        e.BrokerUnreachable(NOW, "trade_updates", "closed"),
        e.SymbolStatusChanged(NOW, "SPY", halted=True, status="H", reason="news"),
    ),
)
def test_an_order_that_would_not_go_out_now_is_not_sent_again(before: e.Event) -> None:
    given(world(), MARKED, sent("o", "BUY 1 SPY"), before).when(absent(11)).then(e.OrderCanceled)


def test_a_recovery_and_an_outage_that_is_just_over_keep_no_order_from_being_sent_again() -> None:
    blocks = e.RecoveryStarted(NOW, 1), e.BrokerUnreachable(NOW, "orders", "timeout")
    given(world(), MARKED, sent("o", "BUY 1 SPY"), blocks).when(absent(11)).then(e.OrderSent)


def test_an_old_order_that_never_arrived_is_taken_back() -> None:
    given(world(), sent("o", "BUY 1 SPY")).when(absent(31)).then(e.OrderCanceled)


@pytest.mark.parametrize("later", (e.OrderSubmitted(NOW, "o", "b"), e.OrderRejected(NOW, "o", "no")))
def test_an_order_that_the_broker_has_spoken_of_is_not_absent(later: e.Event) -> None:
    given(world(), sent("o", "BUY 1 SPY"), later).when(absent(11)).then_nothing()
    given(world()).when(absent(1)).refused("No order 'o' is known here")


def test_an_order_that_was_given_up_and_is_alive_is_canceled_at_the_broker() -> None:
    state = given(world(), sent("o", "BUY 1 SPY")).when(absent(31)).then(e.OrderCanceled)
    late = ReportSubmitted(NOW + MINUTE, NOW, "o", "b")
    reason = "it was canceled here before the broker acknowledged it"
    state = after(state).when(late).then(e.OrderSubmitted(NOW, "o", "b"), e.CancelRequested(NOW, "o", reason))
    assert (state.orders["o"].broker_order_id, state.orders["o"].state) == ("b", OrderState.CANCELED)
    after(state).when(late).then_nothing()
    after(state).when(ReportCanceled(NOW, NOW, "o", "as asked")).then_nothing()
    fill = ReportFill(NOW, NOW, "o", "x", "SPY", BUY, D(1), D(100))
    state = after(state).when(fill).then(e.OrderFilled, e.OrderAnomalyFound, e.LotOpened)
    assert state.positions == {"SPY": D(1)}


# --- what the broker says in unknown words, and twice ------------------------------------------------------------------------


def test_a_status_that_nobody_knows_is_told_once_and_changes_nothing_else() -> None:
    said = ReportUnknownStatus(NOW, NOW, "o", "held_for_review")
    detail = "the broker says 'held_for_review' of it, which this version does not know"
    anomaly = e.OrderAnomalyFound(NOW, "o", Anomaly.UNKNOWN_STATUS, detail, "held_for_review")
    state = given(world(), working("o", "BUY 1 SPY")).when(said).then(anomaly)
    after(state).when(said).then_nothing()
    assert state.orders["o"].state is OrderState.SUBMITTED
    after(state).when(ReportUnknownStatus(NOW, NOW, "o", "another")).then(e.OrderAnomalyFound)
    after(state).when(ReportUnknownStatus(NOW, NOW, "nobody", "x")).refused("No order")


def told(name: str, quantity: str, upto: str, order: str = "o") -> ReportFill:
    return ReportFill(NOW, NOW, order, name, "SPY", BUY, D(quantity), D(100), cumulative_quantity=D(upto))


def test_the_same_shares_under_another_name_change_nothing() -> None:
    state = given(world(), working("o", "BUY 10 SPY")).when(told("x", "4", "4")).then(e.OrderFilled, e.LotOpened)
    after(state).when(told("activity-1", "4", "4")).then_nothing()
    state = after(state).when(told("y", "2", "6")).then(e.OrderFilled, e.LotOpened)
    after(state).when(told("all at once", "6", "6")).then_nothing()
    after(state).when(told("a part of them", "1", "3")).then_nothing()
    state = after(state).when(told("activity-3", "4", "10")).then(e.OrderFilled, e.LotOpened)
    assert (state.orders["o"].filled_quantity, state.orders["o"].state) == (D(10), OrderState.FILLED)


def test_shares_told_out_of_order_leave_the_gap_to_be_filled() -> None:
    state = given(world(), working("o", "BUY 10 SPY")).when(told("y", "2", "6")).then(e.OrderFilled, e.LotOpened)
    after(state).when(told("y again", "2", "6")).then_nothing()
    state = after(state).when(told("x", "4", "4")).then(e.OrderFilled, e.LotOpened)
    assert state.orders["o"].filled_quantity == D(6)


def test_without_the_brokers_count_two_executions_are_two() -> None:
    plain = ReportFill(NOW, NOW, "o", "x", "SPY", BUY, D(4), D(100))
    state = given(world(), working("o", "BUY 10 SPY")).when(plain).then(e.OrderFilled, e.LotOpened)
    state = after(state).when(told("y", "4", "4")).then(e.OrderFilled, e.LotOpened)
    assert state.orders["o"].filled_quantity == D(8)


def test_a_bust_forgets_what_was_filled_so_that_it_may_be_filled_again() -> None:
    state = given(world(), working("o", "BUY 10 SPY")).when(told("x", "4", "4")).then(e.OrderFilled, e.LotOpened)
    bust = ReportBust(NOW, NOW, "o", "x", "SPY", BUY, D(4), D(100))
    state = after(state).when(bust).then(e.ExecutionBusted, e.OrderAnomalyFound, e.LotClosed)
    assert state.orders["o"].spans == []
    state = after(state).when(told("z", "4", "4")).then(e.OrderFilled, e.LotOpened)
    assert (state.orders["o"].filled_quantity, state.positions) == (D(4), {"SPY": D(4)})


@pytest.mark.parametrize("quantity", ("3", "4", "5"))
def test_a_correction_leaves_the_brokers_count_where_it_was(quantity: str) -> None:
    state = given(world(), working("o", "BUY 10 SPY")).when(told("x", "4", "4")).then(e.OrderFilled, e.LotOpened)
    fix = after(state).when(ReportCorrection(NOW, NOW, "o", "x", "y", D(quantity), D(101)))
    state = fix.then(*(type(event) for event in fix.events))
    after(state).when(told("activity of x", "4", "4")).then_nothing()
    assert state.positions == {"SPY": D(quantity)}
    state = after(state).when(told("z", "2", "6")).then(e.OrderFilled, e.LotOpened)
    assert state.orders["o"].spans == [(D(0), D(4), "y"), (D(4), D(6), "z")]


def test_every_decision_about_the_truth_is_taken_again_from_the_log() -> None:
    desk = Desk()
    order = desk.order("BUY 2 SPY")
    later = NOW + MINUTE / 6
    desk.do(
        AttachAccount(NOW, "alpaca", "paper", "PA1"),
        StartRecovery(NOW),
        ReportUnreachable(NOW, "orders", "timeout"),
        ReportAbsent(later, later, order),
        ReportReachable(later, "orders", "answers"),
        TakeRecoveryStep(later, 7, "limits", passed=True, is_last=True, detail="fine"),
        ReportSubmitted(later, later, order, "b-1"),
        LARGE,
        SMALL,
        accept(),
        ReportDifference(later, K.UNKNOWN, "QQQ", "0", "2", D(2), D(50), D(100)),
        accept("D3"),
        ReportDifference(later, K.CORPORATE_ACTION, "SPY", "10", "5", D(-5)),
        ReportCash(later, "m", "DIVIDEND", D("1.25"), "SPY"),
        ReportBar(later + MINUTE, bar("SPY 14:30 210")),
        CancelOrder(later + MINUTE, order, "enough"),
        ReportUnusable(later, "trade_updates", "{", "no JSON"),
        EndRun(later, "over"),
    )
    books_balance(desk.state)
    assert desk.state.equity == D(100002) + D("0.75") + 5 * D(10) + 2 * desk.state.marks["QQQ"].price
