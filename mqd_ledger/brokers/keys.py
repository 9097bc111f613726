"""The keys to a broker's account: where they are found, whether they are the right ones, and that nobody ever sees them.

They come from the environment or from an ignored file `.env`, never from an argument or a YAML file. A pair is taken whole from one
place: MQD_ALPACA_* before APCA_* (this program's own names before those that every Alpaca tool reads), and of one name the
process's environment before `.env`. Alpaca says by a key's first letters what it opens: "PK" a paper account, "AK" a live one.

`Keys` is no struct and no dataclass on purpose: nothing that turns objects into text, JSON or an event can turn it into one. What
somebody else has put into a text is taken out again by `scrub`; what people put where no key belongs is found by `take_out`.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NoReturn
from urllib.parse import quote

from mqd_ledger.errors import BadInput

# Each row is a pair: key id, secret. The first row of which anything is found counts.
NAMES = (("MQD_ALPACA_KEY_ID", "MQD_ALPACA_SECRET_KEY"), ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"))
KINDS: Mapping[str, str] = MappingProxyType({"PK": "paper", "AK": "live"})
PAPER_ACCOUNT = "PA"  # how the numbers of paper accounts begin
DOTENV = Path(".env")
SHOWN = 4  # characters of a key id that may be seen
WHERE = (
    f"Put {NAMES[0][0]} and {NAMES[0][1]} (or {NAMES[1][0]} and {NAMES[1][1]}) into the environment, or into the file .env in "
    "the folder where the program is started."
)
# Names under which people keep what nobody may see, and how Alpaca's keys look: a key id, and a secret, which is no word.
SECRET_NAME = re.compile(
    r"(.*_)?(api_?key|key_?id|secret|secret_?key|password|token|credentials?)(_id)?", re.IGNORECASE
)
SECRET_VALUE = re.compile(r"\b[PAC]K[A-Z0-9]{16,}|(?=\S*[a-z])(?=\S*[A-Z])(?=\S*\d)[A-Za-z0-9+=]{32,}")
SUSPICIOUS = re.compile(r"\b[PAC]K[A-Z0-9]{16,}|(?=[\w+/=-]*\d)[\w+/=-]{24,}")
READABLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO
OTHER_WAY = MappingProxyType({"paper": "Give the other keys, or run with --paper.", "live": "Live trading is --live."})


class Keys:
    """A key id and its secret, of an environment ("paper", "live", "loopback"). As text only the key id's beginning shows."""

    __slots__ = ("environment", "found_in", "key_id", "secret", "warnings")
    key_id: str
    secret: str
    environment: str
    found_in: str  # where they come from, for a person
    warnings: tuple[str, ...]

    def __init__(
        self, key_id: str, secret: str, environment: str, found_in: str = "", warnings: tuple[str, ...] = ()
    ) -> None:
        for name, value in zip(self.__slots__, (environment, found_in, key_id, secret, warnings), strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, _value: object) -> NoReturn:
        raise AttributeError(f"Keys never change; {name} cannot be set.")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"Keys never change; {name} cannot be removed.")

    def __reduce__(self) -> NoReturn:
        raise TypeError("Keys are not written anywhere; make them anew from the environment.")

    @property
    def shown(self) -> str:
        """The key id as far as it may be seen."""
        return f"{self.key_id[:SHOWN]}…"

    def __repr__(self) -> str:
        return f"Keys({self.shown}, {self.environment})"

    @classmethod
    def load(
        cls, environment: Literal["paper", "live"], environ: Mapping[str, str], dotenv_path: Path = DOTENV
    ) -> "Keys":
        """The keys to trade with; what is wrong with them is told without repeating them."""
        file = _read(dotenv_path)
        places = (("the environment", environ, file), (str(dotenv_path), file, environ))
        for names in NAMES:
            for place, values, elsewhere in places:
                if any(name in values for name in names):
                    key_id, secret = _pair(names, place, values, elsewhere)
                    _require_kind(key_id, secret, names, place, environment)
                    warnings = _warnings(dotenv_path) if values is file else ()
                    return cls(key_id, secret, environment, f"{place} ({names[0]})", warnings)
        raise BadInput(f"There are no keys to the broker's {environment} account. {WHERE}")


