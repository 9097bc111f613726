"""The verb `crashtest`: kill a paper session again and again, and compare with the broker what came of it."""

import shutil
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mqd_ledger.cli.options import FILE, examples, json_option

if TYPE_CHECKING:  # what it takes to trade is imported when it is done
    from mqd_ledger.crashtest.session import Kill, Report

WIDTH = 100  # columns


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
@click.option(
    "--directory", type=FILE, metavar="DIR", help="Keep ledger and broker there. Default: nowhere, if all is well."
)
@json_option
def crashtest(points: int, seed: int, faults: str, directory: Path | None, as_json: bool) -> None:
    """Kill a trading session at seeded places, and prove that it came back.

    Two strategies that trade all the time run against a loopback server. Their process is killed with SIGKILL, also between an
    order's record and its sending and between its sending and the answer, and started again. At the end ledger and broker must
    agree. It takes two to three seconds for each kill.
    """
    from mqd_ledger.cli import output
    from mqd_ledger.crashtest import session

    def tell(number: int, kill: "Kill") -> None:
        if not as_json:
            how = f"pass {kill.times}" if kill.reached else "not passed in time, killed where it was"
            click.echo(f"{number:>5}/{points}  {kill.place}, {how}: {kill.events:,} events", err=True)

    place = Path(tempfile.mkdtemp(prefix="mqd-crashtest-")) if directory is None else directory
    passed = False
    try:
        report = session.crashtest(list(session.plan(points, seed)), seed, faults, place, tell)
        passed = report.passed
    finally:
        if directory is None and passed:
            shutil.rmtree(place)
        elif directory is None:
            click.echo(f"What it left behind is kept for a look: {place}", err=True)
    if as_json:
        output.print_json(_json(report))
    else:
        _print(report, faults)
    if not passed:
        raise click.exceptions.Exit(1)


def _json(report: "Report") -> dict[str, object]:
    record = report.record._asdict()
    return {
        "passed": report.passed,
        "kills": [kill._asdict() for kill in report.kills],
        "verdicts": [verdict._asdict() for verdict in report.verdicts],
        "faults": report.faults,
        "record": {name: record[name] for name in ("starts", "sent", "sent_again", "cancels", "fills", "differences")},
        "seconds": round(report.seconds),
    }


def _print(report: "Report", faults: str) -> None:
    from mqd_ledger.cli import output
    from mqd_ledger.crashtest.victim import PLACES

    record = report.record
    places = Counter(kill.place for kill in report.kills)
    reached = Counter(kill.place for kill in report.kills if kill.reached)
    late = len(report.kills) - reached.total()
    output.heading(f"Killed {len(report.kills)} times in {report.seconds:.0f} s")
    _rows([(f"{reached[name]:>5}", PLACES[name].sentence) for name in places], 7)
    if late:
        _rows([(f"{late:>5}", "where they were, because they did not come by their place in time")], 7)
    differences = ", ".join(f"{kind} {count}" for kind, count in record.differences.items()) or "none"
    happened = ", ".join(f"{kind} {count}" for kind, count in report.faults.items()) or "nothing"
    click.echo()
    _rows(
        [
            ("recoveries", f"{record.starts:,}"),
            ("orders", f"{record.sent:,} sent, {record.sent_again:,} of them again, {record.cancels:,} to be canceled"),
            ("fills", f"{record.fills:,}"),
            ("differences", differences),
            (f"faults ({faults})", happened),
        ],
        18,
    )
    click.echo()
    output.heading("Ledger and broker")
    for verdict in report.verdicts:
        _rows([("pass" if verdict.holds else "FAIL", f"{verdict.sentence}: {verdict.detail}")], 6)


def _rows(rows: Sequence[tuple[str, str]], indent: int) -> None:
    """Names and texts in two columns, no line longer than a page is wide."""
    for name, text in rows:
        lines: Callable[..., list[str]] = textwrap.wrap
        for number, line in enumerate(lines(text, WIDTH - indent, break_long_words=False, break_on_hyphens=False)):
            click.echo(f"{'' if number else name:<{indent}}{line}")
