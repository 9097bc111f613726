"""What several kinds of events do to cash, equity and holdings."""

from datetime import datetime

from mqd_ledger.state import Mark, State
from mqd_ledger.values import ZERO, Money, Price, Quantity, Symbol


def equity_changed(state: State) -> None:
    """Only a new low since the peak can be a new largest drawdown; all else costs no division."""
    equity = state.equity
    if equity > state.peak_equity:
        state.peak_equity = state.low_equity = equity
    elif equity < state.low_equity:
        state.low_equity = equity
        if state.peak_equity > 0:
            state.max_drawdown = max(state.max_drawdown, (state.peak_equity - equity) / state.peak_equity)


def hold(state: State, symbol: Symbol, signed_quantity: Quantity, price: Price, at: datetime) -> None:
    """Shares came (or went) for cash at `price`; between trade and mark lies unrealized profit."""
    mark = state.marks.setdefault(symbol, Mark(price, at))
    held = state.positions.get(symbol, ZERO) + signed_quantity
    if held:
        state.positions[symbol] = held
    else:
        del state.positions[symbol]
    state.cash -= signed_quantity * price
    state.equity += signed_quantity * (mark.price - price)


def pay(state: State, amount: Money) -> None:
    state.cash -= amount
    state.equity -= amount


def realize(state: State, amount: Money) -> None:
    state.realized_pnl += amount
    state.day.realized_pnl += amount
    state.week.realized_pnl += amount
