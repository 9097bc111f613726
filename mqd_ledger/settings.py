"""Settings: YAML files, environment and arguments become one frozen, validated object.

Order of precedence, the last wins: the mode's own file in `config/`, the file given with --config, variables MQD_SECTION__KEY,
--set section.key=value. Every problem is reported at once with the path of its key, what was found and what is allowed. Numbers
are taken as the text that was written, so that no amount ever passes through a float. A value that is empty is a problem, for it
may be a variable of the shell that was never set: only the word null switches a limit off.

The sections `risk`, `sizing`, `simulation` and `operation` are the fields of `policy.py`: a limit is added there, and is a setting
at once. What must hold between several settings is a row of `TOGETHER`. Keys and passwords are no settings: whatever looks like one
is refused without being repeated (`brokers/keys.py` says where they belong).
"""

import difflib
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from mqd_ledger.brokers.keys import NAMES, masked, take_out
from mqd_ledger.errors import SettingsInvalid
from mqd_ledger.policy import Limits, Operation, Policy, Simulation, Sizing
from mqd_ledger.values import LotMethod, Money

ENVIRONMENT_PREFIX = "MQD_"
# Variables of that prefix that are read elsewhere: the keys, and the confirmation of live trading.
NO_SETTINGS = (*NAMES[0], "MQD_LIVE_CONFIRMED")
OFF = "null"  # what switches a limit off
IN_A_FILE = ["live_trading"]  # the path of what only a file may say, where it stays written
SYMBOL = re.compile(r"[A-Z][A-Z0-9.]{0,11}")
_PACKAGE = Path(__file__).parent
CONFIG_DIRECTORY = next(
    (path for path in (_PACKAGE.parent / "config", _PACKAGE / "config") if path.is_dir()), _PACKAGE / "config"
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_negative_amounts(cls, value: object) -> object:
        """Every number in the settings is a size, a limit or a count; none may be negative, infinite or not a number."""
        if isinstance(value, str) and not value.strip():
            raise ValueError(f"nothing is no value; write one, or the word {OFF} for a limit that is not to hold")
        if isinstance(value, str) and value.strip().lower() == OFF:
            return None
        if isinstance(value, str) and value[:1] in "-+0123456789.nNiI":
            try:
                number = Decimal(value)
            except ArithmeticError:
                return value
            if not number.is_finite() or number < 0:
                raise ValueError("a finite number, zero or above, is allowed")
        return value


def _is_above_zero(text: str) -> bool:
    try:
        number = Decimal(text)
    except ArithmeticError:
        return False
    return number.is_finite() and number > 0


def _model_of(struct: type[msgspec.Struct], name: str) -> Any:
    """The pydantic twin of a policy struct: same fields, same defaults, guarded for what people type."""
    hints = typing.get_type_hints(struct)
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        hint = hints[field.name]
        default = field.default
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            hint = _model_of(hint, f"{name}{hint.__name__}")
            default = hint()
        fields[field.name] = (hint, default)
    return create_model(name, __base__=_Strict, **fields)


RiskSettings = _model_of(Limits, "RiskSettings")
SizingSettings = _model_of(Sizing, "SizingSettings")
SimulationSettings = _model_of(Simulation, "SimulationSettings")
OperationSettings = _model_of(Operation, "OperationSettings")


class StrategySettings(_Strict):
    """`name` is a registered strategy or path/to/file.py:Class."""

    name: str
    parameters: dict[str, str] = {}


class SampleSettings(_Strict):
    """The synthetic bars played where no --bars are given."""

    symbols: tuple[str, ...] = ("SYNA", "SYNB")
    sessions: int = Field(default=2, ge=1, le=2000)
    seed: int = 7


class AlpacaSettings(_Strict):
    """`feed`: one exchange for nothing (iex), or the whole tape with a subscription (sip)."""

    feed: Literal["iex", "sip"] = "iex"
    requests_per_minute: int = Field(default=200, ge=20, le=10_000)  # what the account is allowed


class LoopbackSettings(_Strict):
    """The made-up Alpaca on this machine that `broker: loopback` trades with."""

    speed: Decimal = Field(default=Decimal(60), gt=0, le=100_000)  # times the clock
    seed: int = 7
    cash: Money = Field(default=Decimal(100_000), gt=0)
    faults: Literal["none", "light", "heavy"] = "none"

    @field_validator("speed", mode="before")
    @classmethod
    def _pace(cls, value: object) -> object:
        if isinstance(value, str) and not _is_above_zero(value):
            raise ValueError("a number above 0 is allowed, as its server goes by a clock: 60 plays an hour in a minute")
        return value


class Settings(_Strict):
    ledger: Path = Path("paper.ledger")
    cash: Money = Field(default=Decimal(100_000), gt=0)  # deposited into a new simulated ledger
    speed: str = "max"  # of simulated bars: "max", or how many times faster than the clock
    broker: Literal["simulated", "loopback", "alpaca"] = "simulated"
    live_trading: bool = False  # one of the four things that `--live` needs
    symbols: tuple[str, ...] = ()  # to trade with a broker
    quotes: bool = True  # best bid and offer are followed too
    alpaca: AlpacaSettings = AlpacaSettings()
    loopback: LoopbackSettings = LoopbackSettings()
    strategies: tuple[StrategySettings, ...] = (StrategySettings(name="vwap"),)
    lot_method: LotMethod = LotMethod.FIFO
    day_starts: Literal["utc", "exchange"] = "utc"
    sample: SampleSettings = SampleSettings()
    risk: Any = Field(default_factory=RiskSettings)
    sizing: Any = Field(default_factory=SizingSettings)
    simulation: Any = Field(default_factory=SimulationSettings)
    operation: Any = Field(default_factory=OperationSettings)

    @field_validator("speed", mode="before")
    @classmethod
    def _pace(cls, value: object) -> object:
        if isinstance(value, str) and value != "max" and not _is_above_zero(value):
            raise ValueError("max is allowed, or a number above 0: 60 plays an hour in a minute")
        return value

    @field_validator("symbols", mode="before")
    @classmethod
    def _list_of_words(cls, value: object) -> object:
        """As people type it after --set: SPY,QQQ."""
        if not isinstance(value, str):
            return value
        words = [word.strip() for word in value.split(",") if word.strip()]
        if not words:
            raise ValueError("at least one symbol is allowed, as in SPY,QQQ; [] says that there is none")
        return words

    @field_validator("symbols")
    @classmethod
    def _no_wrong_symbol(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [symbol for symbol in value if not SYMBOL.fullmatch(symbol)]
        if wrong or len(set(value)) < len(value):
            raise ValueError("each symbol once is allowed, as the exchange writes it: SPY, BRK.B")
        return value

    @property
    def policy(self) -> Policy:
        """The part that the core decides by and the log records."""
        return Policy(
            limits=msgspec.convert(self.risk.model_dump(), Limits),
            sizing=msgspec.convert(self.sizing.model_dump(), Sizing),
            simulation=msgspec.convert(self.simulation.model_dump(), Simulation),
            operation=msgspec.convert(self.operation.model_dump(), Operation),
            lot_method=self.lot_method,
            day_starts=self.day_starts,
        )


Settings.model_fields["risk"].annotation = RiskSettings
Settings.model_fields["sizing"].annotation = SizingSettings
Settings.model_fields["simulation"].annotation = SimulationSettings
Settings.model_fields["operation"].annotation = OperationSettings
Settings.model_rebuild(force=True)


class Together(NamedTuple):
    """What must hold between settings: whose path is told, when it holds, and what is allowed."""

    path: str
    holds: Callable[[Settings], bool]
    allowed: str


TOGETHER = (
    Together(
        "symbols",
        lambda its: its.broker != "alpaca" or bool(its.symbols),
        "with broker alpaca at least one symbol is needed, as in symbols: [SPY, QQQ]",
    ),
    Together(
        "risk.session",
        lambda its: its.broker == "simulated" or its.risk.session == "regular",
        "with a broker only regular is allowed, for it takes no market order in extended hours",
    ),
    Together("operation.attempts_max", lambda its: its.operation.attempts_max >= 1, "1 or more is allowed"),
    Together(
        "operation.reconcile_every", lambda its: its.operation.reconcile_every >= 1, "1 second or more is allowed"
    ),
    Together(
        "operation.feed_silent_after",
        lambda its: its.operation.feed_silent_after > 60,
        "more than 60 seconds is allowed, for bars come once a minute",
    ),
    Together(
        "operation.kill_at_daily_loss",
        lambda its: its.operation.kill_at_daily_loss is None or its.operation.kill_at_daily_loss > 0,
        "an amount above zero is allowed, or null for never",
    ),
    Together(
        "operation.close_before",
        lambda its: its.operation.at_close == "hold" or its.operation.close_before >= 60,
        "where at_close is cancel or flatten, 60 seconds or more are needed for it",
    ),
)


def load(
    profile: str, file: Path | None = None, environment: Mapping[str, str] | None = None, overrides: Sequence[str] = ()
) -> Settings:
    """The settings in force. `profile` names a file of `config/`; `overrides` are "section.key=value" texts."""
    problems: list[str] = []
    merged: dict[str, Any] = {}
    _merge(merged, _read(CONFIG_DIRECTORY / f"{profile}.yaml", problems))
    _lay_over(merged, file, environment, overrides, problems)
    problems += [
        f"{path}: looks like a key or a password, and those never stand in settings or arguments, where others can read them. "
        "Put it into the environment or the file .env, and make a new one if somebody may have seen it"
        for path in take_out(merged)
    ]
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise SettingsInvalid(problems + [_problem(dict(one)) for one in error.errors()]) from None
    problems += [
        f"{one.path}: found {_value(settings, one.path)}; {one.allowed}" for one in TOGETHER if not one.holds(settings)
    ]
    if problems:
        raise SettingsInvalid(problems)
    return settings


def says(key: str, file: Path | None, environment: Mapping[str, str] | None, overrides: Sequence[str]) -> bool:
    """Whether somebody has chosen a setting or a section, where the program's own file would have done."""
    chosen: dict[str, Any] = {}
    _lay_over(chosen, file, environment, overrides, [])
    return key in chosen


def _lay_over(
    merged: dict[str, Any],
    file: Path | None,
    environment: Mapping[str, str] | None,
    overrides: Sequence[str],
    problems: list[str],
) -> None:
    """What people say, over what the program's own file does."""
    if file is not None:
        _merge(merged, _read(file, problems))
    for name, value in sorted((environment or {}).items()):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in NO_SETTINGS:
            _put(merged, name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"), value, name, problems)
    for override in overrides:
        key, separator, value = override.partition("=")
        if separator:
            _put(merged, key.strip().split("."), value, f"--set {key}", problems)
        else:
            problems.append(
                f"--set {masked(override)}: found no '='; allowed is section.key=value, as in --set risk.daily_loss_max=50"
            )


def _read(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        # BaseLoader leaves every scalar as the text in the file: 25000.10 stays 25000.10.
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506  BaseLoader makes only text
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: cannot be read ({error}); give an existing YAML file")
        return {}
    except yaml.YAMLError as error:
        problems.append(f"{path}: is not YAML: {_yaml_problem(error)}")
        return {}
    if content in (None, ""):
        return {}
    if not isinstance(content, dict):
        problems.append(f"{path}: found {type(content).__name__}; allowed is a mapping of sections and keys")
        return {}
    return content


def _yaml_problem(error: yaml.YAMLError) -> str:
    """What and where; without the lines themselves, which may hold what nobody should see."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
    return " ".join(str(error).split())


def _value(settings: Settings, path: str) -> str:
    value: Any = settings
    for part in path.split("."):
        value = getattr(value, part)
    return (
        ", ".join(value) or "none"
        if isinstance(value, tuple)
        else repr(value)
        if isinstance(value, str)
        else f"{value}"
    )


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _put(into: dict[str, Any], path: list[str], value: str, name: str, problems: list[str]) -> None:
    if path == IN_A_FILE:
        problems.append(
            f"{name}: is allowed only in the file given with --config, where it stays written: put live_trading: true there"
        )
        return
    for key in path[:-1]:
        deeper = into.setdefault(key, {})
        if not isinstance(deeper, dict):
            problems.append(f"{name}: {key} is no section; {_allowed_keys(())}")
            return
        into = deeper
    try:
        given = yaml.load(value, Loader=yaml.BaseLoader)  # noqa: S506  as in `_read`: lists can be given, all is text
    except yaml.YAMLError:
        given = value
    _merge(into, {path[-1]: "" if given is None else given})


def _problem(error: dict[str, Any]) -> str:
    path = ".".join(masked(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        parents, name = error["loc"][:-1], str(error["loc"][-1])
        known = _keys(parents)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return (
            f"{path}: is not a setting{hint} Allowed here: {', '.join(known)}"
            if near
            else (f"{path}: is not a setting. Allowed here: {', '.join(known)}")
        )
    return f"{path}: found {masked(repr(error['input']))}; {error['msg'].removeprefix('Value error, ')}"


def _keys(parents: Sequence[int | str]) -> list[str]:
    model: Any = Settings
    for part in parents:
        if isinstance(part, str) and part in model.model_fields:
            model = _inner_model(model.model_fields[part].annotation)
    return sorted(model.model_fields)


def _inner_model(annotation: Any) -> Any:
    """The model inside an annotation such as tuple[StrategySettings, ...]."""
    if isinstance(annotation, types.GenericAlias):
        return next(part for part in typing.get_args(annotation) if isinstance(part, type))
    return annotation


def _allowed_keys(parents: Sequence[str]) -> str:
    return f"allowed here: {', '.join(_keys(parents))}"
