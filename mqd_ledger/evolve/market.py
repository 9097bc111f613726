"""Runs, bars, quotes, the feed and strategies."""

from mqd_ledger import events as e
from mqd_ledger.evolve.money import equity_changed
from mqd_ledger.evolve.periods import start_day_again
from mqd_ledger.sessions import closes_at
from mqd_ledger.state import Mark, State
from mqd_ledger.values import OrderType, Side, Symbol

SESSION = "session"  # the block that stands from its ending to the next one's opening


def ledger_created(state: State, event: e.LedgerCreated) -> None:
    state.ledger_id = event.ledger_id


def run_started(state: State, event: e.RunStarted) -> None:
    if state.run is not None:
        state.last_numbers[state.run.run] = state.orders_requested
    state.run, state.run_is_open, state.policy = event, True, event.policy
    state.feed_items, state.orders_requested = 0, state.last_numbers.get(event.run, 0)
    state.stopped_strategies = {}
    start_day_again(state, event.occurred_at)


def run_ended(state: State, _event: e.RunEnded) -> None:
    state.run_is_open = False


def bar_closed(state: State, event: e.BarClosed) -> None:
    bar = event.bar
    symbol = bar.symbol
    held = state.positions.get(symbol)
    if held is not None:
        state.equity += held * (bar.close - state.marks[symbol].price)
        equity_changed(state)
    state.marks[symbol] = Mark(bar.close, event.occurred_at)
    state.last_bars[symbol, bar.interval] = bar.start_at
    state.feed_items += 1
    state.bars_total += 1
    if symbol in state.working:
        for order in state.working[symbol].values():
            if order.order_type is OrderType.STOP_LIMIT and order.triggered_at is None and order.meets(bar):
                assert order.stop_price is not None
                if bar.high >= order.stop_price if order.side is Side.BUY else bar.low <= order.stop_price:
                    order.triggered_at = bar.start_at


def bar_rejected(state: State, _event: e.BarRejected) -> None:
    state.feed_items += 1
    state.rejected_total += 1


def strategy_stopped(state: State, event: e.StrategyStopped) -> None:
    state.stopped_strategies[event.strategy] = event.error


def bar_corrected(state: State, event: e.BarCorrected) -> None:
    """Only of the latest bar the close is still the mark."""
    bar = event.bar
    if state.last_bars.get((bar.symbol, bar.interval)) == bar.start_at:
        mark = state.marks[bar.symbol]
        if mark.at <= closes_at(bar):
            _mark(state, bar.symbol, Mark(bar.close, mark.at))


def quote_taken(state: State, event: e.QuoteTaken) -> None:
    _mark(state, event.symbol, Mark((event.bid + event.ask) / 2, event.occurred_at))


def _mark(state: State, symbol: Symbol, mark: Mark) -> None:
    held = state.positions.get(symbol)
    if held is not None:
        state.equity += held * (mark.price - state.marks[symbol].price)
        equity_changed(state)
    state.marks[symbol] = mark


def symbol_status_changed(state: State, event: e.SymbolStatusChanged) -> None:
    if event.halted:
        state.halted_symbols[event.symbol] = f"{event.status}: {event.reason}"
    else:
        state.halted_symbols.pop(event.symbol, None)


def feed_stale(state: State, event: e.FeedStale) -> None:
    state.blocks[f"feed {event.feed}"] = event.reason


def feed_recovered(state: State, event: e.FeedRecovered) -> None:
    state.blocks.pop(f"feed {event.feed}", None)


def session_opened(state: State, event: e.SessionOpened) -> None:
    state.session = event.session
    state.blocks.pop(SESSION, None)


def session_ending(state: State, event: e.SessionEnding) -> None:
    state.blocks[SESSION] = f"{event.session} is ending: {event.policy}"


def session_closed(state: State, _event: e.SessionClosed) -> None:
    state.session = ""
    state.blocks.pop(SESSION, None)
