"""The verbs about the ledger file and what it is made from: init, config check, import, export, backup."""

from collections.abc import Callable, Mapping
from pathlib import Path

import click

from mqd_ledger.cli.options import (
    FILE,
    config_option,
    examples,
    existing_ledger,
    json_option,
    ledger_option,
    ledger_words,
    reading_bars,
    require_folder,
    set_option,
    settings_of,
    writable_ledger,
)
from mqd_ledger.errors import BadInput


@click.command("init", epilog=examples("init", "init --ledger small.ledger --id small"))
@click.option(
    "--id",
    "ledger_id",
    metavar="ID",
    help="Letters, digits, hyphens; every order's id begins with it. Default: 8 random ones.",
)
@ledger_option
def init(ledger_id: str | None, ledger: Path | None) -> None:
    """Make a new, empty ledger.

    `run --paper` makes one by itself where there is none; this one gets an id of its own, so that orders of several ledgers
    never share one.
    """
    import secrets  # noqa: TID251  the shell names a new ledger; from then on the name is in its log

    from commands.control import CreateLedger, create_ledger
    from mqd_ledger import app
    from mqd_ledger.state import State
    from mqd_ledger.values import EPOCH

    path = writable_ledger(ledger)
    ledger_id = secrets.token_hex(4) if ledger_id is None else ledger_id
    if path.exists():
        raise BadInput(f"{path} exists already. Choose another --ledger; `mqd-ledger status` shows what is in it.")
    create_ledger(CreateLedger(EPOCH, ledger_id), State())  # refuses an id that is none, before there is a file
    app.init(path, ledger_id)
    click.echo(f"Made the ledger {path} with id {ledger_id}.")
    click.echo(f"Next: mqd-ledger run --paper{ledger_words(path)}")


@click.group("config")
def config() -> None:
    """Check the settings."""


