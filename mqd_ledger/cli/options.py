"""Options that several verbs share, and how their texts become values."""

import os
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mqd_ledger.errors import BadInput, LedgerUnreadable

if TYPE_CHECKING:  # pydantic is slow to import and --help does not need it
    from mqd_ledger.settings import Settings

Verb = TypeVar("Verb", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)
SYMBOLS_NEED_A_BROKER = (
    "--symbols {} says what to trade with a broker, and none is given: add --broker loopback or --broker alpaca. Which made-up "
    "bars are played says --set sample.symbols=[...], and which symbol of a file --symbol."
)


def _existing_zone(_context: click.Context, _option: click.Parameter, zone: str | None) -> str | None:
    """Also where the file's own times make it needless: who gives a zone believes that it counts."""
    if zone is not None:
        from mqd_ledger.feeds.columns import find_zone

        find_zone(zone)
    return zone


ledger_option = click.option(
    "--ledger", type=FILE, metavar="PATH", help="The ledger file. Default: the settings' own, paper.ledger."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON: money as text, times in UTC.")
config_option = click.option("--config", type=FILE, metavar="FILE", help="A YAML file laid over the built-in settings.")
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting for this time, such as risk.daily_loss_max=50. Can be given again.",
)


def reading_bars(verb: Verb) -> Verb:
    """--symbol, --zone and --strict: what a file of bars does not say by itself."""
    for option in (
        click.option("--strict", is_flag=True, help="Stop at the first bad row instead of recording it as rejected."),
        click.option(
            "--zone",
            metavar="ZONE",
            callback=_existing_zone,
            help="Of times written without one: America/New_York, UTC.",
        ),
        click.option("--symbol", metavar="SYMBOL", help="Whose bars they are, or which symbol to pick from the file."),
    ):
        verb = option(verb)
    return verb


def examples(*commands: str) -> str:
    """The end of a verb's help."""
    return "\n".join(("\b", "Examples:", *(f"  mqd-ledger {command}" for command in commands)))


def settings_of(profile: str, config: Path | None = None, overrides: Sequence[str] = ()) -> "Settings":
    from mqd_ledger.settings import load

    return load(profile, config, os.environ, overrides)


def says(key: str, config: Path | None, overrides: Sequence[str]) -> bool:
    """Whether somebody has chosen a setting, where the program's own file would have done."""
    from mqd_ledger import settings

    return settings.says(key, config, os.environ, overrides)


def ledger_path(ledger: Path | None) -> Path:
    """The ledger that is meant, whether or not it exists."""
    path = ledger if ledger is not None else settings_of("paper").ledger
    if "\0" in str(path):
        raise BadInput(f"{str(path)!r} can be no ledger's name: it holds a zero byte.")
    if path.is_dir():
        raise LedgerUnreadable(f"{path} is a directory. A ledger is one file; name it with --ledger.")
    return path


def writable_ledger(ledger: Path | None, default: Path | None = None) -> Path:
    """The same to write into. Only the settings' own default may lie in a folder that is still to be made."""
    path = ledger_path(default if ledger is None else ledger)
    if ledger is not None:
        require_folder("--ledger", path)
    return path


def require_folder(option: str, path: Path) -> None:
    """A misspelled folder is told, and not made."""
    if not path.parent.is_dir():
        raise BadInput(f"{option} {path}: there is no folder {path.parent}. Make it first, or correct the path.")


def ledger_words(path: Path) -> str:
    """What a next command has to say so that it means this ledger; nothing for the usual one."""
    if path == settings_of("paper").ledger:
        return ""
    return f' --ledger "{path}"' if " " in str(path) else f" --ledger {path}"


def existing_ledger(ledger: Path | None) -> Path:
    path = ledger_path(ledger)
    if not path.exists():
        raise LedgerUnreadable(
            f"There is no ledger {path}. `mqd-ledger run --paper` trades into a new one, `mqd-ledger init` makes an "
            "empty one, and --ledger names another."
        )
    return path


def pair(option: str, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise BadInput(f"{option} {text}: found no 'name=value'; allowed is, for example, {option} lookback=20.")
    return name.strip(), value.strip()


def moment(option: str, text: str, *, is_end: bool = False) -> datetime:
    """A time with its zone, or a date (UTC): its first instant, or for an end its last."""
    try:
        day = date.fromisoformat(text.strip())
    except ValueError:
        return instant(option, text)
    begin = datetime.combine(day, time(), UTC)
    try:
        return begin + timedelta(days=1) - datetime.resolution if is_end else begin
    except OverflowError:
        raise BadInput(f"{option} {text}: is the last day of the calendar; give an earlier one.") from None


def instant(option: str, text: str) -> datetime:
    """A moment that means the same everywhere: ISO-8601 with Z or an offset."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadInput(
            f"{option} {text}: is not a time; allowed is ISO-8601 with a zone, such as 2026-01-05T15:30:00Z."
        ) from None
    if at.tzinfo is None:
        raise BadInput(
            f"{option} {text}: has no time zone, so it could be several instants; add Z for UTC or an offset, as in "
            "2026-01-05T15:30:00Z or 2026-01-05T10:30:00-05:00."
        )
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise BadInput(f"{option} {text}: is outside the calendar.") from None


def pace(speed: str) -> float | None:
    """How many times faster than the clock the bars come; None: as fast as they can be read."""
    if speed == "max":
        return None
    try:
        times = float(speed)
    except ValueError:
        times = 0.0
    if not 0 < times < float("inf"):
        raise BadInput(f"speed: found {speed!r}; allowed is max, or a number above 0: 60 plays an hour in a minute.")
    return times
