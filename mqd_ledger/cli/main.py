"""`mqd-ledger`: the verbs, and the outermost edge where an error becomes a sentence and an exit code.

To add a verb: a click command in one of this package's modules and a row in `VERBS`. The group's help comes from the table, so
no module is imported before one of its verbs is wanted.
"""

import errno
import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import click

from mqd_ledger import __version__
from mqd_ledger.errors import BadInput, LedgerError

PROGRAM = "mqd-ledger"
COMPLETION = "_MQD_LEDGER_COMPLETE"  # set by the shell: click's own convention
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EIO)
NOBODY_READS = 141  # 128 + SIGPIPE: `mqd-ledger orders | head`


class Verb(NamedTuple):
    family: str
    module: str
    attribute: str
    summary: str  # the first line of the verb's own help


VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        "run": Verb("Trade", "run", "run", "Trade: on bars of a file, or with a broker."),
        "backtest": Verb("Trade", "run", "backtest", "Run a strategy over past bars and report what came of it."),
        "loopback": Verb(
            "Trade", "loopback", "loopback", "Serve a made-up Alpaca on this machine: REST and both streams."
        ),
        "halt": Verb("Trade", "control", "halt", "Stop all trading until a resume."),
        "reduce": Verb("Trade", "control", "reduce", "Allow only orders that make positions smaller."),
        "resume": Verb("Trade", "control", "resume", "Trade again after a halt or a reduce."),
        "kill": Verb("Trade", "control", "kill", "Cancel every order and close every position, at once."),
        "reconcile": Verb(
            "Trade",
            "control",
            "reconcile",
            "Show where the books differ from the broker's account, or accept a difference.",
        ),
        "status": Verb("Look", "look", "status", "Show the account: trading state, money, limits, last event."),
        "positions": Verb("Look", "look", "positions", "List what is held now."),
        "orders": Verb("Look", "look", "orders", "List orders, newest first."),
        "pnl": Verb("Look", "look", "pnl", "Show realized P&L by day, symbol or strategy."),
        "sql": Verb("Look", "query", "sql", "Ask the ledger in SQL; nothing can be changed by it."),
        "why": Verb("Prove", "look", "why", "Tell why an order was sent, or was not, and what it earned."),
        "replay": Verb("Prove", "look", "replay", "Show everything as it was at an instant."),
        "verify": Verb("Prove", "look", "verify", "Prove that the ledger is whole and says what happened."),
        "crashtest": Verb(
            "Prove", "crashtest", "crashtest", "Kill a trading session at seeded places, and prove that it came back."
        ),
        "init": Verb("Ledger", "ledger", "init", "Make a new, empty ledger."),
        "config": Verb("Ledger", "ledger", "config", "Check the settings."),
        "doctor": Verb("Ledger", "doctor", "doctor", "Look whether everything that trading needs is in place."),
        "import": Verb("Ledger", "ledger", "import_", "Bring in bars, or an exported ledger."),
        "export": Verb("Ledger", "ledger", "export", "Write the whole log as Parquet or JSON Lines."),
        "backup": Verb("Ledger", "ledger", "backup", "Copy the ledger, also while another process writes it."),
    }
)
EPILOG = f"""\b
Exit codes:
  0  done
  1  a check found something wrong
  2  the command or its input is not usable
  3  another process writes the ledger
  4  the ledger is missing or cannot be read
  5  the log contradicts itself

\b
Completion in the shell:
  bash   eval "$({COMPLETION}=bash_source {PROGRAM})"
  zsh    eval "$({COMPLETION}=zsh_source {PROGRAM})"
  fish   {COMPLETION}=fish_source {PROGRAM} | source

\b
Begin with:
  {PROGRAM} run --paper
  {PROGRAM} status
"""


class LazyGroup(click.Group):
    """A group whose verbs are imported when one is used."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        command = getattr(importlib.import_module(f"mqd_ledger.cli.{verb.module}"), verb.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, VERBS))
        for family in dict.fromkeys(verb.family for verb in VERBS.values()):
            with formatter.section(family):
                rows = [(name.ljust(width), verb.summary) for name, verb in VERBS.items() if verb.family == family]
                formatter.write_dl(rows)


@click.group(PROGRAM, cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROGRAM)
def cli() -> None:
    """Trade, and prove afterwards what happened.

    Every order, risk decision, fill and bar is an event in one append-only ledger file. Each verb explains itself:
    mqd-ledger VERB --help.
    """


def execute(arguments: Sequence[str]) -> int:
    """Do what the arguments say; the exit code. What is not one of our errors is a bug and keeps its traceback."""
    try:
        _check_readable(arguments)
        with cli.make_context(PROGRAM, list(arguments)) as context:
            code = cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:  # --help and --version
        return ended.exit_code
    except click.ClickException as usage:
        usage.show()
        return usage.exit_code
    except LedgerError as error:
        for line in str(error).splitlines():
            click.echo(f"{PROGRAM}: {line}", err=True)
        return error.exit_code
    except KeyboardInterrupt:
        click.echo(f"{PROGRAM}: interrupted.", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_output()
        return NOBODY_READS
    except OSError as error:
        if error.filename is None and error.errno not in NO_ROOM:
            raise
        if error.filename is None:
            _give_up_output()
            click.echo(f"{PROGRAM}: the output cannot be written: {error.strerror}. Make room and ask again.", err=True)
            return LedgerError.exit_code
        click.echo(f"{PROGRAM}: {error.filename} cannot be used: {error.strerror}.", err=True)
        return LedgerError.exit_code
    return code if isinstance(code, int) else 0


def _check_readable(arguments: Sequence[str]) -> None:
    """What an argument says may end in the log, which is UTF-8, or name a file."""
    for argument in arguments:
        shown = argument.encode("utf-8", "backslashreplace").decode()
        if shown != argument or "\0" in argument:
            raise BadInput(
                f"The argument {shown!r} holds bytes that are not UTF-8 text. Write it in UTF-8, or rename the file."
            )


def _give_up_output() -> None:
    """What is still buffered has no reader or no room; Python would complain about it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Files and pipes are UTF-8 everywhere, also on Windows; a terminal keeps its own encoding.
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
    instruction = os.environ.get(COMPLETION)
    if instruction:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(cli, {}, PROGRAM, COMPLETION, instruction))
    sys.exit(execute(sys.argv[1:]))
