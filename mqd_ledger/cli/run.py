"""The verbs that trade: `run --paper` on a ledger that lives on, `backtest` on one of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from mqd_ledger.cli.options import (
    FILE,
    SYMBOLS_NEED_A_BROKER,
    config_option,
    examples,
    json_option,
    ledger_option,
    moment,
    pace,
    pair,
    reading_bars,
    require_folder,
    says,
    set_option,
    settings_of,
    writable_ledger,
)
from mqd_ledger.errors import BadInput

if TYPE_CHECKING:  # what it takes to trade is imported when it is done
    from datetime import datetime

    from mqd_ledger.app import Feed
    from mqd_ledger.settings import Settings
    from mqd_ledger.state import State

SAMPLE = Path("sample")


class Reading(NamedTuple):
    """What the options say about a file of bars."""

    symbol: str | None
    zone: str | None
    strict: bool
    start: "datetime | None" = None
    end: "datetime | None" = None


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
        "run --paper --broker loopback --ledger loopback.ledger",
        "run --paper --broker alpaca --symbols SPY,QQQ --ledger alpaca.ledger",
    ),
)
@click.option("--paper", is_flag=True, help="Simulated money.")
@click.option(
    "--live",
    is_flag=True,
    help="Real money. Needs a live key, live_trading: true in the file of --config, and symbols; asks you.",
)
@click.option(
    "--broker",
    metavar="NAME",
    help="simulated (bars of a file), loopback (a made-up Alpaca here), or alpaca. Default: the settings' own.",
)
@click.option("--symbols", metavar="LIST", help="With a broker: what to trade, as SPY,QQQ.")
@click.option("--loopback-url", metavar="URL", help="A loopback server that runs already; else one is started.")
@bars_option
@reading_bars
@click.option(
    "--speed",
    metavar="max|N",
    help="As fast as can be (the default), or N times faster than the clock; with --broker loopback a number, by default 60.",
)
@strategy_option
@param_option
@config_option
@set_option
@ledger_option
@json_option
def run(  # noqa: PLR0913  one argument for each option
    *,
    paper: bool,
    live: bool,
    broker: str | None,
    symbols: str | None,
    loopback_url: str | None,
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
    """Trade: on bars of a file, or with a broker.

    Without --bars and --broker it plays synthetic bars, so that it works on a machine that has none. Stop it with Ctrl-C, or lose
    it to a power cut: the same command goes on where its record ends. Ctrl-C twice ends it at once.
    """
    if paper == live:
        raise BadInput("Give --paper (simulated money) or --live (real money), one of the two.")
    environment = "live" if live else "paper"
    given = [*overrides, *_given(broker=broker, symbols=symbols)]
    settings = settings_of(environment, config, given)
    if speed is not None:
        settings = settings_of(environment, config, [*given, _speed(speed, settings.broker, loopback_url)])
    settings = _with_strategy(settings, strategy, params)
    path = writable_ledger(ledger, settings.ledger)
    reading = Reading(symbol, zone, strict)
    if settings.broker != "simulated":
        from mqd_ledger.cli import desk

        chosen = says("symbols", config, given)
        desk.run(settings, path, desk.Wish(live, loopback_url, _market(bars, reading), chosen), as_json=as_json)
        return
    if live or loopback_url is not None:
        raise BadInput("--live and --loopback-url need a broker: give --broker alpaca, or --broker loopback.")
    if symbols is not None:
        raise BadInput(SYMBOLS_NEED_A_BROKER.format(symbols))
    _run_simulated(settings, path, bars, reading, as_json=as_json)


def _given(**options: str | None) -> "list[str]":
    """Options that are settings, in the words of --set."""
    return [f"{name}={value}" for name, value in options.items() if value is not None]


def _speed(speed: str, broker: str, loopback_url: str | None) -> str:
    """The setting that --speed means: whose pace it is depends on who plays the bars."""
    if broker == "alpaca":
        raise BadInput(f"--speed {speed}: the market itself sets the pace with --broker alpaca. Leave --speed away.")
    if loopback_url is not None:
        raise BadInput(
            f"--speed {speed}: the server at {loopback_url} plays at a pace of its own. Give --speed to the `mqd-ledger loopback` "
            "that starts it."
        )
    return f"{'loopback.speed' if broker == 'loopback' else 'speed'}={speed}"


def _market(bars: Path | None, reading: Reading) -> "list[str]":
    """Which bars a loopback server of our own is to play, in the words of its own options."""
    options = {"--bars": bars, "--symbol": reading.symbol, "--zone": reading.zone}
    words = [word for option, value in options.items() if value is not None for word in (option, str(value))]
    return [*words, *(["--strict"] if reading.strict else [])]


def _run_simulated(settings: "Settings", path: Path, bars: Path | None, reading: Reading, *, as_json: bool) -> None:
    from mqd_ledger import app
    from mqd_ledger.cli import output, trading
    from mqd_ledger.live_safety import require_books
    from mqd_ledger.runs import Controls

    require_books(path, "paper")
    controls = Controls(pace=pace(settings.speed))
    file = _file_feed(settings, "paper", bars, reading)
    with output.json_alone(wanted=as_json):
        specs = trading.specs_of(settings)

    def make_feed(state: "State") -> "Feed":
        feed = app.feed_of_sample(settings, state) if file is None else file
        if not as_json:
            trading.announce("paper", settings, specs, feed, str(path))
        begin_progress()
        return feed

    alone = output.json_alone(wanted=as_json)
    with trading.stopping(controls.stop), alone, trading.progress(controls) as begin_progress:
        outcome, feed = app.run_paper(settings, path, make_feed, controls)
    stopped = controls.stop.is_set() and not outcome.finished
    if as_json:
        trading.print_run_json(outcome, feed, path, stopped=stopped)
    else:
        trading.print_run(outcome, feed, path, stopped=stopped)


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
    if out is not None:
        require_folder("--out", out)
    from mqd_ledger import app
    from mqd_ledger.cli import output, trading
    from mqd_ledger.runs import Controls
    from mqd_ledger.state import State

    given = [*overrides, *([f"cash={cash}"] if cash is not None else [])]
    settings = _with_strategy(settings_of("backtest", config, given), strategy, params)
    reading = Reading(symbol, zone, strict, *_part(from_text, to_text))
    feed = _file_feed(settings, "backtest", bars, reading) or app.feed_of_sample(settings, State())
    with output.json_alone(wanted=as_json):
        specs = trading.specs_of(settings)
    if not as_json:
        trading.announce("backtest", settings, specs, feed, str(out) if out else "none; --out LEDGER keeps it")
    controls = Controls()
    alone = output.json_alone(wanted=as_json)
    with trading.stopping(controls.stop), alone, trading.progress(controls) as begin_progress:
        begin_progress()
        report, outcome = app.backtest(settings, feed, out, controls)
    show = trading.print_backtest_json if as_json else trading.print_backtest
    show(report, outcome, feed, out, stopped=controls.stop.is_set() and not outcome.finished)


def _part(from_text: str | None, to_text: str | None) -> "tuple[datetime | None, datetime | None]":
    """The first instant that is wanted, and the end of what is."""
    start = None if from_text is None else moment("--from", from_text)
    return start, None if to_text is None else moment("--to", to_text, is_end=True)


def _file_feed(settings: "Settings", mode: str, bars: Path | None, reading: Reading) -> "Feed | None":
    """The feed of a file, found usable before any ledger is made for it; None for the synthetic sample."""
    if bars is None or bars == SAMPLE:
        if any(reading):
            raise BadInput(
                "--symbol, --zone, --strict, --from and --to are about a file of bars; the synthetic sample has settings of its "
                "own, such as --set sample.sessions=10."
            )
        return None
    from mqd_ledger import app

    feed = app.feed_of_file(bars, **reading._asdict())
    app.plan_of(mode, settings, feed)
    return feed


def _with_strategy(settings: "Settings", strategy: str | None, params: Sequence[str]) -> "Settings":
    """--strategy takes the place of the settings' strategies; --param alone changes the only one there is."""
    from mqd_ledger.settings import StrategySettings

    given = dict(pair("--param", param) for param in params)
    if strategy is not None:
        chosen = StrategySettings.model_construct(
            name=strategy, parameters=given
        )  # the registry says what is wrong with it
    elif not given:
        return settings
    elif len(settings.strategies) == 1:
        (only,) = settings.strategies
        chosen = StrategySettings(name=only.name, parameters={**only.parameters, **given})
    else:
        names = ", ".join(one.name for one in settings.strategies) or "none"
        raise BadInput(f"--param: the settings name several strategies or none ({names}); say which with --strategy.")
    return settings.model_copy(update={"strategies": (chosen,)})
