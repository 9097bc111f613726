"""Runs and the ledger itself."""

from typing import Any

import msgspec

from mqd_ledger.events.base import AccountEvent, Event
from mqd_ledger.policy import Policy


class StrategySpec(msgspec.Struct, frozen=True):
    """A strategy of a run: the name under which events speak of it (`vwap-2`), where it comes from (a registered name, or
    file.py:Class), its parameters as JSON values (decimals as text), and a hash of its code.
    """

    strategy: str
    source: str
    parameters: dict[str, Any]
    code_sha256: str


class Source(msgspec.Struct, frozen=True):
    """Where a run's bars come from. `sha256` is of the file's bytes, or of the recipe of a synthetic sample."""

    kind: str  # "file", "synthetic", "alpaca"
    name: str
    sha256: str


class LedgerCreated(AccountEvent, frozen=True, gc=False):
    ledger_id: str  # in front of every client_order_id of this ledger
    currency: str = "USD"  # of all its money


class RunEvent(Event, frozen=True, gc=False):
    run: int


class RunStarted(RunEvent, frozen=True, gc=False):
    mode: str
    code_version: str
    source: Source
    strategies: tuple[StrategySpec, ...]
    policy: Policy
    checks: tuple[
        str, ...
    ] = ()  # of the risk gate, in their order; one added later does not apply to this run. None: all


class RunEnded(RunEvent, frozen=True, gc=False):
    reason: str
