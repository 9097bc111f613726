"""What `run` does with a broker: the loopback server on this machine, Alpaca's paper accounts, or a live one."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import click

from mqd_ledger import live
from mqd_ledger.app import Feed
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.cli import output, trading
from mqd_ledger.cli.options import ledger_words, settings_of
from mqd_ledger.desk.connection import Connection
from mqd_ledger.desk.narration import Teller
from mqd_ledger.errors import BadInput
from mqd_ledger.live_safety import Person, require_books, require_live
from mqd_ledger.lock import WriterLock
from mqd_ledger.runs import Controls
from mqd_ledger.settings import Settings
from mqd_ledger.state import State

SAY_SECONDS = 2.0  # so long at most the end of a run waits for who reads its lines


class Wish(NamedTuple):
    """What the command line says beyond the settings."""

    is_live: bool
    loopback_url: str | None
    market: Sequence[str]  # arguments for the loopback server that is started: which bars
    symbols_chosen: bool  # by somebody, not by the program's own file


def run(settings: Settings, path: Path, wish: Wish, *, as_json: bool) -> None:
    """Trade with a broker until stopped, telling what happens as it does."""

    def say(line: str) -> None:
        """Nobody may be listening any more (a closed terminal, a full disk under it): trading goes on, and the log has it all."""
        with suppress(OSError):
            click.echo(line, err=as_json)

    teller = Teller(say)
    controls = Controls(tell=teller.tell)
    alone = output.json_alone(wanted=as_json)
    with alone, trading.stopping(controls.stop), _connection(settings, path, wish) as connection:
        specs = trading.specs_of(settings)
        mode = live.mode_of(connection)
        feed = Feed(connection.source, tuple, "1m", (connection.source.name,))
        if not as_json:
            trading.announce(mode, settings, specs, feed, str(path))
        try:
            outcome = live.run(live.plan_of(settings, connection), path, controls)
        finally:
            is_heard = teller.stop(SAY_SECONDS)
    if not is_heard:
        os._exit(
            0
        )  # how it ended can be said to nobody, and Python would wait for the terminal, too; the log is closed
    stopped = not outcome.finished
    if as_json:
        trading.print_run_json(outcome, feed, path, stopped=stopped, mode=mode)
    else:
        click.echo()
        trading.print_run(outcome, feed, path, stopped=stopped)


def finish_kill(path: Path, state: State, loopback_url: str | None) -> str:
    """Close at the broker what a ledger on which nobody trades has open; a sentence that says that nothing is left, or an error."""
    is_loopback = state.environment == "loopback"
    if is_loopback and loopback_url is None:
        raise BadInput(
            "its loopback server does not run, as far as is known here. The next `mqd-ledger run` on this ledger starts it and "
            "closes everything first; one that runs by itself is named with --loopback-url."
        )
    settings = settings_of("live" if state.environment == "live" else "paper")
    if is_loopback:
        connection = live.to_loopback(settings, live.ask_server(loopback_url or ""))
    else:
        keys = Keys.load("live" if state.environment == "live" else "paper", os.environ)
        connection = live.to_alpaca(settings, keys, tuple(state.marks) or ("SPY",))
    controls = Controls(tell=click.echo)
    click.echo("It is recorded. Now everything is closed at the broker; Ctrl-C leaves the rest to the next run.")
    with trading.stopping(controls.stop):
        outcome = live.run(live.plan_to_kill(settings, connection), path, controls)
    if outcome.state.kill_switch_completed:
        where = ledger_words(path)
        return f"Nothing is left at the broker. `mqd-ledger resume --reason TEXT{where}` lets trading begin again."
    raise BadInput(
        "it was stopped before the broker had shown that everything is gone. The next `mqd-ledger run` or `mqd-ledger kill` on "
        "this ledger goes on with it."
    )


@contextmanager
def _connection(settings: Settings, path: Path, wish: Wish) -> Iterator[Connection]:
    if settings.broker == "alpaca":
        yield _alpaca(settings, path, wish)
        return
    require_books(path, "loopback")
    if wish.is_live:
        raise BadInput("--live trades real money at Alpaca; the loopback server has none. Give --broker alpaca.")
    if wish.loopback_url is not None:
        if wish.market:
            raise BadInput(
                "--bars and what belongs to it are for a server that is started; one that runs plays bars of its own."
            )
        yield live.to_loopback(settings, live.ask_server(wish.loopback_url))
        return
    if path.exists():  # a second run is refused before it starts a server for nothing
        with WriterLock(path):
            pass
    chosen = settings.loopback
    arguments = [
        *("--speed", str(chosen.speed), "--seed", str(chosen.seed), "--cash", str(chosen.cash)),
        *("--directory", f"{path}.loopback", *wish.market),
        *([] if chosen.faults == "none" else ["--faults", chosen.faults]),
    ]
    with live.loopback_server(arguments) as server:
        yield live.to_loopback(settings, server)


def _alpaca(settings: Settings, path: Path, wish: Wish) -> Connection:
    if wish.loopback_url is not None:
        raise BadInput(
            "--loopback-url names a loopback server, but --broker alpaca trades at Alpaca. Leave one of them away."
        )
    if wish.market:
        raise BadInput(
            "--bars plays a file, but with --broker alpaca Alpaca's own bars are traded on. Leave one of them away."
        )
    require_books(path, "alpaca-live" if wish.is_live else "alpaca-paper")
    if wish.is_live:
        person = Person(
            os.environ,
            sys.stdin.isatty(),
            lambda text: str(click.prompt(text, default="", show_default=False, prompt_suffix="")),
        )
        keys = require_live(
            settings,
            live_flag=True,
            symbols_chosen=wish.symbols_chosen,
            load_keys=lambda: Keys.load("live", os.environ),
            name=live.account_number_of(path) or path.name,
            person=person,
        )
    else:
        keys = Keys.load("paper", os.environ)
    for warning in keys.warnings:
        output.shout(warning)
    return live.to_alpaca(settings, keys)