def check_account(environment: str, account_number: str) -> None:
    """Refuse an account that is not of the environment asked for, before any order."""
    is_paper = account_number.startswith(PAPER_ACCOUNT)
    if environment == "live" and is_paper:
        raise BadInput(
            f"The broker's account {account_number} is a paper account, but --live was given. No order was sent. Give the live "
            "account's keys, or trade with --paper."
        )
    if environment == "paper" and not is_paper:
        raise BadInput(
            f"The broker's account {account_number} is not a paper account (their numbers begin with {PAPER_ACCOUNT}), but "
            "--paper was given. No order was sent. Give the paper account's keys."
        )


def scrub(text: str, keys: Keys | None) -> str:
    """The text without the secret, and with no more of the key id than may be seen."""
    if keys is None:
        return text
    for spelling in (keys.secret, quote(keys.secret, safe="")):
        text = text.replace(spelling, "[secret]")
    return text.replace(keys.key_id, keys.shown)


def masked(value: object) -> str:
    """As text, in which a long word that may be anything shows its beginning alone."""
    return SUSPICIOUS.sub(lambda match: f"{match[0][:SHOWN]}…", str(value))


def take_out(section: dict[Any, Any] | list[Any], prefix: str = "") -> Iterator[str]:
    """Remove from what people wrote whatever looks like a key; the paths where it stood."""
    places = list(section.items()) if isinstance(section, dict) else list(enumerate(section))
    for place, value in reversed(places):  # from the end, for a list closes up behind what is taken out
        path = f"{prefix}{masked(place)}"
        is_secret = SECRET_NAME.fullmatch(str(place)) or SECRET_VALUE.search(str(place))
        if isinstance(value, dict | list) and not is_secret:
            yield from take_out(value, f"{path}.")
        elif is_secret or SECRET_VALUE.search(str(value)):
            del section[place]
            yield path


def _read(path: Path) -> Mapping[str, str]:
    """Of a `.env` file the names that are ours; the process's environment stays as it is."""
    from dotenv import dotenv_values  # 20 ms that only who connects has to pay

    try:
        values = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or "it cannot be opened") if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadInput(f"{path} cannot be read: {why}. Mend it, or put the keys into the environment.") from None
    return {name: values[name] or "" for pair in NAMES for name in pair if name in values}


def _pair(
    names: tuple[str, str], place: str, values: Mapping[str, str], elsewhere: Mapping[str, str]
) -> tuple[str, str]:
    problems = [problem for name in names if (problem := _problem(name, place, values, elsewhere))]
    if problems:
        raise BadInput(" ".join(problems))
    return values[names[0]], values[names[1]]


def _problem(name: str, place: str, values: Mapping[str, str], elsewhere: Mapping[str, str]) -> str:
    """What is wrong with one half of a pair, without saying it."""
    value = values.get(name)
    if value is None and name in elsewhere:
        return f"{name} stands elsewhere than its other half, which is in {place}: put both into the same place."
    if value is None:
        return f"{name} is missing in {place}, where the other half of the pair is. {WHERE}"
    if not value.strip():
        return f"{name} in {place} is blank. {WHERE}"
    if re.search(r"\s", value):
        return f"{name} in {place} has blanks or line ends in it; a key has none. Copy it again."
    if re.search("[\"'`]", value):
        return f"{name} in {place} has quotation marks in it; a key has none. Write it without."
    if not value.isascii() or not value.isprintable():
        return f"{name} in {place} has characters in it that no key has. Copy it again."
    return ""


def _require_kind(key_id: str, secret: str, names: tuple[str, str], place: str, environment: str) -> None:
    kind = KINDS.get(key_id[:2])
    if kind is None and secret[:2] in KINDS:
        raise BadInput(
            f"{names[0]} and {names[1]} in {place} look as if they were exchanged: put each in the other's place."
        )
    if kind is None:
        known = " or ".join(f"{letters} ({what})" for letters, what in KINDS.items())
        raise BadInput(
            f"{names[0]} in {place} is no key id of Alpaca's trading API: these begin with {known}. Copy it again from "
            "Alpaca's dashboard."
        )
    if kind != environment:
        raise BadInput(
            f"The keys in {place} ({names[0]}, {key_id[:SHOWN]}…) belong to a {kind} account, but {environment} trading was asked "
            f"for. {OTHER_WAY[kind]} Nothing was connected."
        )


def _warnings(path: Path) -> tuple[str, ...]:
    """Who else may read a file of secrets, where the system tells by its mode."""
    if os.name != "posix":
        return ()
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & READABLE_BY_OTHERS:
        return ()
    return (f"{path} holds secrets, and others on this machine may open it (mode {mode:03o}): chmod 600 {path}",)
