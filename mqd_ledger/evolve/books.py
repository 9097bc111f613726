"""Lots, cash and fees."""

from mqd_ledger import events as e
from mqd_ledger.evolve.money import equity_changed, hold, pay, realize
from mqd_ledger.lots import apply_entry
from mqd_ledger.state import Execution, Mark, State
from mqd_ledger.values import QUANTITY_STEP, ZERO, DifferenceKind, Money, Price, Quantity

INCOME = ("DIVIDEND", "INTEREST")  # cash movements that are profit; all others are money put in or taken out


def _enter(state: State, entry: e.LotEvent, signed_quantity: Quantity) -> Execution | None:
    """Take an entry into the lots and its strategy's holding; the execution that caused it, if it is still remembered."""
    lots = state.lots.setdefault(entry.symbol, [])
    apply_entry(lots, entry)
    if not lots:
        del state.lots[entry.symbol]
    key = (entry.strategy, entry.symbol)
    held = state.strategy_positions.get(key, ZERO) + signed_quantity
    if held:
        state.strategy_positions[key] = held
    else:
        del state.strategy_positions[key]
    return state.executions.get(entry.execution_id)


def lot_opened(state: State, event: e.LotOpened) -> None:
    execution = _enter(state, event, event.quantity)
    if execution is not None:
        execution.opened += event.quantity


def lot_closed(state: State, event: e.LotClosed) -> None:
    execution = _enter(state, event, -event.quantity)
    if execution is not None:
        execution.closed.append(event)
    realize(state, event.realized_pnl)
    if event.realized_pnl < 0:
        state.consecutive_losses += 1
    elif event.realized_pnl > 0:
        state.consecutive_losses = 0


def lot_reopened(state: State, event: e.LotReopened) -> None:
    _enter(state, event, event.quantity)
    realize(state, -event.realized_pnl)


def cash_moved(state: State, event: e.CashMoved) -> None:
    state.movements.add(event.movement_id)
    pay(state, -event.amount)
    if event.kind in INCOME:
        state.income += event.amount
        equity_changed(state)
        return
    _rebase(state, event.amount)


def _rebase(state: State, amount: Money) -> None:
    """Money in or out is neither profit nor loss: the day, the week and the peak begin that much higher or lower."""
    state.deposits += amount
    state.peak_equity += amount
    state.low_equity = state.peak_equity  # a fall weighs more or less from here: look again
    state.day.start_equity += amount
    state.week.start_equity += amount


def fee_charged(state: State, event: e.FeeCharged) -> None:
    state.charges.add(event.fee_id)
    pay(state, event.amount)
    state.fees += event.amount
    equity_changed(state)


def is_split(kind: DifferenceKind, held: Quantity, change: Quantity, price: Price) -> bool:
    """Whether shares were split (or put together), not bought: nothing is paid, and the position neither ends nor turns round."""
    return kind is DifferenceKind.CORPORATE_ACTION and not price and held * (held + change) > 0


def split_price(price: Price, held: Quantity, change: Quantity) -> Price:
    """The same worth over another number of shares."""
    return (price * held / (held + change)).quantize(QUANTITY_STEP)


def cash_moved_by(quantity: Quantity, price: Price, amount: Money) -> Money:
    """What cash changes by where shares are booked at a price, and `amount` beside them as money in or out.

    Shares that came without being paid for are booked as money put in that bought them: the two leave cash as it was.
    """
    return amount - quantity * price


def worth_of(quantity: Quantity, price: Price, amount: Money) -> Money:
    """How much a difference is about: the shares or the cash, whichever is more."""
    return max(abs(quantity * price), abs(cash_moved_by(quantity, price, amount)))


def adjustment_booked(state: State, event: e.AdjustmentBooked) -> None:
    """Shares come or go at the price they are booked at; cash as money in or out, which is neither profit nor loss."""
    state.requests.add(event.request_id)
    difference = state.differences.pop(event.difference_id)
    before = state.positions.get(event.symbol, ZERO)
    if event.quantity:
        if is_split(difference.kind, before, event.quantity, event.price):
            mark = state.marks[event.symbol]
            price = split_price(mark.price, before, event.quantity)
            state.marks[event.symbol] = Mark(price, mark.at)
            state.equity += before * (price - mark.price)
        hold(state, event.symbol, event.quantity, event.price, event.occurred_at)
        equity_changed(state)
    if event.amount:
        pay(state, -event.amount)
        _rebase(state, event.amount)
