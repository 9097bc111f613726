"""The verbs that change what may be traded: halt, reduce, resume, kill, and reconcile, which accepts what the broker says."""

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mqd_ledger.cli.options import examples, existing_ledger, json_option, ledger_option, ledger_words
from mqd_ledger.errors import BadInput

if TYPE_CHECKING:  # nothing of it is needed to say what a verb does
    from mqd_ledger.state import State

reason_option = click.option("--reason", required=True, metavar="TEXT", help="Why, for whoever reads the log later.")


def operator() -> str:
    """Who gives the command, as far as this machine knows."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may have a user without a name
        return "unknown"


def clock() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  the shell's clock, for what an operator does while nobody trades


def _control(verb: str, ledger: Path | None, reason: str, argument: str = "") -> None:
    path = existing_ledger(ledger)
    from mqd_ledger import wishes

    click.echo(wishes.carry_out(path, wishes.Wish(verb, operator(), reason, argument), clock))


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


@click.command("kill", epilog=examples('kill --reason "it buys what it should not"'))
@reason_option
@ledger_option
@click.option("--loopback-url", metavar="URL", help="Of the ledger's loopback server, where that runs by itself.")
def kill(reason: str, ledger: Path | None, loopback_url: str | None) -> None:
    """Cancel every order and close every position, at once.

    It is recorded first; then no new order goes out, every order is canceled, every position closed, and the broker asked until it
    shows that nothing is left. It survives restarts; only a resume lets trading begin again. Where this program cannot be
    started, `touch paper.ledger.kill` does the same to the run on paper.ledger.

    Exit code 2 where there is or may be a broker's account and it has not shown that nothing is left, unless a running process has
    taken it over: `mqd-ledger status` shows when that is done.
    """
    path = existing_ledger(ledger)
    from mqd_ledger import wishes
    from mqd_ledger.cli import output

    def finish(ledger: Path, state: "State") -> str:
        from mqd_ledger.cli import desk

        return desk.finish_kill(ledger, state, loopback_url)

    output.say(wishes.kill(path, operator(), reason, clock, finish=finish))
    if _may_be_open(path):
        raise BadInput(
            f"The broker has not shown that nothing is left in the account of {path}. Where a run cannot close it, close orders "
            "and positions in the broker's own web page."
        )


def _may_be_open(ledger: Path) -> bool:
    """Whether there may be something at a broker, of which no process takes care and nobody has seen that it is gone."""
    from mqd_ledger import lock
    from mqd_ledger.envelope import stored_names
    from mqd_ledger.events import KillSwitchActivated, KillSwitchCompleted
    from mqd_ledger.live_safety import SIMULATED, modes_of
    from mqd_ledger.log import LogReader
    from mqd_ledger.operator_requests import kill_file

    if SIMULATED.issuperset(modes_of(ledger)):
        return False
    if lock.holder(ledger) is not None:
        return kill_file(ledger).exists()  # which was left because it does not answer
    with LogReader.open(ledger) as log:
        told = [one.event for one in log.replay(types=stored_names(KillSwitchActivated, KillSwitchCompleted))]
    return not told or not isinstance(told[-1], KillSwitchCompleted)


@click.command(
    "reconcile",
    epilog=examples("reconcile", 'reconcile --accept D3 --reason "sold by hand yesterday"', "reconcile --json"),
)
@click.option("--accept", "difference", metavar="ID", help="Book this difference: the books follow the broker.")
@click.option("--reason", metavar="TEXT", help="Why it is accepted, for whoever reads the log later.")
@ledger_option
@json_option
def reconcile(difference: str | None, reason: str | None, ledger: Path | None, as_json: bool) -> None:
    """Show where the books differ from the broker's account, or accept a difference.

    Small differences are booked unasked; a larger one halts trading until it is accepted. Accepting never sends an order: it
    says that the broker is right. A difference that goes away by itself is closed without that.
    """
    path = existing_ledger(ledger)
    if difference is not None:
        if reason is None:
            raise BadInput("Give --reason TEXT with --accept: why the books should follow the broker.")
        _control("accept", ledger, reason, difference)
        return
    if reason is not None:
        raise BadInput("--reason belongs to --accept ID; without it the differences are only shown.")
    from mqd_ledger import wishes
    from mqd_ledger.cli import output

    found = wishes.differences(path)
    if as_json:
        output.print_json(found)
        return
    columns = (
        output.Column("id", "difference_id"),
        output.Column("kind", "kind"),
        output.Column("subject", "subject"),
        output.Column("ours", "ours", words=True),
        output.Column("broker's", "theirs", words=True),
        output.amount("worth", "worth"),
        output.Column("since", "since", output.moment, optional=True),
    )
    evidence = output.Column("evidence", "evidence", words=True, optional=True)
    output.table((*columns, evidence), found["open"], empty="No open difference to the broker's account.")
    if found["open"]:
        click.echo()
        where = ledger_words(path)
        output.say(f'Accept one with: mqd-ledger reconcile --accept ID --reason "why the broker is right"{where}')
    if found["booked"]:
        click.echo()
        output.heading("Booked last:")
        by = (output.Column("by", "operator"), output.Column("reason", "reason", words=True, optional=True))
        output.table((*columns, *by), found["booked"], empty="")
