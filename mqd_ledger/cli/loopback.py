"""The verb `loopback`: an Alpaca of one's own on this machine, for trying out a strategy and for everything that can go wrong."""

import os
import signal
import sys
import textwrap
import threading
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from mqd_ledger.cli.options import FILE, examples, json_option, pace, reading_bars
from mqd_ledger.errors import BadInput

if TYPE_CHECKING:  # what it takes to serve is imported when it is done
    from mqd_ledger.loopback.faults import Faults
    from mqd_ledger.loopback.server import LoopbackServer

SAMPLE = Path("sample")
SESSIONS = 20  # of the synthetic sample
CASH_MAX = Decimal(10) ** 12
SPEED_MAX = 100_000  # a session in a quarter of a second
WATCH = 0.1  # seconds
CHUNK = 4096
SCRIPT = """\
- {where: rest, kind: gateway_timeout_after, match: {method: POST, path: /v2/orders}, at: 2}
- {where: update, kind: lost, match: {event: fill, symbol: SPY}, times: 3}
- {where: trade_socket, kind: dropped, probability: 0.01}
- {where: market, kind: halt, match: {time: "*T15:00*"}, params: {symbol: SPY, minutes: 10}}"""
POINT = """\
from alpaca.trading.client import TradingClient
from alpaca.trading.stream import TradingStream
from alpaca.data.live import StockDataStream

trading = TradingClient("{key}", "{secret}", url_override="{rest}")
updates = TradingStream("{key}", "{secret}", url_override="{stream}")
bars = StockDataStream("{key}", "{secret}", url_override="{data}")"""


class Playing(NamedTuple):
    """The bars of the market, and what is said of them."""

    bars: Iterable[object]
    stated: tuple[str, ...]
    is_synthetic: bool


