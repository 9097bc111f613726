"""The verbs that look and prove: status, positions, orders, pnl, replay, why, verify. None of them changes anything."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from mqd_ledger.cli.options import examples, existing_ledger, json_option, ledger_option, moment

if TYPE_CHECKING:
    from mqd_ledger.audit.why import Explanation

STATES = ("PENDING", "SUBMITTED", "PARTIALLY_FILLED", "FILLED", "CANCELED", "REJECTED", "EXPIRED")
ORDERS_SHOWN = 20
COUNTED = ("closings", "wins", "losses")
SUMMED = ("realized_pnl", "commissions", "fees")


@click.command("status", epilog=examples("status", "status --json --ledger spy.ledger"))
@ledger_option
@json_option
def status(ledger: Path | None, as_json: bool) -> None:
    """Show the account: trading state, money, limits, last event."""
    path = existing_ledger(ledger)
    from mqd_ledger import app
    from mqd_ledger.cli import output

    found = app.status(path)
    if as_json:
        output.print_json(found)
        return
    limits = found.pop("limits")
    output.facts((_name(key), _amount(key, value)) for key, value in found.items() if value not in (None, "", [], {}))
    click.echo()
    output.facts(((_name(key), _amount(key, value)) for key, value in limits.items()), "Limits")


@click.command("positions", epilog=examples("positions", "positions --json"))
@ledger_option
@json_option
def positions(ledger: Path | None, as_json: bool) -> None:
    """List what is held now.

    The market value is at the price of each symbol's last bar.
    """
    path = existing_ledger(ledger)
    from mqd_ledger.cli import output
    from mqd_ledger.log import LogReader
    from mqd_ledger.snapshots import Snapshots, restore

    rows = _rows(path, "positions")
    with LogReader.open(path) as log:
        marks = restore(log, Snapshots(path, read_only=True)).marks if rows else {}
    for row in rows:
        price = marks[row["symbol"]].price if row["symbol"] in marks else None  # held, but no bar of it was seen
        value = None if price is None else row["quantity"] * price
        gain = None if value is None else value - row["cost_basis"]
        row |= {"mark_price": price, "market_value": value, "unrealized_pnl": gain}
    if as_json:
        output.print_json(rows)
        return
    columns = (
        output.Column("symbol", "symbol"),
        output.Column("side", "side", optional=True),
        output.amount("quantity", "quantity", output.text),
        output.amount("average price", "average_price", output.price),
        output.amount("last price", "mark_price", output.price),
        output.amount("market value", "market_value"),
        output.amount("unrealized P&L", "unrealized_pnl"),
        output.Column("opened", "opened_at", output.moment, optional=True),
    )
    output.table(columns, rows, empty="No open position.")


@click.command("orders", epilog=examples("orders", "orders --state REJECTED --limit 5", "orders --symbol SPY --json"))
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Only orders in this state.")
@click.option("--symbol", metavar="SYMBOL", help="Only orders of this symbol.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"At most so many. Default: {ORDERS_SHOWN} in a table, all with --json.",
)
@ledger_option
@json_option
def orders(state: str | None, symbol: str | None, limit: int | None, ledger: Path | None, as_json: bool) -> None:
    """List orders, newest first."""
    path = existing_ledger(ledger)
    from mqd_ledger.cli import output

    wanted = {"state": state, "symbol": symbol and symbol.upper()}
    found = [
        row
        for row in _rows(path, "orders", "position desc")
        if all(value is None or row[name] == value for name, value in wanted.items())
    ]
    if as_json:
        output.print_json(found[:limit])
        return
    shown = found[: limit or ORDERS_SHOWN]
    columns = (
        output.Column("order", "client_order_id"),
        output.Column("requested", "requested_at", output.moment, optional=True),
        output.Column("strategy", "strategy", optional=True),
        output.Column("symbol", "symbol"),
        output.Column("side", "side"),
        output.Column("type", "order_type", optional=True),
        output.amount("quantity", "quantity", output.text),
        output.amount("filled", "filled_quantity", output.text),
        output.amount("at", "average_fill_price", output.price),
        output.Column("state", "state"),
        output.Column("reason", "reason", words=True, optional=True),
    )
    output.table(columns, shown, empty="No such order." if state or symbol else "No order yet.")
    if len(found) > len(shown):
        output.say(f"{len(found) - len(shown):,} older ones are not shown; --limit {len(found)} shows all.")


@click.command("pnl", epilog=examples("pnl", "pnl --by strategy", "pnl --by symbol --json"))
@click.option(
    "--by",
    type=click.Choice(["day", "symbol", "strategy"]),
    default="day",
    show_default=True,
    help="What each row is about.",
)
@ledger_option
@json_option
def pnl(by: str, ledger: Path | None, as_json: bool) -> None:
    """Show realized P&L by day, symbol or strategy.

    Net is after commissions and fees. A trading day begins as the settings say: at midnight UTC, or in New York.
    """
    path = existing_ledger(ledger)
    from mqd_ledger.cli import output

    key = "trade_date" if by == "day" else by
    booked = _rows(path, "pnl_daily")
    rows = [
        {key: name, **_summed(row for row in booked if row[key] == name)}
        for name in sorted({row[key] for row in booked})
    ]
    total = _summed(booked)
    if as_json:
        output.print_json({"by": by, "rows": rows, "total": total})
        return
    columns = (
        output.Column(by, key),
        output.amount("realized", "realized_pnl"),
        output.amount("commissions", "commissions", optional=True),
        output.amount("fees", "fees", optional=True),
        output.amount("net", "net_pnl"),
        output.amount("closings", "closings", output.text),
        output.amount("wins", "wins", output.text),
        output.amount("losses", "losses", output.text),
    )
    output.table(columns, [*rows, {key: "total", **total}] if rows else [], empty="Nothing was closed or charged yet.")


def _summed(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sums over rows of `pnl_daily`."""
    known = list(rows)
    sums: dict[str, Any] = {name: sum((row[name] for row in known), Decimal(0)) for name in SUMMED}
    net = sums["realized_pnl"] - sums["commissions"] - sums["fees"]
    return {**sums, "net_pnl": net, **{name: sum(row[name] for row in known) for name in COUNTED}}


