"""What stands before real money, and before books that are another account's.

`run --live` needs a live key, `--live` itself, `live_trading: true` in the file given with --config, and a person who types the
name of what will be traded with; besides that a limit to a day's loss, and symbols that somebody has chosen. What is missing is
told all at once, before anything is connected. Where nobody can type, the environment variable MQD_LIVE_CONFIRMED does: it has to
be exactly what would have been typed. To ask for something more: a row in `NEEDED`.

A ledger keeps the books of one kind of money for ever: `require_books` goes by the modes of its runs, so that it also knows a
ledger whose runs never reached their account. A new mode gets a row in `KEPT`.
"""

from collections.abc import Callable, Mapping
from itertools import count, takewhile
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from mqd_ledger.brokers.keys import Keys
from mqd_ledger.errors import BadInput
from mqd_ledger.events import RunStarted
from mqd_ledger.log import LogReader
from mqd_ledger.settings import Settings

CONFIRMED = "MQD_LIVE_CONFIRMED"
SIMULATED = frozenset({"paper", "backtest"})  # modes without a broker elsewhere
# What a ledger keeps whose runs were of a mode.
KEPT: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(sorted(SIMULATED), "simulated money"),
        "loopback": "the books of a loopback account",
        "alpaca-paper": "the books of a paper account at Alpaca",
        "alpaca-live": "the books of a live account at Alpaca, which is real money",
    }
)


class Asked(NamedTuple):
    settings: Settings
    live_flag: bool
    symbols_chosen: bool  # by somebody, and not by the file that comes with the program


class Needed(NamedTuple):
    is_there: Callable[[Asked], bool]
    otherwise: str


NEEDED = (
    Needed(lambda asked: asked.live_flag, "Give --live: without it nothing but paper is traded."),
    Needed(
        lambda asked: asked.settings.live_trading,
        "Set live_trading: true in the file given with --config: it says that this machine may trade with real money.",
    ),
    Needed(
        lambda asked: asked.settings.broker == "alpaca",
        "Set broker: alpaca: the others have no real money to trade with.",
    ),
    Needed(
        lambda asked: asked.symbols_chosen,
        "Say what to trade, with --symbols or as symbols: [...] in the file given with --config: real money has no default.",
    ),
    Needed(
        lambda asked: asked.settings.policy.limits.daily_loss_max is not None,
        "Set risk.daily_loss_max: real money is not traded without a limit to a day's loss.",
    ),
)


class Person(NamedTuple):
    """Who confirms. `confirm` shows a question and returns what was typed."""

    environ: Mapping[str, str]
    is_terminal: bool
    confirm: Callable[[str], str]


def require_live(
    settings: Settings,
    *,
    live_flag: bool,
    symbols_chosen: bool,
    load_keys: Callable[[], Keys],
    name: str,
    person: Person,
) -> Keys:
    """The live keys, where all that live trading needs is there; else an error that names everything missing.

    `name` is what has to be typed: the account's number where the ledger knows it, else the name of the ledger's file.
    """
    asked = Asked(settings, live_flag, symbols_chosen)
    missing = [needed.otherwise for needed in NEEDED if not needed.is_there(asked)]
    keys: Keys | None = None
    try:
        keys = load_keys()
    except BadInput as problem:
        missing.append(str(problem))
    given = person.environ.get(CONFIRMED)
    if given is not None and given != name:
        missing.append(f"{CONFIRMED} is not what has to be confirmed: it has to be exactly {name!r}.")
    elif given is None and not person.is_terminal:
        missing.append(
            f"Start it in a terminal, where the confirmation can be typed, or set {CONFIRMED} to exactly {name!r}."
        )
    if missing or keys is None:
        raise BadInput("\n".join(["Live trading does not begin: something that it needs is missing.", *missing]))
    if given is None and (typed := person.confirm(_question(settings, keys, name)).strip()) != name:
        raise BadInput(f"Live trading does not begin: {typed!r} was typed, and {name!r} has to be.")
    return keys


def _question(settings: Settings, keys: Keys, name: str) -> str:
    limits = settings.policy.limits
    return (
        f"This trades REAL MONEY: {', '.join(settings.symbols)} with the key {keys.shown} from {keys.found_in}, losing at most "
        f"{limits.daily_loss_max} dollars a day before it stops buying. Type {name} to begin: "
    )


# --- whose books a ledger keeps ---------------------------------------------------------------------------------------


def modes_of(ledger: Path) -> tuple[str, ...]:
    """Of all runs on a ledger, each once, the last one last; none for a new one. A look-up for each run."""
    if not ledger.exists():
        return ()
    with LogReader.open(ledger) as log:
        streams = takewhile(bool, (log.stream(f"run-{number}") for number in count(1)))
        runs = [one.event for rows in streams for one in log.replay(rows[0][0] - 1, rows[0][0])]
    return tuple(dict.fromkeys(run.mode for run in reversed(runs) if isinstance(run, RunStarted)))[::-1]


def require_books(ledger: Path, mode: str) -> None:
    """Refuse a ledger whose runs traded with another kind of money than a run of this mode does."""
    for earlier in modes_of(ledger):
        if KEPT.get(earlier) != KEPT[mode]:
            raise BadInput(
                f"{ledger} keeps {KEPT.get(earlier, f'the books of {earlier}')}: its earlier runs were of mode {earlier}. A run of "
                f"mode {mode} needs a ledger of its own, for the books would be mixed up. Nothing was written. Give another "
                "--ledger."
            )
