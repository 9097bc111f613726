"""The verb `crashtest`: kill a paper session again and again, and compare with the broker what came of it."""

import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mqd_ledger.cli.options import FILE, examples, json_option

if TYPE_CHECKING:  # what it takes to trade is imported when it is done
    from mqd_ledger.crashtest.session import Kill, Report


@click.command("crashtest", epilog=examples("crashtest", "crashtest --points 200 --seed 3 --faults heavy"))
@click.option(
    "--points", type=click.IntRange(1, 10_000), default=20, metavar="N", help="How often it is killed. Default: 20."
)
@click.option("--seed", type=int, default=7, metavar="N", help="Of the places, the bars and the faults. Default: 7.")
@click.option(
    "--faults",
    type=click.Choice(["none", "light", "heavy"]),
    default="light",
    help="What goes wrong at the broker besides. Default: light.",
)
@click.option("--directory", type=FILE, metavar="DIR", help="Keep ledger and broker there. Default: nowhere.")
@json_option
def crashtest(points: int, seed: int, faults: str, directory: Path | None, as_json: bool) -> None:
    """Kill a trading session at seeded places, and prove that it came back.

    A strategy that trades all the time runs against a loopback server. Its process is killed with SIGKILL, also between an order's
    record and its sending and between its sending and the answer, and started again. At the end ledger and broker must agree.
    """
    from mqd_ledger.cli import output
    from mqd_ledger.crashtest import session

    def tell(number: int, kill: "Kill") -> None:
        if not as_json:
            how = "" if kill.reached else ", where it was after a while"
            click.echo(f"{number:>4}/{points}  {kill.place}, pass {kill.times}{how}: {kill.events:,} events", err=True)

    with tempfile.TemporaryDirectory() if directory is None else nullcontext(directory) as place:
        Path(place).mkdir(parents=True, exist_ok=True)
        report = session.crashtest(points, seed, faults, Path(place), tell)
    if as_json:
        output.print_json(_json(report))
    else:
        _print(report)
    if not report.passed:
        raise click.exceptions.Exit(1)


def _json(report: "Report") -> dict[str, object]:
    return {
        "passed": report.passed,
        "kills": [kill._asdict() for kill in report.kills],
        "verdicts": [verdict._asdict() for verdict in report.verdicts],
        "faults": report.faults,
    }


def _print(report: "Report") -> None:
    from mqd_ledger.cli import output
    from mqd_ledger.crashtest.victim import PLACES

    kills = Counter(kill.place for kill in report.kills)
    elsewhere = sum(not kill.reached for kill in report.kills)
    output.heading("Killed")
    for name, place in PLACES.items():
        click.echo(f"{kills[name]:>5}  {place.sentence}")
    if elsewhere:
        click.echo(f"{elsewhere:>5}  of them elsewhere: the place was not passed often enough in time")
    if report.faults:
        click.echo(f"       and at the broker: {', '.join(report.faults)}")
    click.echo()
    output.heading("Ledger and broker")
    for verdict in report.verdicts:
        click.echo(f"{'pass' if verdict.holds else 'FAIL'}  {verdict.sentence}: {verdict.detail}")
