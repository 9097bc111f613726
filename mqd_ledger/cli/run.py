"""The verbs that trade: `run --paper` on a ledger that lives on, `backtest` on one of its own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mqd_ledger.cli.options import (
    FILE,
    config_option,
    examples,
    json_option,
    ledger_option,
    pace,
    pair,
    reading_bars,
    set_option,
    settings_of,
)
from mqd_ledger.errors import BadInput

if TYPE_CHECKING:  # what it takes to trade is imported when it is done
    from datetime import datetime

    from mqd_ledger.app import Feed
    from mqd_ledger.runs import Outcome
    from mqd_ledger.settings import Settings
    from mqd_ledger.state import State

SAMPLE = Path("sample")
bars_option = click.option("--bars", type=FILE, metavar="FILE", help="CSV or Parquet; `sample` plays synthetic bars.")
strategy_option = click.option(
    "--strategy", metavar="NAME", help="A built-in strategy, or your own as path/to/file.py:Class."
)
param_option = click.option(
    "--param", "params", multiple=True, metavar="KEY=VALUE", help="A parameter of the strategy. Can be given again."
)


@click.command(
    "run",
    epilog=examples(
        "run --paper",
        "run --paper --bars SPY_1min.csv --zone America/New_York --speed 60",
        "run --paper --bars spy.parquet --strategy mine.py:Breakout --ledger spy.ledger",
    ),
)
@click.option("--paper", is_flag=True, help="Simulated money. The only way to trade in this version.")
@bars_option
@reading_bars
@click.option("--speed", metavar="max|N", help="As fast as can be (the default), or N times faster than the clock.")
@strategy_option
@param_option
@config_option
@set_option
@ledger_option
@json_option
def run(  # noqa: PLR0913  one argument for each option
    *,
    paper: bool,
    bars: Path | None,
    symbol: str | None,
    zone: str | None,
    strict: bool,
    speed: str | None,
    strategy: str | None,
    params: tuple[str, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    ledger: Path | None,
    as_json: bool,
) -> None:
    """Trade on paper: simulated money over bars.

    Without --bars it plays synthetic bars, so that it works on a machine that has none. Stop it with Ctrl-C, or lose it to a
    power cut: the same command goes on where its record ends. Ctrl-C twice ends it at once.
    """
    if not paper:
        raise BadInput("Give --paper. This version trades simulated money only; live trading is not in it yet.")
    from mqd_ledger import app
    from mqd_ledger.cli import trading
    from mqd_ledger.runs import Controls

    given = [*overrides, *([f"speed={speed}"] if speed is not None else [])]
    settings = _with_strategy(settings_of("paper", config, given), strategy, params)
    path = settings.ledger if ledger is None else ledger
    controls = Controls(pace=pace(settings.speed))
    file = None if bars in {None, SAMPLE} else _file_feed(settings, "paper", bars, symbol, zone, strict)

    specs = trading.specs_of(settings)

    def make_feed(state: "State") -> "Feed":
        feed = app.feed_of_sample(settings, state) if file is None else file
        if not as_json:
            trading.announce("paper", settings, specs, feed, str(path))
        return feed

    with trading.stopping(controls.stop), trading.progress(controls):
        outcome, feed = app.run_paper(settings, path, make_feed, controls)
    show = trading.print_run_json if as_json else trading.print_run
    show(outcome, feed, path, is_default=path == settings_of("paper").ledger, stopped=_was_stopped(controls, outcome))


@click.command(
    "backtest",
    epilog=examples(
        "backtest --bars sample",
        "backtest --bars spy.parquet --param lookback=30 --from 2024-01-02 --to 2024-06-28",
        "backtest --bars spy.parquet --out spy-backtest.ledger --json",
    ),
)
@bars_option
@reading_bars
@strategy_option
@param_option
@click.option("--cash", metavar="N", help="Dollars at the start. Default: the settings' own, 100000.")
@click.option("--from", "from_text", metavar="TIME", help="First bar: a time with zone, or a date (UTC).")
@click.option("--to", "to_text", metavar="TIME", help="Bars before this time, or to the end of this date (UTC).")
@click.option("--out", type=FILE, metavar="LEDGER", help="Keep the log as a new ledger: every verb reads it.")
@config_option
@set_option
@json_option
def backtest(  # noqa: PLR0913  one argument for each option
    *,
    bars: Path | None,
    symbol: str | None,
    zone: str | None,
    strict: bool,
    strategy: str | None,
    params: tuple[str, ...],
    cash: str | None,
    from_text: str | None,
    to_text: str | None,
    out: Path | None,
    config: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a strategy over past bars and report what came of it.

    The same bars, settings and code give the same log, to the last bit of its hash, on every machine.
    """
    if bars is None:
        raise BadInput("Give --bars FILE. Without bars at hand, `--bars sample` plays synthetic ones.")
    if out is not None and out.exists():
        raise BadInput(f"{out} exists already, and a backtest starts from nothing. Remove it or choose another --out.")
    from mqd_ledger import app
    from mqd_ledger.cli import trading
    from mqd_ledger.runs import Controls
    from mqd_ledger.state import State

    given = [*overrides, *([f"cash={cash}"] if cash is not None else [])]
    settings = _with_strategy(settings_of("backtest", config, given), strategy, params)
    start, end = _moment("--from", from_text), _moment("--to", to_text)
    if bars == SAMPLE:
        if start is not None or end is not None:
            raise BadInput("--from and --to pick from a file; how long the sample is says --set sample.sessions=10.")
        feed = app.feed_of_sample(settings, State())
    else:
        feed = _file_feed(settings, "backtest", bars, symbol, zone, strict, start, end)
    specs = trading.specs_of(settings)
    if not as_json:
        trading.announce("backtest", settings, specs, feed, str(out) if out else "none; --out LEDGER keeps it")
    controls = Controls()
    with trading.stopping(controls.stop), trading.progress(controls):
        report, outcome = app.backtest(settings, feed, out, controls)
    show = trading.print_backtest_json if as_json else trading.print_backtest
    show(report, outcome, feed, out, stopped=_was_stopped(controls, outcome))


