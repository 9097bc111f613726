"""What the project promises about itself: its layout, its pins, its size and how quickly it starts."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools import dev

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")

TOP_LEVEL = {
    *(".ci", ".gitattributes", ".gitignore", "README.md", "pyproject.toml", "requirements.lock"),
    *("commands", "config", "mqd_ledger", "projections", "tests", "tools"),
}
LINES_MAX = 400  # about 300 is the aim
HEAVY = {
    *(
        "aiohttp",
        "alpaca",
        "asyncio",
        "discord_webhook",
        "dotenv",
        "duckdb",
        "eventsourcing",
        "filelock",
        "msgpack",
        "msgspec",
    ),
    *("numpy", "pandas", "pydantic", "requests", "rich", "sqlite3", "ssl", "stamina", "urllib3", "websockets", "yaml"),
}
MODULES = {"alpaca-py": "alpaca", "discord-webhook": "discord_webhook", "python-dotenv": "dotenv", "PyYAML": "yaml"}
EVERYWHERE = {
    "msgspec",
    "pydantic",
    "tzdata",
    "discord_webhook",
}  # no homes: shapes of data, data alone, and not used yet
# Where this project may point to: this machine, addresses that nobody has, and the broker.
HOSTS = r"127\.0\.0\.1|localhost|10\.0\.0\.1|somewhere\.else|\[|\{|(?:[\w-]+\.)*alpaca\.markets"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, tuple[str, int]]:
    """Each locked library: its version and how many hashes it has."""
    found: dict[str, tuple[str, int]] = {}
    name = ""
    for line in LOCK.splitlines():
        if pinned := re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)", line):
            name = canonical(pinned[1])
            assert name not in found, f"{name} is locked twice: one version for every platform and Python"
            found[name] = (pinned[2], 0)
        elif line.strip().startswith("--hash=sha256:"):
            version, hashes = found[name]
            found[name] = (version, hashes + 1)
        else:
            assert line.lstrip().startswith("#"), f"requirements.lock holds something else than pins and hashes: {line}"
    return found


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported_modules(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def test_the_top_level_holds_exactly_what_the_layout_names() -> None:
    try:
        command = ["git", "ls-files", "-z", "--cached"]  # what a reader of the README left here is not the project
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as reason:
        pytest.skip(f"the files of the project are known only in a git checkout: {reason}")
    paths = [name for name in listing.stdout.decode().split("\0") if name and (ROOT / name).exists()]
    assert {name.split("/")[0] for name in paths} == TOP_LEVEL
    assert [name for name in paths if name.startswith(".ci/")] == [".ci/run"]


def test_every_locked_library_has_hashes_and_no_address() -> None:
    assert len(locked()) > 20
    assert [name for name, (_, hashes) in locked().items() if not hashes] == []
    assert [line for line in LOCK.splitlines() if "://" in line or " @ " in line or "index" in line.split("#")[0]] == []


def test_every_pin_of_the_project_is_the_locked_one() -> None:
    pins = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]]
    pins += PROJECT["dependency-groups"]["dev"]
    inexact = [requirement for requirement in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", requirement)]
    assert inexact == []
    versions = {name: version for name, (version, _) in locked().items()}
    assert {canonical(name): version for name, version in (pin.split("==") for pin in pins)}.items() <= versions.items()


def test_set_up_needs_only_the_standard_library() -> None:
    tree = ast.parse((ROOT / "tools" / "dev.py").read_text(encoding="utf-8"))
    assert {name.split(".")[0] for name in imported_modules(tree)} <= set(sys.stdlib_module_names)


def test_an_old_python_can_read_the_set_up_far_enough_to_say_that_it_is_too_old() -> None:
    ast.parse((ROOT / "tools" / "dev.py").read_text(encoding="utf-8"), feature_version=(3, 7))


def test_an_unfinished_environment_is_never_taken_for_a_finished_one(tmp_path: Path) -> None:
    python = dev.program(tmp_path, "python")
    python.parent.mkdir()
    python.touch()
    assert dev.stamped(tmp_path) == ("", "")
    dev.write_stamp(tmp_path, "libraries", "project")
    assert dev.stamped(tmp_path) == ("libraries", "project")
    python.unlink()
    assert dev.stamped(tmp_path) == ("", "")


def test_another_activated_python_does_not_reach_the_programs_that_set_up_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere/else")
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    monkeypatch.setenv("PIP_INDEX_URL", "the user's own")
    environment = dev.environment(tmp_path)
    assert environment["VIRTUAL_ENV"] == str(tmp_path)
    assert "PYTHONPATH" not in environment
    assert environment["PIP_INDEX_URL"] == "the user's own"


def test_no_file_outgrows_what_a_reader_holds_in_mind() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources("mqd_ledger", "commands", "projections", "tools")
    }
    assert {name: length for name, length in lengths.items() if length > LINES_MAX} == {}


def rule(name: str) -> dict[str, Any]:
    return next(rule for rule in PROJECT["tool"]["importlinter"]["contracts"] if rule["id"] == name)


def layer_rows() -> list[set[str]]:
    return [set(re.split(r"\s*[|:]\s*", row.strip())) for row in rule("layers")["layers"]]


def test_every_module_has_its_place_in_the_layers() -> None:
    folder = ROOT / "mqd_ledger"
    modules = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert {f"mqd_ledger.{name}" for name in modules - {"__init__"}} - set().union(*layer_rows()) == set()


def test_everything_from_commands_and_projections_down_is_kept_pure() -> None:
    rows = layer_rows()
    first = rows.index({"commands", "projections"})
    assert set(rule("pure")["source_modules"]) == set().union(*rows[first:])


def test_every_library_has_one_home_and_none_in_the_core() -> None:
    names = [pin.split("==")[0] for pin in PROJECT["project"]["dependencies"]]
    modules = {MODULES.get(name, name) for name in names}
    assert modules - EVERYWHERE - set(rule("one-home")["forbidden_modules"]) == set()
    assert modules - {"msgspec", "tzdata"} - set(rule("pure")["forbidden_modules"]) == set()
    told = (
        (ROOT / "README.md").read_text(encoding="utf-8").partition("## Decisions")[2].partition("Where the design")[0]
    )
    assert [name for name in names if f"**{name}**" not in told] == []


def texts() -> Iterator[tuple[str, str]]:
    """The name and the text of every file of the project."""
    for top in sorted(TOP_LEVEL):
        path = ROOT / top
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and file.suffix != ".pyc":
                yield file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8", errors="replace")


def test_no_file_points_to_a_machine_or_an_address_of_its_own() -> None:
    address = re.compile(rf"(?:https?|wss?)://(?!{HOSTS})[\w.-]+")
    folder = re.compile(r"(?<![\w.*/])/(?:home|root|Users|work|mnt|srv)/[\w.-]+")
    found = {name: [*address.findall(text), *folder.findall(text)] for name, text in texts()}
    assert {name: places for name, places in found.items() if places} == {}


def test_help_starts_without_the_heavy_libraries() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "mqd_ledger", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in lines}
    assert "click" in imported
    assert imported & HEAVY == set()
    assert "Usage:" in done.stdout


def test_an_installed_wheel_carries_the_packages_the_settings_and_the_types(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    settings = {f"mqd_ledger/config/{path.name}" for path in (ROOT / "config").glob("*.yaml")}
    assert settings
    modules = {path.relative_to(ROOT).as_posix() for path in sources("mqd_ledger", "commands", "projections")}
    assert settings | modules | {"mqd_ledger/py.typed"} <= names
    assert [name for name in names if name.startswith(("tests/", "tools/"))] == []
