"""Real money is traded only if everything says so, and only with the account that was meant."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from commands.control import CreateLedger, EndRun, StartRun
from mqd_ledger.app import MODES
from mqd_ledger.brokers.keys import Keys, check_account
from mqd_ledger.engine import Engine
from mqd_ledger.errors import BadInput
from mqd_ledger.events import Source
from mqd_ledger.live_safety import CONFIRMED, KEPT, Person, modes_of, require_books, require_live
from mqd_ledger.log import EventLog
from mqd_ledger.policy import Policy
from mqd_ledger.settings import Settings, load
from mqd_ledger.state import State

LIVE_KEYS = {"APCA_API_KEY_ID": "AKTESTTESTTESTTEST01", "APCA_API_SECRET_KEY": "no-secret"}
PAPER_KEYS = {**LIVE_KEYS, "APCA_API_KEY_ID": "PKTESTTESTTESTTEST01"}
NAME = "live.ledger"
MODES_OF_BROKERS = ("loopback", "alpaca-paper", "alpaca-live")


def allowed(*overrides: str) -> Settings:
    """As after a file of --config that says so."""
    return load("live", overrides=["symbols=SPY", *overrides]).model_copy(update={"live_trading": True})


ALLOWED = allowed()


def never(question: str) -> str:
    raise AssertionError(f"nobody may be asked: {question}")


def types(text: str) -> Callable[[str], str]:
    return lambda _question: text


def require(
    tmp_path: Path,
    *,
    settings: Settings = ALLOWED,
    live_flag: bool = True,
    symbols_chosen: bool = True,
    keys: dict[str, str] = LIVE_KEYS,
    terminal: bool = True,
    confirmed: str | None = None,
    confirm: Callable[[str], str] = never,
) -> Keys:
    environ = {} if confirmed is None else {CONFIRMED: confirmed}
    return require_live(
        settings,
        live_flag=live_flag,
        symbols_chosen=symbols_chosen,
        load_keys=lambda: Keys.load("live", keys, tmp_path / ".env"),
        name=NAME,
        person=Person(environ, terminal, confirm),
    )


def test_with_everything_in_place_the_operator_is_told_what_is_traded_and_types_its_name(tmp_path: Path) -> None:
    questions: list[str] = []

    def confirm(question: str) -> str:
        questions.append(question)
        return f" {NAME}\n"

    assert require(tmp_path, confirm=confirm).environment == "live"
    (question,) = questions
    for told in ("REAL MONEY", "SPY", "AKTE…", "at most 100 dollars a day", f"Type {NAME} to begin"):
        assert told in question
    assert LIVE_KEYS["APCA_API_KEY_ID"] not in question


def test_another_word_or_none_begins_nothing(tmp_path: Path) -> None:
    for typed in ("", "yes", "LIVE.LEDGER"):
        with pytest.raises(BadInput, match="Live trading does not begin"):
            require(tmp_path, confirm=types(typed))


def test_without_a_terminal_a_variable_has_to_be_exactly_what_would_be_typed(tmp_path: Path) -> None:
    assert require(tmp_path, terminal=False, confirmed=NAME).key_id == LIVE_KEYS["APCA_API_KEY_ID"]
    require(tmp_path, terminal=True, confirmed=NAME)  # nobody is asked then
    for wrong in ("", "yes", "true", f"{NAME} ", "other.ledger"):
        with pytest.raises(BadInput, match=f"{CONFIRMED} is not what has to be confirmed"):
            require(tmp_path, terminal=False, confirmed=wrong)
    with pytest.raises(BadInput, match=f"or set {CONFIRMED} to exactly '{NAME}'"):
        require(tmp_path, terminal=False)


def test_each_missing_thing_alone_keeps_it_from_beginning_and_nobody_is_asked(tmp_path: Path) -> None:
    cases: list[tuple[str, Callable[[], Keys]]] = [
        ("Give --live", lambda: require(tmp_path, live_flag=False)),
        ("Set live_trading: true", lambda: require(tmp_path, settings=load("live"))),
        ("belong to a paper account", lambda: require(tmp_path, keys=PAPER_KEYS)),
        ("There are no keys", lambda: require(tmp_path, keys={})),
        (
            "Set broker: alpaca",
            lambda: require(tmp_path, settings=allowed("broker=loopback")),
        ),
        (
            "Set risk.daily_loss_max",
            lambda: require(tmp_path, settings=allowed("risk.daily_loss_max=null")),
        ),
        ("Say what to trade, with --symbols", lambda: require(tmp_path, symbols_chosen=False)),
        ("Start it in a terminal", lambda: require(tmp_path, terminal=False)),
    ]
    for expected, begin in cases:
        with pytest.raises(BadInput) as refused:
            begin()
        heading, missing = str(refused.value).split("\n")
        assert heading == "Live trading does not begin: something that it needs is missing."
        assert missing.startswith(expected) or expected in missing


def test_everything_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        require(tmp_path, settings=load("paper"), live_flag=False, keys={}, terminal=False)
    assert len(str(refused.value).splitlines()) == 1 + 5


def test_an_account_of_the_other_kind_is_refused() -> None:
    check_account("paper", "PA3LOOPBACK1")
    check_account("live", "123456789")
    check_account("loopback", "PA3LOOPBACK1")
    with pytest.raises(BadInput, match="is a paper account, but --live was given"):
        check_account("live", "PA3LOOPBACK1")
    with pytest.raises(BadInput, match="is not a paper account"):
        check_account("paper", "123456789")


# --- whose books a ledger keeps ---------------------------------------------------------------------------------------


def ledger_of(folder: Path, *modes: str) -> Path:
    """One whose runs never reached an account."""
    path, at = folder / "some.ledger", datetime(2026, 1, 5, 15, tzinfo=UTC)
    with EventLog.create(path, durability="normal") as log:
        engine = Engine(State(), log)
        engine.handle(CreateLedger(at, "some"))
        for mode in modes:
            engine.handle(StartRun(at, mode, "1", Source("alpaca", "x", ""), (), Policy()))
            engine.handle(EndRun(at, "over"))
        log.commit()
    return path


def test_every_mode_that_records_says_what_its_ledger_keeps() -> None:
    assert KEPT.keys() == {name for name, mode in MODES.items() if mode.recording is not None}


@pytest.mark.parametrize("mode", KEPT)
def test_a_ledger_goes_on_only_with_the_kind_of_money_that_it_began_with(mode: str, tmp_path: Path) -> None:
    path = ledger_of(tmp_path, mode, mode)
    before = path.read_bytes()
    assert modes_of(path) == (mode,)
    for other in KEPT:
        if KEPT[other] == KEPT[mode]:
            require_books(path, other)
        else:
            with pytest.raises(BadInput, match=f"were of mode {mode}"):
                require_books(path, other)
    assert path.read_bytes() == before


def test_a_ledger_without_a_run_may_become_any() -> None:
    for mode in KEPT:
        require_books(Path("nowhere.ledger"), mode)


def test_what_was_mixed_up_long_ago_is_refused_by_both(tmp_path: Path) -> None:
    path = ledger_of(tmp_path, "alpaca-paper", "loopback")
    assert modes_of(path) == ("alpaca-paper", "loopback")
    for mode in MODES_OF_BROKERS:
        with pytest.raises(BadInput, match="keeps the books of"):
            require_books(path, mode)
