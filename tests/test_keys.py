"""Keys are found where they belong, are of the right kind, and are seen nowhere."""

import copy
import json
import os
import pickle
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from mqd_ledger.brokers.keys import Keys, masked, scrub, take_out
from mqd_ledger.errors import BadInput
from tests.desk import RUN, furnish, run_program

PAPER, LIVE = "PKTESTTESTTESTTEST01", "AKTESTTESTTESTTEST01"
SECRET = "s3cretS3CRETs3cretS3CRETs3cretS3CRET0042"  # noqa: S105  of nobody
MINE, THEIRS = ("MQD_ALPACA_KEY_ID", "MQD_ALPACA_SECRET_KEY"), ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY")
posix = pytest.mark.skipif(os.name != "posix", reason="rights are told by a mode on POSIX alone")


def pair(names: tuple[str, str] = THEIRS, key_id: str = PAPER, secret: str = SECRET) -> dict[str, str]:
    return dict(zip(names, (key_id, secret), strict=True))


def write(path: Path, values: Mapping[str, str], mode: int = 0o600) -> Path:
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()), encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    return tmp_path / ".env"


@pytest.mark.parametrize("names", (MINE, THEIRS))
def test_keys_come_from_the_environment_or_from_the_file(names: tuple[str, str], nowhere: Path) -> None:
    keys = Keys.load("paper", pair(names), nowhere)
    assert (keys.key_id, keys.secret, keys.environment) == (PAPER, SECRET, "paper")
    assert keys.found_in == f"the environment ({names[0]})"
    file = write(nowhere, pair(names, secret=f'"{SECRET}"'))
    keys = Keys.load("paper", {"OTHER": "x"}, file)
    assert (keys.key_id, keys.secret) == (PAPER, SECRET)
    assert keys.found_in == f"{file} ({names[0]})"
    assert os.environ.keys().isdisjoint({*MINE, *THEIRS}), "the process's own environment stays as it is"


def test_this_programs_own_names_win_and_of_one_name_the_environment(nowhere: Path) -> None:
    file = write(nowhere, {**pair(MINE, "PKFILEMINE0000000001"), **pair(THEIRS, "PKFILETHEIRS00000001")})
    both = {**pair(MINE, "PKENVMINE00000000001"), **pair(THEIRS, "PKENVTHEIRS000000001")}
    assert Keys.load("paper", both, file).key_id == "PKENVMINE00000000001"
    assert Keys.load("paper", pair(THEIRS, "PKENVTHEIRS000000001"), file).key_id == "PKFILEMINE0000000001"
    assert Keys.load("paper", {}, file).key_id == "PKFILEMINE0000000001"
    only_theirs = write(nowhere, pair(THEIRS, "PKFILETHEIRS00000001"))
    assert Keys.load("paper", pair(THEIRS, "PKENVTHEIRS000000001"), only_theirs).key_id == "PKENVTHEIRS000000001"


def test_a_file_may_have_what_editors_and_shells_put_there(nowhere: Path) -> None:
    dollars = "s3cr$t$HOME}S3CRETs3cretS3CRETs3cretS3CR"
    nowhere.write_bytes(
        f"\ufeff# mine\nexport {THEIRS[0]} = {PAPER}\r\n{THEIRS[1]}='{dollars}' # never shown\r\n".encode()
    )
    nowhere.chmod(0o600)
    keys = Keys.load("paper", {}, nowhere)
    assert (keys.key_id, keys.secret, keys.warnings) == (PAPER, dollars, ())


