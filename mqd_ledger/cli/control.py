"""The verbs that change what may be traded: halt, reduce, resume."""

import getpass
from pathlib import Path

import click

from mqd_ledger.cli.options import examples, existing_ledger, ledger_option

reason_option = click.option("--reason", required=True, metavar="TEXT", help="Why, for whoever reads the log later.")


def operator() -> str:
    """Who gives the command, as far as this machine knows."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may have a user without a name
        return "unknown"


def _control(verb: str, ledger: Path | None, reason: str) -> None:
    path = existing_ledger(ledger)
    from mqd_ledger import app

    click.echo(app.control(path, verb, operator(), reason))


@click.command("halt", epilog=examples('halt --reason "the feed looks wrong"'))
@reason_option
@ledger_option
def halt(reason: str, ledger: Path | None) -> None:
    """Stop all trading until a resume.

    No new order passes the risk gate, not even one that would close a position. It is recorded with your name and reason,
    survives restarts, and reaches a run that is trading now.
    """
    _control("halt", ledger, reason)


@click.command("reduce", epilog=examples('reduce --reason "before the announcement"'))
@reason_option
@ledger_option
def reduce(reason: str, ledger: Path | None) -> None:
    """Allow only orders that make positions smaller.

    Exits and stops keep working, entries are denied, until a resume.
    """
    _control("reduce", ledger, reason)


@click.command("resume", epilog=examples('resume --reason "the feed is good again"'))
@reason_option
@ledger_option
def resume(reason: str, ledger: Path | None) -> None:
    """Trade again after a halt or a reduce."""
    _control("resume", ledger, reason)
