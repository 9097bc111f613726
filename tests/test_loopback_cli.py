"""The verb `loopback` as its users meet it: started, traded against, stopped; and what is said of all that can go wrong."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
from alpaca.trading.client import TradingClient

from mqd_ledger.cli.loopback import SCRIPT
from mqd_ledger.cli.main import execute
from mqd_ledger.loopback.faults_table import FAULTS, rows
from tests.test_cli import BARS, command, environment, interrupt

PATIENCE = 30


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command("loopback", *arguments),
        cwd=folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def client_of(said: Any) -> Any:
    return TradingClient(said["key"], said["secret"], url_override=said["rest"], raw_data=True)


def post(said: Any, path: str, body: Any) -> Any:
    return requests.post(f"{said['rest']}/loopback/{path}", json=body, timeout=PATIENCE).json()


def buy(said: Any, symbol: str) -> Any:
    order = {"symbol": symbol, "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}
    return client_of(said).post("/orders", order)


def test_a_program_starts_it_trades_and_stops_it_and_finds_all_again(tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_text(BARS)
    (tmp_path / "faults.yaml").write_text("- {where: update, kind: lost}\n")
    arguments = ("--bars", "bars.csv", "--speed", "step", "--cash", "5000", "--accounts", "2", "--directory", "broker")
    with started(tmp_path, *arguments, "--faults", "faults.yaml", "--json") as process:
        said = first_line(process)
        assert [one["account_number"] for one in said["accounts"]] == ["PA3LOOPBACK1", "PA3LOOPBACK2"]
        assert post(said, "step", {"minutes": 6})["now"] == "2026-01-05T14:31:00Z"
        order = buy(said, "SPY")
        assert client_of(said).get("/account")["cash"] == "4499.75"
        assert post(said, "stop", {}) == {"stopping": True}
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        (lost,) = json.loads(out)["faults"]
        assert (lost["where"], lost["kind"], lost["at"]) == ("update", "lost", "2026-01-05T14:31:00Z")
    with started(tmp_path, *arguments, "--json") as process:
        found = client_of(first_line(process)).get_order_by_client_id(order["client_order_id"])
        assert found["status"] == "filled"


def test_it_ends_with_the_program_that_holds_its_input(tmp_path: Path) -> None:
    with started(tmp_path, "--speed", "step", "--json", "--until-stdin-ends") as process:
        said = first_line(process)
        assert said["symbols"] == ["SYNA", "SYNB"]
        assert requests.get(f"{said['rest']}/loopback/about", timeout=PATIENCE).json() == said
        if sys.platform != "win32":
            interrupt(process)  # Ctrl-C is for its parent
        assert post(said, "step", {})["now"] == "2026-01-05T14:26:00Z"
        out, err = process.communicate(timeout=PATIENCE)  # closes its input
        assert process.returncode == 0, err
        assert json.loads(out) == {"faults": []}
    with started(tmp_path, "--speed", "step", "--json", "--until-stdin-ends") as process:
        post(first_line(process), "stop", {})
        assert process.wait(PATIENCE) == 0


def test_a_person_is_told_where_it_is_and_what_went_wrong(tmp_path: Path) -> None:
    (tmp_path / "faults.yaml").write_text("- {where: rest, kind: error, match: {path: /v2/clock}}\n")
    with started(tmp_path, "--speed", "step", "--faults", "faults.yaml") as process:
        assert process.stdout is not None
        said = ""
        while "updates = TradingStream" not in said:
            line = process.stdout.readline()
            assert line, f"it ended early: {said}"
            said += line
        rest = re.search(r"^rest +(\S+)$", said, re.MULTILINE)
        key = re.search(r"key (\S+), secret (\S+)$", said, re.MULTILINE)
        assert rest is not None
        assert key is not None
        assert "SYNTHETIC BARS" in said
        assert requests.get(f"{rest[1]}/v2/clock", timeout=PATIENCE).status_code == 500
        keys = {"APCA-API-KEY-ID": key[1], "APCA-API-SECRET-KEY": key[2]}
        assert requests.get(f"{rest[1]}/v2/clock", headers=keys, timeout=PATIENCE).status_code == 200
        interrupt(process)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        assert re.search(r"^2026-01-05 14:25:00Z +rest +error +GET /v2/clock$", out, re.MULTILINE), out


def test_a_clock_that_runs_plays_by_itself(tmp_path: Path) -> None:
    with started(tmp_path, "--speed", "100000", "--faults", "heavy", "--seed", "4", "--json") as process:
        said = first_line(process)
        while not requests.get(f"{said['rest']}/loopback/faults", timeout=PATIENCE).json()["happened"]:
            assert process.poll() is None
        interrupt(process)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        assert json.loads(out)["faults"]


def test_all_faults_are_listed_with_a_script_that_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["loopback", "--list-faults"]) == 0
    listed = capsys.readouterr().out
    for kind in FAULTS:
        assert re.search(rf"^{kind.where} +{kind.name} +\S", listed, re.MULTILINE), kind
    assert len(rows(msgspec.yaml.decode(SCRIPT.encode()), "the example")) == 4
    assert execute(["loopback", "--list-faults", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["where"], row["name"]) for row in found] == [(kind.where, kind.name) for kind in FAULTS]


@pytest.mark.parametrize(
    ("arguments", "words"),
    (
        (["--speed", "max"], "`step`"),
        (["--speed", "-1"], "a number above 0"),
        (["--cash", "0"], "above 0"),
        (["--cash", "much"], "above 0"),
        (["--faults", "nosuch.yaml"], "cannot be read"),
        (["--zone", "UTC"], "about a file of bars"),
        (["--bars", "nosuch.csv"], "does not exist"),
        (["--accounts", "0"], "--accounts"),
        (["--port", "70000"], "--port"),
    ),
)
def test_what_cannot_be_served_is_said(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert execute(["loopback", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_help_needs_no_server(tmp_path: Path) -> None:
    code = (
        "import sys; from mqd_ledger.cli.main import execute; execute(['loopback', '--help']); "
        "sys.exit('aiohttp' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, check=False
    )
    assert done.returncode == 0