@click.command(
    "replay", epilog=examples("replay --until 2026-01-05T15:30:00Z", "replay --until 2026-01-05T10:30:00-05:00 --json")
)
@click.option(
    "--until", required=True, metavar="TIME", help="The instant, with Z or an offset; a date (UTC) with its whole day."
)
@click.option(
    "--by",
    type=click.Choice(["recorded-time", "event-time"]),
    default="recorded-time",
    show_default=True,
    help="As it was known then, or as it was then, with what was reported only later.",
)
@ledger_option
@json_option
def replay(until: str, by: str, ledger: Path | None, as_json: bool) -> None:
    """Show everything as it was at an instant.

    Orders, positions, P&L, limits and trading state, folded from the log up to there.
    """
    at = moment("--until", until, is_end=True)
    path = existing_ledger(ledger)
    from mqd_ledger import app
    from mqd_ledger.cli import output

    reading: Literal["recorded", "event"] = "event" if by == "event-time" else "recorded"
    with output.working("replaying"):
        found = app.replay(path, at, reading)
    if as_json:
        output.print_json(found)
        return
    tables = {name: found.pop(name) for name in ("orders", "positions", "lots", "pnl_daily")}
    limits = found.pop("limits")
    output.facts((_name(key), _amount(key, value)) for key, value in found.items())
    click.echo()
    output.facts(((_name(key), _amount(key, value)) for key, value in limits.items()), "Limits")
    click.echo()
    output.heading("Positions")
    columns = (
        output.Column("symbol", "symbol"),
        output.amount("quantity", "quantity", output.text),
        output.amount("average price", "average_price", output.price),
        output.amount("cost", "cost_basis"),
        output.Column("opened", "opened_at", output.moment, optional=True),
    )
    output.table(columns, tables["positions"], empty="No open position.")
    states: dict[str, int] = {}
    for order in tables["orders"]:
        states[order["state"]] = states.get(order["state"], 0) + 1
    click.echo()
    output.facts(
        ((state, f"{count:,}") for state, count in sorted(states.items())),
        output.counted(len(tables["orders"]), "order"),
    )
    click.echo()
    lots, rows = output.counted(len(tables["lots"]), "lot"), output.counted(len(tables["pnl_daily"]), "row")
    output.say(f"--json has every order, {lots} and the P&L of {rows}.")


