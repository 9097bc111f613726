"""Settings of a run with a broker: what goes together, what every problem says, and that no key gets in."""

from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from mqd_ledger.cli.main import execute
from mqd_ledger.errors import SettingsInvalid
from mqd_ledger.policy import Operation
from mqd_ledger.settings import CONFIG_DIRECTORY, Settings, load, says

SECRET = "s3cretS3CRETs3cretS3CRETs3cretS3CRET0042"  # noqa: S105  of nobody


def problems(*overrides: str, profile: str = "paper", file: Path | None = None) -> list[str]:
    with pytest.raises(SettingsInvalid) as invalid:
        load(profile, file, {}, overrides)
    return invalid.value.problems


def test_what_an_unattended_run_decides_is_part_of_the_policy_that_is_recorded() -> None:
    given = ("operation.at_close=flatten", "operation.kill_at_daily_loss=250.10", "operation.attempts_max=2")
    policy = load("paper", overrides=given).policy
    assert policy.operation == policy.unattended
    assert policy.unattended == Operation(at_close="flatten", kill_at_daily_loss=Decimal("250.10"), attempts_max=2)
    assert load("paper").policy.unattended == Operation()


def test_the_broker_and_what_belongs_to_it() -> None:
    plain = load("paper")
    assert (plain.broker, plain.symbols, plain.live_trading) == ("simulated", (), False)
    given = ("broker=alpaca", "symbols=SPY, BRK.B", "alpaca.feed=sip", "alpaca.requests_per_minute=1000")
    settings = load("paper", overrides=[*given, "quotes=false"])
    assert settings.symbols == ("SPY", "BRK.B")
    assert (settings.alpaca.feed, settings.alpaca.requests_per_minute) == ("sip", 1000)
    assert settings.quotes is False
    loopback = load("paper", overrides=["broker=loopback", "loopback.speed=0.5", "loopback.faults=heavy"]).loopback
    assert (loopback.speed, loopback.seed, loopback.faults) == (Decimal("0.5"), 7, "heavy")


