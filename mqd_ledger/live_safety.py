"""What stands before real money: four things that live trading needs, and one look at whose account it is.

`run --live` needs a live key, `--live` itself, `live_trading: true` in the settings, and a person who types the name of what will
be traded with. What is missing is told all at once, before anything is connected. Where nobody can type, the environment variable
MQD_LIVE_CONFIRMED does: it has to be exactly what would have been typed.

To ask for something more: a row in `NEEDED`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mqd_ledger.brokers.keys import Keys
from mqd_ledger.errors import BadInput
from mqd_ledger.settings import Settings

CONFIRMED = "MQD_LIVE_CONFIRMED"


class Asked(NamedTuple):
    settings: Settings
    live_flag: bool


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
    settings: Settings, *, live_flag: bool, load_keys: Callable[[], Keys], name: str, person: Person
) -> Keys:
    """The live keys, where all that live trading needs is there; else an error that names everything missing.

    `name` is what has to be typed: the account's number where the ledger knows it, else the name of the ledger's file.
    """
    asked = Asked(settings, live_flag)
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