@click.command(
    "loopback",
    epilog=examples(
        "loopback",
        "loopback --bars SPY_1min.csv --zone America/New_York --speed 300",
        "loopback --directory broker --faults heavy --seed 7",
        "loopback --list-faults",
    ),
)
@click.option("--bars", type=FILE, metavar="FILE", help="CSV or Parquet; `sample`, the default, plays synthetic bars.")
@reading_bars
@click.option(
    "--speed", default="60", metavar="N|step", help="Times the clock; `step`: time moves when told. Default: 60."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Default: any free one.")
@click.option("--accounts", type=click.IntRange(1, 100), default=1, metavar="N", help="How many. Default: 1.")
@click.option("--cash", default="100000", metavar="N", help="Dollars of a new account. Default: 100000.")
@click.option("--seed", type=int, default=0, metavar="N", help="Of ids, sizes, faults and synthetic bars. Default: 0.")
@click.option("--faults", metavar="FILE|light|heavy", help="A script of faults in YAML, or a plan drawn from the seed.")
@click.option("--directory", type=FILE, metavar="DIR", help="Keep the accounts there, so that a restart finds them.")
@click.option(
    "--until-stdin-ends", is_flag=True, help="End with the program that started this one and holds its input."
)
@click.option("--list-faults", is_flag=True, help="Show everything that can go wrong, and end.")
@json_option
def loopback(  # noqa: PLR0913  one argument for each option
    *,
    bars: Path | None,
    symbol: str | None,
    zone: str | None,
    strict: bool,
    speed: str,
    port: int,
    accounts: int,
    cash: str,
    seed: int,
    faults: str | None,
    directory: Path | None,
    until_stdin_ends: bool,
    list_faults: bool,
    as_json: bool,
) -> None:
    """Serve a made-up Alpaca on this machine: REST and both streams.

    It speaks Alpaca's protocol to alpaca-py and to every other client, fills orders by the bars that it plays, and does on
    request what brokers do on bad days. Nothing leaves this machine, and no keys of yours are needed. Ctrl-C ends it.
    """
    clock_speed = _speed(speed)
    dollars = _dollars(cash)
    plan = _faults(faults, seed)
    if list_faults:
        _list_faults(as_json=as_json)
        return
    from mqd_ledger.cli import trading
    from mqd_ledger.loopback.account import account_specs
    from mqd_ledger.loopback.control import about
    from mqd_ledger.loopback.server import LoopbackServer

    playing = _playing(bars, symbol, zone, seed, strict=strict)
    server = LoopbackServer(
        playing.bars,
        accounts=account_specs(accounts, dollars),
        seed=seed,
        speed=clock_speed,
        directory=directory,
        faults=plan,
        port=port,
    )
    stop = threading.Event()
    with trading.stopping(stop), server:
        if until_stdin_ends:
            _end_with_parent(stop)
        if as_json:
            _print_line(about(server))
        else:
            _announce(server, playing, _words_of(faults, plan))
        while not stop.wait(WATCH) and not server.ended.is_set():
            pass
    if as_json:
        _print_line({"faults": plan.happened})
    else:
        _print_happened(plan)


def _end_with_parent(stop: threading.Event) -> None:
    """Ctrl-C reaches both programs at once; the one that trades says when the server may end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.read(sys.stdin.fileno(), CHUNK):  # sys.stdin itself would hold a lock that the end of Python waits for
            pass
        stop.set()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _speed(text: str) -> float | None:
    if text == "max":
        raise BadInput("speed: found 'max'; a clock needs a number above 0, or `step` to be moved by hand.")
    times = None if text == "step" else pace(text)
    if times is not None and times > SPEED_MAX:
        raise BadInput(f"speed: found {text!r}; no more than {SPEED_MAX:,} times the clock is allowed.")
    return times


def _dollars(text: str) -> Decimal:
    try:
        dollars = Decimal(text)
    except InvalidOperation:
        dollars = Decimal(0)
    if not dollars.is_finite() or not 0 < dollars <= CASH_MAX:
        raise BadInput(f"--cash {text}: allowed is a number of dollars above 0, up to {CASH_MAX:,}.")
    return dollars


def _faults(given: str | None, seed: int) -> "Faults":
    from mqd_ledger.loopback.faults import Faults
    from mqd_ledger.loopback.faults_table import INTENSITIES

    if given is None:
        return Faults(seed=seed)
    return Faults.seeded(seed, given) if given in INTENSITIES else Faults.load(Path(given), seed)


def _words_of(given: str | None, plan: "Faults") -> str:
    return "none; --faults plans some" if given is None else f"{len(plan.plan)} planned ({given}, seed {plan.seed})"


def _playing(bars: Path | None, symbol: str | None, zone: str | None, seed: int, *, strict: bool) -> Playing:
    if bars is None or bars == SAMPLE:
        if symbol or zone or strict:
            raise BadInput("--symbol, --zone and --strict are about a file of bars; give one with --bars.")
        from mqd_ledger.feeds.sample import sample_bars

        return Playing(
            sample_bars(sessions=SESSIONS, seed=seed),
            (f"synthetic sample: {SESSIONS} sessions, seed {seed}",),
            is_synthetic=True,
        )
    from mqd_ledger.feeds.bars import open_bars

    file = open_bars(bars, symbol=symbol, zone=zone, strict=strict)
    return Playing(file, (f"file: {bars}", *file.detection.sentences()), is_synthetic=False)


# --- what is said -------------------------------------------------------------------------------------------------------------


def _announce(server: "LoopbackServer", playing: Playing, faults: str) -> None:
    from mqd_ledger.cli import output
    from mqd_ledger.cli.trading import SYNTHETIC
    from mqd_ledger.loopback.control import about

    if playing.is_synthetic:
        output.shout(SYNTHETIC)
    runs = (
        "moves when told: POST /loopback/step"
        if server.clock.speed is None
        else f"{server.clock.speed:g} times as fast"
    )
    pairs = [("" if place else "bars", sentence) for place, sentence in enumerate(playing.stated)]
    pairs.append(("clock", f"{output.text(server.clock.now())}, {runs}"))
    pairs += [("rest", server.rest_url), ("updates", server.stream_url), ("data", server.data_url)]
    pairs += [("account", f"{one.account_number}, key {one.key}, secret {one.secret}") for one in server.specs]
    pairs.append(("faults", faults))
    pairs.append(("control", f"{server.rest_url}/loopback/ (clock, state, faults, step, by-hand, close, halt, stop)"))
    pairs.append(("directory", str(server.directory) if server.directory else "none; --directory keeps the accounts"))
    output.facts(pairs)
    click.echo()
    output.heading("Point a program at it:")
    click.echo(textwrap.indent(POINT.format(**about(server)), "  "))
    sys.stdout.flush()  # into a file or a pipe it would otherwise come at the end


def _print_happened(plan: "Faults") -> None:
    from mqd_ledger.cli import output

    columns = (
        output.Column("at", "at"),
        output.Column("where", "where"),
        output.Column("fault", "kind"),
        output.Column("what", "what", words=True),
    )
    click.echo()
    output.table(columns, [msgspec.structs.asdict(one) for one in plan.happened], empty="No fault happened.")


def _list_faults(*, as_json: bool) -> None:
    from mqd_ledger.cli import output
    from mqd_ledger.loopback.faults_table import FAULTS, PLACES

    rows = [{**kind._asdict(), "params": {name: str(value) for name, value in kind.params.items()}} for kind in FAULTS]
    if as_json:
        output.print_json([{name: row[name] for name in ("where", "name", "does", "params")} for row in rows])
        return
    columns = (
        output.Column("where", "where"),
        output.Column("kind", "name"),
        output.Column("what it does", "does", words=True),
        output.Column("params", "params", words=True),
    )
    output.table(columns, rows, empty="")
    click.echo()
    output.facts(((where, place.occurrence) for where, place in PLACES.items()), "One occurrence is")
    click.echo()
    output.say("A script is a list in YAML:")
    click.echo(textwrap.indent(SCRIPT, "  "))


def _print_line(content: Any) -> None:
    """One line, so that a program that started this one can read it while the server runs."""
    click.echo(msgspec.json.encode(content))
    sys.stdout.flush()
