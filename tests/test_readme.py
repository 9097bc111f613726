"""The README tells the truth: its commands print what it shows, its map is the tree, its tables name what there is."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest

from mqd_ledger.cli.main import VERBS, cli
from mqd_ledger.errors import LedgerError
from mqd_ledger.orders import mermaid
from mqd_ledger.policy import Limits
from mqd_ledger.settings import Settings
from tests.test_project import TOP_LEVEL
from tools import dev
from tools.readme import ROOT, rendered

README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = ("commands", "mqd_ledger", "projections")
FIGURES = "<!-- figures: python tools/bench.py -->"

# What no two runs share: how long something took, and how far a run had come when it was killed.
VARYING = (
    (re.compile(r"[\d.]+ s \([\d,]+ bars/s\)"), "N s (N bars/s)"),
    (re.compile(r"(Went on after event )[\d,]+([^$]*?bars played now +)[\d,]+"), r"\1N\2N"),
)
HASH = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{16}…")


def comparable(text: str) -> list[str]:
    """Without what varies. A log's hash covers the code that wrote it, so hashes become numbers in the order in which they
    come: equal ones stay equal, different ones different.
    """
    for pattern, stand_in in VARYING:
        text = pattern.sub(stand_in, text)
    known: dict[str, str] = {}
    return HASH.sub(lambda match: known.setdefault(match[0], f"hash-{len(known) + 1}"), text).splitlines()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    match = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", README, flags=re.MULTILINE | re.DOTALL)
    assert match is not None, f"README.md has no section {title!r}"
    return match[1]


def mapped() -> Iterator[tuple[str, bool]]:
    """Every path of the map, and whether it is a folder."""
    (tree,) = [block for block in blocks("text") if "mqd_ledger/" in block]
    folders: list[str] = []
    for line in tree.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders = folders[:depth]
        yield "".join([*folders, name.rstrip("/")]), name.endswith("/")
        if name.endswith("/"):
            folders.append(name)


def children(folder: Path) -> Iterable[str]:
    """What a folder holds that is ours: modules, packages, settings."""
    for path in folder.iterdir():
        is_ours = path.suffix in {".py", ".yaml"} if path.is_file() else (path / "__init__.py").exists()
        if is_ours:
            yield path.relative_to(ROOT).as_posix()


def test_every_command_of_the_readme_prints_what_the_readme_shows(tmp_path: Path) -> None:
    now = comparable(rendered(README, tmp_path))
    assert now == comparable(README), "README.md is not what the program does now: python tools/readme.py rewrites it"


def test_the_killed_run_ends_with_the_hash_of_the_one_that_was_not() -> None:
    whole, killed = (re.findall(r"log hash +(\w{64})", section(title)) for title in ("Trade", "Kill it"))
    assert whole == killed
    assert len(whole) == 1


def test_the_first_commands_are_verbs_of_the_development_script() -> None:
    commands = re.findall(r"^python3 tools/dev\.py (\w+)", README, flags=re.MULTILINE)
    assert commands[:2] == ["paper", "test"]
    assert set(re.findall(r"tools/dev\.py (\w+)", README)) <= set(dev.VERBS)


def test_every_verb_is_mentioned_and_nothing_else_is_taken_for_one() -> None:
    group = cli.list_commands(click.Context(cli))
    assert [verb for verb in group if not re.search(rf"(`|mqd-ledger ){verb}\b", README)] == []
    used = re.findall(r"^\$ mqd-ledger (\w+)", README, flags=re.MULTILINE)
    assert set(used) <= set(VERBS)


def test_the_order_diagram_is_drawn_from_the_table() -> None:
    assert blocks("mermaid") == [f"{mermaid()}\n"]


def test_every_path_of_the_map_exists() -> None:
    wrong = [
        path for path, is_folder in mapped() if not ((ROOT / path).is_dir() if is_folder else (ROOT / path).is_file())
    ]
    assert wrong == []


def test_everything_of_the_tree_is_on_the_map() -> None:
    """A folder of which nothing is listed stands for all that it holds; of any other, all is listed but empty beginnings."""
    known = dict(mapped())
    opened = [
        path for path, is_folder in known.items() if is_folder and any(one.startswith(f"{path}/") for one in known)
    ]
    missing = {child for folder in opened for child in children(ROOT / folder)} - set(known)
    missing |= TOP_LEVEL - {".gitattributes", ".gitignore"} - {path.split("/")[0] for path in known}
    assert {path for path in missing if not path.endswith("/__init__.py")} == set()
    assert set(PACKAGES) <= set(known)


def test_every_file_named_in_the_tables_and_the_stories_exists() -> None:
    told = "".join(map(section, ("Where each change goes", "The life of one bar", "The life of one order")))
    named = set(re.findall(r"`([\w/]+\.(?:py|jsonl)|[\w]+/)`", told))
    found = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/**/*") if not path.name.startswith(".")}
    assert len(named) > 15
    assert {
        name for name in named if not any(f"/{path}".endswith(f"/{name.rstrip('/')}") for path in found | set(PACKAGES))
    } == set()


def test_every_setting_is_in_the_table() -> None:
    keys = [*Settings.model_fields.keys() - {"risk"}, *(f"risk.{name}" for name in Limits.__struct_fields__)]
    assert [key for key in keys if f"| `{key}` |" not in section("Settings and limits")] == []


@pytest.mark.parametrize("error", (LedgerError, *LedgerError.__subclasses__()))
def test_every_exit_code_is_explained(error: type[LedgerError]) -> None:
    assert f"| {error.exit_code} |" in section("Exit codes")


def test_the_figures_have_their_place() -> None:
    assert FIGURES in section("Speed")
