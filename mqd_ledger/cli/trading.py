"""What a run says before, while and after it trades, and how it is stopped."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from mqd_ledger.app import Feed, Report, announcement
from mqd_ledger.cli import output
from mqd_ledger.cli.options import ledger_words
from mqd_ledger.events import StrategySpec
from mqd_ledger.runs import Controls, Outcome, strategies_loader
from mqd_ledger.settings import Settings
from mqd_ledger.values import plain

SYNTHETIC = "SYNTHETIC BARS: made up by this program, not the market. What they earn means nothing."
QUESTION = "select symbol, sum(realized_pnl) from pnl_daily group by all"
LOSSES = ("daily_loss_max", "weekly_loss_max")
# SIGBREAK is Windows' own: Ctrl-Break, and how one process asks another to end.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


# --- before -----------------------------------------------------------------------------------------------------------


def specs_of(settings: Settings) -> tuple[StrategySpec, ...]:
    """The strategies with all their parameters; one that cannot be had is an error now, before a ledger is made."""
    specs, _ = strategies_loader([(one.name, one.parameters) for one in settings.strategies])()
    return specs


def announce(mode: str, settings: Settings, specs: tuple[StrategySpec, ...], feed: Feed, ledger: str) -> None:
    pairs = [("mode", announcement(mode)), ("ledger", ledger)]
    for place, sentence in enumerate(feed.stated):
        pairs.append(("" if place else "bars", sentence.removeprefix("bars: ")))
    for spec in specs:
        given = {name: value for name, value in spec.parameters.items() if value not in (None, [])}
        parameters = ", ".join(f"{name} {_parameter(value)}" for name, value in given.items())
        title = spec.source if spec.source.endswith(spec.strategy) else f"{spec.strategy}: {spec.source}"
        pairs.append(("strategy", f"{title} ({parameters})" if parameters else title))
    limits = _limits(settings)
    pairs += [("" if start else "limits", ", ".join(limits[start : start + 2])) for start in range(0, len(limits), 2)]
    if feed.source.kind == "synthetic":
        output.shout(SYNTHETIC)
    output.facts(pairs)
    click.echo()
    sys.stdout.flush()  # into a file or a pipe it would otherwise come after the run


def _parameter(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _limits(settings: Settings) -> list[str]:
    """The limits that hold, and that a loss has none, each with the name that --set takes after `risk.`."""
    limits = settings.policy.limits
    in_force = {name: getattr(limits, name) for name in limits.__struct_fields__}
    return [
        f"{name} {'none' if value is None else output.text(value)}"
        for name, value in in_force.items()
        if value not in {None, ()} or name in LOSSES
    ]


# --- meanwhile --------------------------------------------------------------------------------------------------------


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and the system's request to end let the current turn finish; the second one does not wait."""

    def asked(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        # The handler may interrupt the very thread that holds the event's lock while it waits for the next bar.
        threading.Thread(target=stop.set, daemon=True).start()

    before = {number: signal.signal(number, asked) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress(controls: Controls) -> Iterator[Callable[[], None]]:
    """A line that counts bars, where somebody is looking; what is yielded begins it, once all else has been said."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} bars"), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("bars", total=None)
    controls.progress = lambda bars: bar.update(task, completed=bars)
    try:
        yield bar.start
    finally:
        bar.stop()


# --- after ------------------------------------------------------------------------------------------------------------


def print_run(outcome: Outcome, feed: Feed, path: Path, *, stopped: bool) -> None:
    state = outcome.state
    _news(outcome, feed)
    pairs = [
        ("bars played now", f"{outcome.bars:,}"),
        *([("bars rejected", f"{state.rejected_total:,}")] if state.rejected_total else []),
        ("orders", f"{state.orders_total:,}, denied {state.denied_total:,}, fills {state.fills_total:,}"),
        ("realized P&L", output.money(state.realized_pnl)),
        ("unrealized P&L", output.money(state.unrealized_pnl)),
        ("cash", output.money(state.cash)),
        ("equity", output.money(state.equity)),
        ("trading state", state.trading_state.value),
        ("events", f"{outcome.head_position:,}"),
        ("log hash", outcome.log_hash),
    ]
    output.facts(pairs, "The account now" if state.bars_total > outcome.bars else "")
    click.echo()
    if stopped:
        output.say("Stopped as asked. Nothing is lost: the same command goes on from here.")
    output.heading("Next:")
    where = ledger_words(path)
    order = next(reversed(state.orders), None)
    if order is not None:
        click.echo(f"  mqd-ledger why {order}{where}")
    click.echo(f'  mqd-ledger sql "{QUESTION}"{where}')


def print_run_json(outcome: Outcome, feed: Feed, path: Path, *, stopped: bool, mode: str = "paper") -> None:
    state = outcome.state
    output.print_json(
        {
            "mode": mode,
            "ledger": path,
            **_common_json(outcome, feed, stopped=stopped),
            "orders": state.orders_total,
            "fills": state.fills_total,
            "denied": state.denied_total,
            "realized_pnl": state.realized_pnl,
            "unrealized_pnl": state.unrealized_pnl,
            "commissions": state.commissions,
            "cash": state.cash,
            "equity": state.equity,
            "trading_state": state.trading_state,
        }
    )


def print_backtest(report: Report, outcome: Outcome, feed: Feed, out: Path | None, *, stopped: bool) -> None:
    _news(outcome, feed)
    rate = f" ({report.bars / report.seconds:,.0f} bars/s)" if report.seconds > 0 else ""
    pairs = [
        ("bars", f"{report.bars:,} in {plain(report.seconds)} s{rate}"),
        *([("bars rejected", f"{outcome.state.rejected_total:,}")] if outcome.state.rejected_total else []),
        ("orders", f"{report.orders:,}, denied {report.denied:,}, fills {report.fills:,}"),
        ("realized P&L", output.money(report.realized_pnl)),
        ("unrealized P&L", output.money(report.unrealized_pnl)),
        ("commissions", output.money(report.commissions)),
        ("cash", output.money(report.final_cash)),
        ("equity", output.money(report.final_equity)),
        ("max drawdown", output.percent(report.max_drawdown)),
        ("log hash", report.log_hash),
    ]
    output.facts(pairs)
    if stopped:
        output.say("Stopped as asked, before the bars came to their end: these are the figures up to there.")
    if out is not None:
        click.echo()
        output.heading("Next:")
        click.echo(f"  mqd-ledger orders{ledger_words(out)}")


def print_backtest_json(report: Report, outcome: Outcome, feed: Feed, out: Path | None, *, stopped: bool) -> None:
    figures = {name: value for name, value in report._asdict().items() if name not in {"bars", "log_hash"}}
    common = _common_json(outcome, feed, stopped=stopped)
    output.print_json({"mode": "backtest", "ledger": out, **common, "bars": report.bars, **figures})


def _news(outcome: Outcome, feed: Feed) -> None:
    for sentence in outcome.news:
        output.say(sentence)
    if outcome.resumed_at:
        output.say(f"Went on after event {outcome.resumed_at:,}, where the record ended.")
    if feed.source.kind == "synthetic":
        output.shout(SYNTHETIC)


def _common_json(outcome: Outcome, feed: Feed, *, stopped: bool) -> dict[str, Any]:
    source = feed.source
    return {
        "source": {"kind": source.kind, "name": source.name, "sha256": source.sha256},
        "synthetic": source.kind == "synthetic",
        "stated": feed.stated,
        "news": outcome.news,
        "finished": outcome.finished,
        "stopped": stopped,
        "resumed_at": outcome.resumed_at,
        "bars": outcome.bars,
        "bars_rejected": outcome.state.rejected_total,
        "events": outcome.head_position,
        "log_hash": outcome.log_hash,
    }