WRONG: dict[str, tuple[Literal["paper", "live"], dict[str, str], str]] = {
    "none at all": ("paper", {}, "There are no keys to the broker's paper account"),
    "no secret": ("paper", {THEIRS[0]: PAPER}, f"{THEIRS[1]} is missing in the environment"),
    "no key id": ("live", {MINE[1]: SECRET}, f"{MINE[0]} is missing in the environment"),
    "blank": ("paper", pair(THEIRS, PAPER, "  "), f"{THEIRS[1]} in the environment is blank"),
    "both blank": ("paper", pair(MINE, "", ""), f"{MINE[0]} in the environment is blank"),
    "a blank inside": ("paper", pair(secret=f"{SECRET[:20]} {SECRET[20:]}"), "has blanks or line ends in it"),
    "a line end": ("paper", pair(key_id=f"{PAPER}\n"), "has blanks or line ends in it"),
    "quotation marks": ("paper", pair(secret=f'"{SECRET}"'), "has quotation marks in it"),
    "what no key has": ("paper", pair(secret=f"{SECRET}\u00fc"), "has characters in it that no key has"),
    "exchanged": ("paper", pair(key_id=SECRET, secret=PAPER), "look as if they were exchanged"),
    "no key of the trading API": ("paper", pair(key_id="CKTESTTESTTESTTEST01"), "begin with PK (paper) or AK (live)"),
    "a paper key for live": ("live", pair(), "belong to a paper account, but live trading was asked for"),
    "a live key for paper": ("paper", pair(key_id=LIVE), "belong to a live account, but paper trading was asked for"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_keys_are_told_in_a_sentence_that_does_not_repeat_them(what: str, nowhere: Path) -> None:
    environment, environ, expected = WRONG[what]
    with pytest.raises(BadInput) as refused:
        Keys.load(environment, environ, nowhere)
    text = str(refused.value)
    assert expected in text
    assert text.endswith(".")
    for value in environ.values():
        assert len(value.strip()) <= 4 or value.strip() not in text


def test_the_halves_of_a_pair_have_to_come_from_one_place(nowhere: Path) -> None:
    file = write(nowhere, {THEIRS[1]: SECRET})
    with pytest.raises(BadInput, match="put both into the same place") as refused:
        Keys.load("paper", {THEIRS[0]: PAPER}, file)
    assert SECRET not in str(refused.value)


def test_a_file_that_is_no_text_is_told(nowhere: Path) -> None:
    nowhere.write_bytes(b"APCA_API_KEY_ID=\xff\xfe\n")
    with pytest.raises(BadInput, match="it is not UTF-8 text"):
        Keys.load("paper", {}, nowhere)


@posix
def test_a_file_that_others_may_open_is_warned_of(nowhere: Path) -> None:
    for mode, is_open in ((0o600, False), (0o400, False), (0o640, True), (0o604, True)):
        keys = Keys.load("paper", {}, write(nowhere, pair(), mode))
        assert bool(keys.warnings) is is_open
        nowhere.chmod(stat.S_IRWXU)
    assert "chmod 600" in Keys.load("paper", {}, write(nowhere, pair(), 0o644)).warnings[0]
    assert Keys.load("paper", pair(), nowhere).warnings == (), "it is not the file that they come from"


def test_nothing_that_makes_text_of_objects_gets_at_the_secret(nowhere: Path) -> None:
    keys = Keys.load("paper", pair(), nowhere)
    for text in (str(keys), repr(keys), f"{keys}", f"{[keys]}", f"{ {'keys': keys} }", repr(BadInput(keys))):
        assert SECRET not in text
        assert PAPER not in text
        assert "PKTE" in text
    writers: tuple[Callable[[Any], object], ...] = (
        pickle.dumps,
        copy.copy,
        json.dumps,
        msgspec.json.encode,
        msgspec.to_builtins,
        vars,
    )
    for write_out in writers:
        with pytest.raises(TypeError):
            write_out(keys)
    with pytest.raises(AttributeError):
        keys.secret = "x"  # noqa: S105
    with pytest.raises(AttributeError):
        del keys.secret


def test_a_text_of_somebody_else_is_scrubbed(nowhere: Path) -> None:
    keys = Keys.load("paper", pair(THEIRS, PAPER, "ab+/cdABCD01="), nowhere)
    text = f"GET /?key={keys.key_id}&secret=ab%2B%2FcdABCD01%3D header {keys.secret} end"
    assert scrub(text, keys) == "GET /?key=PKTE…&secret=[secret] header [secret] end"
    assert scrub("nothing in it", keys) == "nothing in it"
    assert scrub(text, None) == text


def test_what_looks_like_a_key_is_taken_out_of_what_people_wrote() -> None:
    written = {
        "alpaca": {"feed": "iex", "secret_key": "x", "api_key": ["x"], "note": PAPER},
        "strategies": [{"name": "vwap", "parameters": {"password": "x"}}, f"key {LIVE}"],
        "symbols": ["SPY", SECRET],
        PAPER: "x",
    }
    paths = list(take_out(written))
    assert set(paths) == {
        "alpaca.secret_key",
        "alpaca.note",
        "alpaca.api_key",
        "strategies.0.parameters.password",
        "strategies.1",
        "symbols.1",
        "PKTE…",
    }
    assert written == {
        "alpaca": {"feed": "iex"},
        "strategies": [{"name": "vwap", "parameters": {}}],
        "symbols": ["SPY"],
    }
    assert masked(f"found {SECRET} and {PAPER}, risk.orders_per_day_maximum_allowed") == (
        "found s3cr… and PKTE…, risk.orders_per_day_maximum_allowed"
    )


def test_a_run_that_fails_leaves_the_secret_nowhere(tmp_path: Path) -> None:
    """Keys of the environment, of `.env` and of arguments: not in what it prints, not in any file that it makes."""
    here = furnish(tmp_path / "here")
    dotenv = write(here / ".env", pair(MINE, secret=f"{SECRET}file"))
    made_before = {dotenv, here / "mine.yaml"}
    failing = "raise ValueError(dict(__import__('os').environ) and 'a strategy that fails')"
    (here / "failing.py").write_text(
        "from mqd_ledger.strategies.base import Strategy\n\n"
        f"class Failing(Strategy):\n    def on_bar(self, bar):\n        {failing}\n",
        encoding="utf-8",
    )
    environ = pair(THEIRS, secret=f"{SECRET}env")
    ends = [
        run_program(here, *RUN, "--strategy", "failing.py:Failing", env=environ),
        run_program(here, *RUN, "--set", f"alpaca.secret={SECRET}set", env=environ),
        run_program(here, *RUN, "--set", f"{SECRET}set", env=environ),
        run_program(here, "config", "check", "--set", f"alpaca.feed={SECRET}set", env=environ),
        run_program(here, "doctor", "--json", env=environ),
        run_program(here, "halt", "--reason", "look", env=environ),
    ]
    assert [ended.code for ended in ends] == [0, 2, 2, 2, 0, 0]
    for ended in ends:
        assert SECRET not in ended.out + ended.err
        assert PAPER not in ended.out + ended.err
        assert "Traceback" not in ended.err
    made = [path for path in here.rglob("*") if path.is_file() and path not in made_before]
    assert here / "paper.ledger" in made
    assert [path for path in made if SECRET.encode() in path.read_bytes()] == []
    assert [path for path in made if PAPER.encode() in path.read_bytes()] == []


@pytest.mark.skipif(sys.platform == "win32", reason="a mode keeps nobody from reading there")
def test_a_file_that_may_not_be_opened_is_told(nowhere: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may open everything")
    write(nowhere, pair(), 0o000)
    with pytest.raises(BadInput, match="cannot be read"):
        Keys.load("paper", {}, nowhere)