@click.command("why", epilog=examples("why 5f3a9c01-1-000004", "why 000004 --json"))
@click.argument("order")
@ledger_option
@json_option
def why(order: str, ledger: Path | None, as_json: bool) -> None:
    """Tell why an order was sent, or was not, and what it earned.

    From the bar over the signal and every risk check to the broker's word, the fills and the P&L. ORDER is its id, or the end of
    it where no other ends so.
    """
    path = existing_ledger(ledger)
    from mqd_ledger.audit.why import explain
    from mqd_ledger.cli import output

    explanation = explain(path, order)
    if as_json:
        steps = [{**step._asdict(), "details": dict(step.details)} for step in explanation.steps]
        output.print_json({"client_order_id": explanation.client_order_id, "steps": steps})
    else:
        _print_story(explanation)


def _print_story(explanation: "Explanation") -> None:
    """One branch for each event, its particulars under it."""
    from mqd_ledger.cli import output

    output.heading(explanation.client_order_id)
    last = len(explanation.steps) - 1
    for place, step in enumerate(explanation.steps):
        branch, trunk = ("└─ ", "   ") if place == last else ("├─ ", "│  ")
        click.echo(f"{branch}{output.moment(step.at)}  {step.event}  #{step.position}")
        output.say(step.text, indent=f"{trunk}   ")
        for name, value in step.details:
            output.say(f"{name}: {value}" if value else name, indent=f"{trunk}     ", following=f"{trunk}       ")


@click.command("verify", epilog=examples("verify", "verify --rerun", "verify --json --ledger restored.ledger"))
@click.option("--rerun", is_flag=True, help="Also run broker and strategies again over the recorded bars.")
@ledger_option
@json_option
def verify(rerun: bool, ledger: Path | None, as_json: bool) -> int:
    """Prove that the ledger is whole and says what happened.

    No event altered, missing, moved or inserted; every decision comes out the same from its recorded inputs; the tables equal a
    rebuild. Exit code 1 if a proof fails.
    """
    path = existing_ledger(ledger)
    from mqd_ledger.app import verify as prove
    from mqd_ledger.cli import output

    with output.json_alone(wanted=as_json), output.working("proving"):
        findings = prove(path, rerun=rerun)
    passed = all(finding.passed for finding in findings)
    if as_json:
        output.print_json({"ledger": path, "passed": passed, "findings": [finding._asdict() for finding in findings]})
    else:
        for finding in findings:
            output.say(
                f"{finding.name}: {finding.detail}", indent="pass  " if finding.passed else "FAIL  ", following="      "
            )
    return 0 if passed else 1


# --- what they share --------------------------------------------------------------------------------------------------


def _rows(ledger: Path, table: str, order_by: str | None = None) -> list[dict[str, Any]]:
    """The rows of a projection, caught up with the log."""
    from mqd_ledger.projector import Projector

    projector = Projector(ledger)
    projector.catch_up()
    try:
        return projector.rows(table, order_by)
    finally:
        projector.close()


def _name(key: str) -> str:
    return key.replace("_", " ").replace("pnl", "P&L")


def _amount(key: str, value: Any) -> str:
    from mqd_ledger.cli import output

    if isinstance(value, Decimal):
        return output.percent(value) if key == "drawdown" else output.money(value)
    return output.text(value)