WRONG = {
    "no symbols": (["broker=alpaca"], "symbols: found none; with broker alpaca at least one symbol is needed"),
    "extended hours": (
        ["broker=loopback", "risk.session=extended"],
        "risk.session: found 'extended'; with a broker only regular is allowed",
    ),
    "no such broker": (["broker=ibkr"], "broker: found 'ibkr'; Input should be 'simulated', 'loopback' or 'alpaca'"),
    "small letters": (["symbols=spy"], "symbols: found 'spy'; each symbol once is allowed"),
    "a symbol twice": (["symbols=SPY,QQQ,SPY"], "each symbol once is allowed"),
    "no attempt": (["operation.attempts_max=0"], "operation.attempts_max: found 0; 1 or more is allowed"),
    "always comparing": (["operation.reconcile_every=0"], "operation.reconcile_every: found 0; 1 second or more"),
    "silent between two bars": (["operation.feed_silent_after=60"], "for bars come once a minute"),
    "killed at once": (["operation.kill_at_daily_loss=0"], "an amount above zero is allowed, or null for never"),
    "no time to close": (["operation.at_close=flatten", "operation.close_before=5"], "60 seconds or more are needed"),
    "a negative amount": (["operation.difference_accepted_max=-1"], "a finite number, zero or above, is allowed"),
    "no such policy": (["operation.at_close=sell"], "operation.at_close: found 'sell'"),
    "a misspelled one": (
        ["operation.atempts_max=3"],
        "operation.atempts_max: is not a setting; did you mean attempts_max?",
    ),
    "too fast": (["loopback.speed=1000000"], "loopback.speed: found '1000000'"),
    "live trading by an argument": (
        ["live_trading=true"],
        "--set live_trading: is allowed only in the file given with --config",
    ),
    "an empty limit": (
        ["risk.daily_loss_max="],
        "risk.daily_loss_max: found ''; nothing is no value; write one, or the word null",
    ),
    "blanks for a limit": (["operation.kill_at_daily_loss=  "], "operation.kill_at_daily_loss: found ''; nothing is"),
    "a comment for a limit": (["risk.weekly_loss_max=#"], "risk.weekly_loss_max: found ''; nothing is no value"),
    "quotes for a limit": (['risk.exposure_max=""'], "risk.exposure_max: found ''; nothing is no value"),
    "a sign for a limit": (["risk.daily_loss_max=~"], "risk.daily_loss_max: found '~'"),
    "an empty limit in a section": (["risk={daily_loss_max: }"], "risk.daily_loss_max: found ''; nothing is no value"),
    "empty symbols": (["broker=loopback", "symbols="], "symbols: found ''; at least one symbol is allowed"),
    "an empty path": (["ledger="], "ledger: found ''; nothing is no value"),
    "an empty choice": (["broker="], "broker: found ''; nothing is no value"),
    "backwards": (["speed=-1"], "speed: found '-1'; max is allowed, or a number above 0"),
    "no number": (["speed=nan"], "speed: found 'nan'; max is allowed, or a number above 0"),
    "without end": (["speed=inf"], "speed: found 'inf'; max is allowed, or a number above 0"),
    "a server at once": (["loopback.speed=max"], "loopback.speed: found 'max'; a number above 0 is allowed"),
    "a server backwards": (["loopback.speed=-1"], "loopback.speed: found '-1'; a number above 0 is allowed"),
    "a server that stands": (["loopback.speed=0"], "loopback.speed: found '0'; a number above 0 is allowed"),
    "no requests": (["alpaca.requests_per_minute=1"], "alpaca.requests_per_minute: found '1'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told_with_its_path_what_was_found_and_what_is_allowed(what: str) -> None:
    overrides, expected = WRONG[what]
    (problem,) = problems(*overrides)
    assert expected in problem


def test_only_the_word_null_switches_a_limit_off(tmp_path: Path) -> None:
    """A variable of the shell that was never set is no wish."""
    assert load("paper", overrides=["risk.daily_loss_max=null"]).risk.daily_loss_max is None
    assert load("paper", None, {"MQD_RISK__DAILY_LOSS_MAX": "null"}).risk.daily_loss_max is None
    file = tmp_path / "mine.yaml"
    for text, expected in (("null", None), ("75.50", Decimal("75.50"))):
        file.write_text(f"risk:\n  daily_loss_max: {text}\n", encoding="utf-8")
        assert load("paper", file).risk.daily_loss_max == expected
    file.write_text("risk:\n  daily_loss_max:\n", encoding="utf-8")
    assert "nothing is no value" in problems(file=file)[0]
    with pytest.raises(SettingsInvalid, match=r"risk\.daily_loss_max: found ''; nothing is no value"):
        load("paper", None, {"MQD_RISK__DAILY_LOSS_MAX": ""})


def test_a_section_as_one_value_changes_only_what_it_names() -> None:
    changed = load("paper", overrides=["risk={stale_after: 45}"]).risk
    assert (changed.stale_after, changed.daily_loss_max, changed.weekly_loss_max) == (45, 500, 1500)


def test_live_trading_is_allowed_in_a_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("live_trading: true\n", encoding="utf-8")
    assert load("live", file).live_trading is True
    with pytest.raises(SettingsInvalid, match="MQD_LIVE_TRADING: is allowed only in the file given with --config"):
        load("live", None, {"MQD_LIVE_TRADING": "true"})


def test_whether_somebody_chose_a_setting_is_known(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("symbols: [SPY]\n", encoding="utf-8")
    assert load("live").symbols == ("SPY",)
    assert not says("symbols", None, {"MQD_CASH": "5"}, ["risk.stale_after=5"])
    assert says("symbols", file, {}, [])
    assert says("symbols", None, {"MQD_SYMBOLS": "SPY"}, [])
    assert says("symbols", None, {}, ["symbols=SPY"])


def test_all_that_does_not_go_together_is_told_at_once() -> None:
    assert [problem.partition(":")[0] for problem in problems("broker=alpaca", "risk.session=any")] == [
        "symbols",
        "risk.session",
    ]


KEYS = {
    "a secret key": [f"alpaca.secret_key={SECRET}"],
    "a key under a good name": [f"alpaca.feed={SECRET}"],
    "a key where a section is": [f"alpaca={SECRET}"],
    "a password of a strategy": [f"strategies=[{{name: vwap, parameters: {{password: {SECRET}}}}}]"],
    "a key among symbols": [f"symbols=[SPY, {SECRET}]"],
    "a key as the name of a setting": [f"{SECRET}=1"],
    "nothing but a key": [SECRET],
    "a key that is cut in two by a slash": [f"alpaca.feed={SECRET[:26]}/{SECRET[26:]}"],
}


@pytest.mark.parametrize("what", KEYS)
def test_a_key_in_an_argument_or_a_file_is_refused_and_not_repeated(what: str, tmp_path: Path) -> None:
    told = problems(*KEYS[what])
    assert told
    assert [problem for problem in told if SECRET[:6] in problem] == []
    if "=" in KEYS[what][0]:
        path, _, value = KEYS[what][0].partition("=")
        content = yaml.safe_load(value)
        for key in reversed(path.split(".")):
            content = {key: content}
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        assert [problem for problem in problems(file=file) if SECRET[:6] in problem] == []


def test_a_file_that_is_no_yaml_is_told_by_its_place_without_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f'alpaca:\n  note: "{SECRET}\n', encoding="utf-8")
    (problem,) = problems(file=file)
    assert "is not YAML: found unexpected end of stream in line 3, column 1" in problem
    assert SECRET not in problem


def test_the_variables_of_keys_and_of_the_confirmation_are_no_settings() -> None:
    environ = {"MQD_ALPACA_KEY_ID": "x", "MQD_ALPACA_SECRET_KEY": SECRET, "MQD_LIVE_CONFIRMED": "live.ledger"}
    assert load("paper", None, environ) == load("paper")


# --- the files that come with the program -----------------------------------------------------------------------------


def leaves(section: dict[str, object], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in section.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"}
    return found


def test_the_file_of_live_trading_writes_out_every_setting_and_allows_nothing_yet() -> None:
    written = leaves(yaml.safe_load((CONFIG_DIRECTORY / "live.yaml").read_text(encoding="utf-8")))
    assert leaves(Settings().model_dump()) - written <= {
        f"simulation.{name}" for name in ("commission.per_share", "commission.minimum", "commission.bps")
    } | {f"simulation.slippage.{name}" for name in ("bps", "impact")}
    assert load("live").live_trading is False


def test_the_limits_of_live_trading_are_at_least_as_strict_as_those_of_paper() -> None:
    live, paper = load("live").policy, load("paper").policy
    for name in live.limits.__struct_fields__:
        if name.endswith("_max"):
            assert getattr(live.limits, name) <= getattr(paper.limits, name), name
    assert live.unattended.difference_accepted_max < paper.unattended.difference_accepted_max
    assert live.unattended.kill_at_daily_loss is not None


@pytest.mark.parametrize("profile", ("paper", "live", "backtest"))
def test_the_small_account_can_be_laid_over_each(profile: str) -> None:
    assert load(profile, CONFIG_DIRECTORY / "small_account.yaml").risk.daily_loss_max == 50


def test_the_settings_in_force_show_the_new_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["config", "check", "--set", "symbols=SPY"]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:])
    assert (shown["symbols"], shown["broker"], shown["operation.at_close"]) == ("SPY", "simulated", "hold")
