"""Whom the doctor examines, and what a check answers. `mqd_ledger/doctor/__init__.py` says how to add a check."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from mqd_ledger.brokers.base import Broker
from mqd_ledger.brokers.keys import DOTENV, Keys
from mqd_ledger.settings import Settings

Verdict = Literal["ok", "warn", "FAIL", "skipped"]
OK: Verdict = "ok"
WARN: Verdict = "warn"
FAIL: Verdict = "FAIL"
SKIPPED: Verdict = "skipped"
Found = tuple[Verdict, str, str]  # what was found, and what to do where something has to be done


class Finding(NamedTuple):
    check: str
    verdict: Verdict
    found: str
    advice: str


class Host(NamedTuple):
    name: str
    port: int = 443
    is_encrypted: bool = True


@dataclass(frozen=True)
class Patient:
    """What is examined. `settings_problems` are those of files, environment and arguments; `connect` makes the broker of keys."""

    broker_name: Literal["simulated", "loopback", "alpaca"]
    environment: Literal["paper", "live"]
    ledger: Path
    environ: Mapping[str, str]
    clock: Callable[[], datetime]
    connect: Callable[[Keys], Broker]
    hosts: tuple[Host, ...] = ()
    settings: Settings = field(default_factory=Settings)
    settings_problems: tuple[str, ...] = ()
    symbols_chosen: bool = True  # by somebody, not by the program's own file
    dotenv: Path = DOTENV

    @property
    def mode(self) -> str:
        """Of the run that is to come, as `RunStarted` records it."""
        modes = {"simulated": "paper", "loopback": "loopback", "alpaca": f"alpaca-{self.environment}"}
        return modes[self.broker_name]

    @property
    def folder(self) -> Path:
        """Where the ledger lies, or will."""
        return self.ledger.absolute().parent

    @cached_property
    def keys(self) -> Keys:
        return Keys.load(self.environment, self.environ, self.dotenv)

    @property
    def known_keys(self) -> Keys | None:
        """What must not be seen, once it was read."""
        return vars(self).get("keys")

    @cached_property
    def broker(self) -> Broker:
        return self.connect(self.keys)
