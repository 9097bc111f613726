"""The verb `sql`: questions in SQL over the log and its tables, always fresh, never a change."""

import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from mqd_ledger.cli.options import FILE, examples, existing_ledger, ledger_option
from mqd_ledger.errors import BadInput

if TYPE_CHECKING:  # duckdb is slow to import and --help does not need it
    from mqd_ledger.warehouse.outputs import Format


@click.command(
    "sql",
    epilog=examples(
        'sql "select symbol, sum(realized_pnl) from pnl_daily group by symbol"',
        'sql "select * from orders" --format csv --out orders.csv',
        "sql --views",
        "sql - < question.sql",
    ),
)
@click.argument("query", required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    show_default=True,
    help="JSON has amounts as text.",
)
@click.option("--out", type=FILE, metavar="FILE", help="Write to a file instead of the terminal.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=60,
    show_default=True,
    help="Time limit.",
)
@click.option("--views", is_flag=True, help="List what can be asked: the views and their columns.")
@ledger_option
def sql(query: str | None, form: str, out: Path | None, seconds: float, views: bool, ledger: Path | None) -> None:
    """Ask the ledger in SQL; nothing can be changed by it.

    QUERY is one select of DuckDB's dialect; `-` reads it from standard input. It sees all that is recorded by now, also while
    another process trades.
    """
    if views:
        _print_views()
        return
    if query is None:
        raise BadInput('Give a query, such as "select * from orders", or --views to see what can be asked.')
    if form == "parquet" and out is None:
        raise BadInput("Parquet is not for the terminal: say where it goes with --out FILE.")
    if form == "table" and out is not None:
        raise BadInput("A table is for the terminal: add --format csv, json or parquet to --out.")
    text = sys.stdin.read() if query == "-" else query
    path = existing_ledger(ledger)
    from mqd_ledger.cli import output
    from mqd_ledger.warehouse import run_query, write_result

    with output.working("reading the log") as came_to:
        result = run_query(path, text, seconds=seconds, progress=came_to)
    if form == "table":
        _print_table(result.columns, result.rows)
    else:
        write_result(result, out or sys.stdout, cast("Format", form))


def _print_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from mqd_ledger.cli import output

    columns = []
    for place, name in enumerate(names):
        is_number = all(isinstance(row[place], int | float | Decimal | None) for row in rows)
        columns.append(output.Column(name, name, right=is_number, words=not is_number))
    if rows:
        output.grid(columns, [[output.text(value) for value in row] for row in rows])
    else:
        output.say(f"No rows. The columns are {', '.join(names)}.")


def _print_views() -> None:
    from mqd_ledger.cli import output
    from mqd_ledger.warehouse import views_help

    output.facts((view, ", ".join(columns)) for view, columns in views_help().items())