def _was_stopped(controls: Any, outcome: "Outcome") -> bool:
    return controls.stop.is_set() and not outcome.finished


def _file_feed(
    settings: "Settings",
    mode: str,
    bars: Path | None,
    symbol: str | None,
    zone: str | None,
    strict: bool,
    start: "datetime | None" = None,
    end: "datetime | None" = None,
) -> "Feed":
    """The feed of a file, found usable before any ledger is made for it."""
    from mqd_ledger import app

    assert bars is not None
    feed = app.feed_of_file(bars, symbol=symbol, zone=zone, strict=strict, start=start, end=end)
    app.plan_of(mode, settings, feed)
    return feed


def _with_strategy(settings: "Settings", strategy: str | None, params: Sequence[str]) -> "Settings":
    """--strategy takes the place of the settings' strategies; --param alone changes the only one there is."""
    from mqd_ledger.settings import StrategySettings

    given = dict(pair("--param", param) for param in params)
    if strategy is not None:
        chosen = StrategySettings(name=strategy, parameters=given)
    elif not given:
        return settings
    elif len(settings.strategies) == 1:
        (only,) = settings.strategies
        chosen = StrategySettings(name=only.name, parameters={**only.parameters, **given})
    else:
        names = ", ".join(one.name for one in settings.strategies) or "none"
        raise BadInput(f"--param: the settings name several strategies or none ({names}); say which with --strategy.")
    return settings.model_copy(update={"strategies": (chosen,)})


def _moment(option: str, text: str | None) -> "datetime | None":
    """A time with its zone, or a date: its first instant for --from, its last for --to."""
    if text is None:
        return None
    from datetime import UTC, date, datetime, time, timedelta

    from mqd_ledger.cli.options import instant

    parse: Callable[[str], date] = date.fromisoformat
    try:
        day = parse(text.strip())
    except ValueError:
        return instant(option, text)
    return datetime.combine(day, time(), UTC) + timedelta(days=1 if option == "--to" else 0)
