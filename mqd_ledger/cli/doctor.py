"""The verb `doctor`: looks whether everything that trading needs is in place."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import click

from mqd_ledger.cli.options import (
    SYMBOLS_NEED_A_BROKER,
    config_option,
    examples,
    json_option,
    ledger_option,
    ledger_path,
    says,
    set_option,
    settings_of,
)
from mqd_ledger.errors import BadInput, SettingsInvalid

if TYPE_CHECKING:  # what it takes to look is imported when it is done
    from mqd_ledger.brokers.base import Broker
    from mqd_ledger.brokers.keys import Keys
    from mqd_ledger.settings import Settings

BrokerName = Literal["simulated", "loopback", "alpaca"]


@click.command(
    "doctor",
    epilog=examples(
        "doctor",
        "doctor --broker alpaca --symbols SPY,QQQ --ledger alpaca.ledger",
        "doctor --live --config mine.yaml --json",
    ),
)
@click.option(
    "--broker", type=click.Choice(get_args(BrokerName)), help="With whom to trade. Default: as in the settings."
)
@click.option("--symbols", metavar="LIST", help="What is to be traded, as SPY,QQQ.")
@click.option("--live", is_flag=True, help="With the live keys and the settings of real money.")
@config_option
@set_option
@ledger_option
@json_option
def doctor(
    *,
    broker: BrokerName | None,
    symbols: str | None,
    live: bool,
    config: Path | None,
    overrides: tuple[str, ...],
    ledger: Path | None,
    as_json: bool,
) -> int:
    """Look whether everything that trading needs is in place.

    This machine, the settings, the keys, the broker's network, account, clock and calendar, the ledger. It changes nothing and
    sends no order. Exit code 1 if anything has to be mended.
    """
    import os

    from mqd_ledger.cli import output
    from mqd_ledger.cli.control import clock
    from mqd_ledger.doctor import API_HOSTS, FAIL, Host, Patient, examine
    from mqd_ledger.settings import Settings

    profile: Literal["paper", "live"] = "live" if live else "paper"
    problems: list[str] = []
    options = {"broker": broker, "symbols": symbols}
    given = [f"{key}={value}" for key, value in options.items() if value is not None]
    try:
        settings = settings_of(profile, config, [*overrides, *given])
    except SettingsInvalid as invalid:
        settings, problems = Settings(), invalid.problems
    broker_name = broker or ("alpaca" if live else settings.broker)
    if symbols is not None and broker_name == "simulated":
        raise BadInput(SYMBOLS_NEED_A_BROKER.format(symbols))
    patient = Patient(
        broker_name=broker_name,
        environment=profile,
        ledger=ledger_path(ledger or settings.ledger),
        environ=os.environ,
        clock=clock,
        connect=lambda keys: _connect(profile, settings, keys),
        hosts=tuple(Host(name) for name in API_HOSTS[profile]),
        settings=settings,
        settings_problems=tuple(problems),
        symbols_chosen=says("symbols", config, [*overrides, *given]),
    )
    with output.working("looking"):
        findings = list(examine(patient))
    passed = all(finding.verdict != FAIL for finding in findings)
    if as_json:
        output.print_json({"passed": passed, "checks": [finding._asdict() for finding in findings]})
    else:
        wide = max(len(finding.check) for finding in findings) + output.GAP
        for finding in findings:
            indent = f"{finding.verdict:<9}{finding.check:<{wide}}"
            output.say(finding.found, indent=indent, following=" " * len(indent))
            if finding.advice:
                output.say(finding.advice, indent=" " * len(indent))
    return 0 if passed else 1


def _connect(profile: str, settings: "Settings", keys: "Keys") -> "Broker":
    from mqd_ledger.brokers.alpaca import AlpacaBroker
    from mqd_ledger.brokers.alpaca_rest import AlpacaRest, Budget
    from mqd_ledger.cli.control import clock

    rest = AlpacaRest(keys, None, profile, budget=Budget(settings.alpaca.requests_per_minute))
    return AlpacaBroker(rest, clock)