@config.command(
    "check",
    epilog=examples("config check", "config check --profile backtest --config mine.yaml --set risk.daily_loss_max=50"),
)
@click.option(
    "--profile",
    type=click.Choice(["paper", "live", "backtest"]),
    default="paper",
    show_default=True,
    help="Which mode's.",
)
@config_option
@set_option
@json_option
def check(profile: str, config: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the settings in force, or every problem at once.

    The last wins: the mode's own file, --config, variables MQD_SECTION__KEY, --set.
    """
    from mqd_ledger.cli import output

    settings = settings_of(profile, config, overrides).model_dump()
    if as_json:
        output.print_json(settings)
        return
    output.heading(f"The settings of {profile} are good:")
    output.facts((key, output.text(value)) for key, value in flat(settings))


def flat(settings: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """Each setting under the key that --set takes."""
    found: list[tuple[str, object]] = []
    for name, value in settings.items():
        key = f"{prefix}{name}"
        found += flat(value, f"{key}.") if isinstance(value, Mapping) else [(key, value)]
    return found


@click.group("import")
def import_() -> None:
    """Bring in bars, or an exported ledger."""


@import_.command(
    "bars",
    epilog=examples(
        "import bars SPY_1min.csv --zone America/New_York", "import bars quotes.csv --symbol QQQ --out history"
    ),
)
@click.argument("file", type=FILE)
@click.option("--out", type=FILE, default=Path("bars"), show_default=True, metavar="DIR", help="Where they are kept.")
@reading_bars
@click.option("--interval", metavar="LENGTH", help="How long a bar is, such as 1m, where the file does not tell.")
@json_option
def import_bars(
    file: Path, out: Path, symbol: str | None, zone: str | None, interval: str | None, strict: bool, as_json: bool
) -> None:
    """Check a file of bars, CSV or Parquet, and keep its good rows.

    Says what was understood of the file, which rows were rejected and why, and which regular bars are missing.
    """
    from mqd_ledger.cli import output
    from mqd_ledger.feeds.importing import SHOWN_REJECTS, ImportReport
    from mqd_ledger.feeds.importing import import_bars as bring_in

    with output.working(f"reading {file.name}"):
        report: ImportReport = bring_in(file, out, symbol=symbol, zone=zone, interval=interval, strict=strict)
    symbols = [
        {name: getattr(one, name) for name in ("symbol", "count", "first_at", "last_at", "missing")}
        for one in report.symbols
    ]
    rejects = [{"line": one.line, "reason": one.reason, "raw": one.raw} for one in report.rejects]
    if as_json:
        counts = {name: getattr(report, name) for name in ("source", "out", "sha256", "read", "written", "rejected")}
        output.print_json({**counts, "symbols": symbols, "rejects": rejects, "rejects_file": report.rejects_file})
        return
    for line in str(report.detection).splitlines():
        output.say(line, following="  ")
    click.echo()
    output.table(
        (
            output.Column("symbol", "symbol"),
            output.Column("bars", "count", right=True),
            output.Column("first", "first_at", output.moment),
            output.Column("last", "last_at", output.moment),
            output.Column("missing", "missing", right=True),
        ),
        symbols,
        empty="No bars.",
    )
    click.echo()
    output.say(
        f"{output.counted(report.written, 'bar')} written to {report.out}; {output.counted(report.rejected, 'row')} rejected."
    )
    if rejects:
        for one in report.rejects[:SHOWN_REJECTS]:
            output.say(f"line {one.line}: {one.reason}", indent="  ", following="    ")
        output.say(f"All rejected rows are in {report.rejects_file}.")
    output.say(f"Next: mqd-ledger run --paper --bars {report.out}")


@import_.command("log", epilog=examples("import log archive.parquet --ledger restored.ledger"))
@click.argument("file", type=FILE)
@click.option("--ledger", type=FILE, required=True, metavar="NEW", help="The ledger to make; it must not exist yet.")
def import_log(file: Path, ledger: Path) -> None:
    """Make a ledger from an export, event for event and hash for hash.

    The chain is checked on the way; a file that was altered makes no ledger at all.
    """
    require_folder("--ledger", ledger)
    from mqd_ledger.archive import import_archive
    from mqd_ledger.cli import output

    with output.working(f"importing {file.name}"):
        head = import_archive(file, ledger)
    click.echo(
        f"Made the ledger {ledger} from {file}: {output.counted(head.position, 'event')} up to hash {head.hash.hex()}."
    )
    click.echo(f"Next: mqd-ledger verify{ledger_words(ledger)}")


@click.command("export", epilog=examples("export --format parquet --out archive.parquet"))
@click.option(
    "--format", "form", type=click.Choice(["parquet", "jsonl"]), required=True, help="Parquet, or JSON Lines as text."
)
@click.option("--out", type=FILE, required=True, metavar="FILE", help="The file to write.")
@ledger_option
def export(form: str, out: Path, ledger: Path | None) -> None:
    """Write the whole log as Parquet or JSON Lines.

    Every event with its envelope and hash; `import log` makes the same ledger of it again.
    """
    path = existing_ledger(ledger)
    if out.is_dir():
        raise BadInput(f"{out} is a directory; --out names the file to write.")
    from mqd_ledger import archive
    from mqd_ledger.chain import Head
    from mqd_ledger.cli import output

    writers: Mapping[str, Callable[[Path, Path], Head]] = {
        "parquet": archive.export_parquet,
        "jsonl": archive.export_jsonl,
    }
    with output.working(f"exporting to {out.name}"):
        head = writers[form](path, out)
    click.echo(
        f"Wrote the log of {path} to {out}: {output.counted(head.position, 'event')} up to hash {head.hash.hex()}."
    )


@click.command("backup", epilog=examples("backup paper-2026-01-05.ledger"))
@click.argument("file", type=FILE)
@ledger_option
def backup(file: Path, ledger: Path | None) -> None:
    """Copy the ledger, also while another process writes it.

    The copy is a ledger itself: to restore, use it with --ledger or put it in the old one's place.
    """
    path = existing_ledger(ledger)
    if file.exists():
        raise BadInput(f"{file} exists already, and a backup overwrites nothing. Give a new name.")
    from mqd_ledger import store
    from mqd_ledger.cli import output

    with output.working(f"copying to {file.name}"):
        head = store.backup(path, file)
    click.echo(f"Copied {path} to {file}: {output.counted(head.position, 'event')} up to hash {head.hash.hex()}.")
