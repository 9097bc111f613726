"""The table of everything that can go wrong at the loopback server, and how a plan of it is read, checked and drawn.

To add a fault: a row in `FAULTS`, and the function of that name in the module of its place: `faults_rest.py` ("rest"),
`faults_updates.py` ("update"), `faults_sockets.py` ("trade_socket", "data_socket"), `faults_world.py` ("market", "account",
"server"). The help text, the check of a script and the plans drawn from a seed follow from the row.

A fault strikes at *occurrences*. Which those are, and what `match` can be asked of them, says `PLACES`; the values of `match` are
patterns as file names have them (`*`, `?`). Of the occurrences that match, `at` picks the nth (from 1), `probability` each with
that chance, neither the first; `times` says how often it strikes (once, and with a probability without end). An occurrence that an
earlier fault of the plan has used up (an answer can be lost only once) is not counted.
"""

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from mqd_ledger.errors import BadInput
from mqd_ledger.values import Side

Value = str | int | float  # as a script may write it
Param = Value | Decimal
MAY_BE_NEGATIVE = ("market_seconds", "cents")
NO_PARAMS: Mapping[str, Value] = MappingProxyType({})


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One row of a plan."""

    where: str
    kind: str
    match: Mapping[str, str] = {}
    at: int | None = None
    times: int | None = None
    probability: float | None = None
    params: Mapping[str, Value] = {}

    def param(self, name: str) -> Any:
        """A parameter as the plan gives it, or else its default."""
        default = KINDS[self.where, self.kind].params[name]
        return _typed(self.params[name], type(default)) if name in self.params else default

    def seconds(self) -> float:
        """Of the wall, not of the market: sockets wait by the wall."""
        return float(self.param("seconds"))


class Place(NamedTuple):
    """Where faults strike: what counts as an occurrence, and the names that `match` knows."""

    occurrence: str
    facts: tuple[str, ...]


PLACES: Mapping[str, Place] = MappingProxyType(
    {
        "rest": Place("a REST request", ("method", "path", "key")),
        "update": Place("a trade update", ("event", "symbol", "status", "client_order_id", "key")),
        "trade_socket": Place("a frame sent on /stream, or a connection where the kind is about one", ()),
        "data_socket": Place("a frame sent on /v2/{feed}, or a connection where the kind is about one", ()),
        "market": Place("a minute played; `time` is its end in UTC, as in '*T15:00*'", ("time",)),
        "account": Place(
            "a minute played; for a bust or correction a fill, for a cancel its request, for what lags an answer",
            ("time", "event", "symbol", "status", "client_order_id", "key", "method", "path"),
        ),
        "server": Place("a minute played", ("time",)),
    }
)


class Kind(NamedTuple):
    """One way to go wrong. `light` and `heavy` are its chances per occurrence in plans from a seed; 0: not drawn, because a
    trader cannot be expected to survive it without a person. `drawn` are parameters that such a plan sets.
    """

    where: str
    name: str
    does: str
    params: Mapping[str, Param] = NO_PARAMS
    light: float = 0.0
    heavy: float = 0.0
    drawn: Mapping[str, Value] = NO_PARAMS


SESSION = 1 / 390  # once in a session, on average
_R, _U, _T, _D, _M, _A, _S = "rest", "update", "trade_socket", "data_socket", "market", "account", "server"
_FRAME: Mapping[str, Param] = {"seconds": 0.0}
_FOR_A_WHILE: Mapping[str, Value] = {"seconds": 2.0}
_LAG: Mapping[str, Param] = {"market_seconds": 10.0}

FAULTS: tuple[Kind, ...] = (
    # --- requests, before anything is done about them
    Kind(_R, "latency", "waits before it does what was asked", {"seconds": 0.2}, 0.02, 0.05, {"seconds": 0.05}),
    Kind(_R, "hang", "does nothing for so long, then drops the connection", {"seconds": 30.0}, 0, 0.003, {"seconds": 3.0}),
    Kind(_R, "rate_limited", "answers 429 with Retry-After and X-RateLimit headers", {"retry_after": 1}, 0.01, 0.03),
    Kind(_R, "error", "answers 500, or another status, and does nothing", {"status": 500}, 0.01, 0.03),
    Kind(_R, "gateway_timeout", "answers 504 and does nothing", NO_PARAMS, 0.005, 0.02),
    Kind(_R, "html", "answers with a gateway's HTML page and does nothing", {"status": 502}, 0.005, 0.01),
    Kind(_R, "dropped", "drops the connection and does nothing", NO_PARAMS, 0.005, 0.02),
    # --- requests, after they were done
    Kind(_R, "late_answer", "does what was asked; the answer comes late", {"seconds": 0.2}, 0.02, 0.05, {"seconds": 0.05}),
    Kind(_R, "hang_after", "does what was asked, answers nothing for so long, then drops the connection",
         {"seconds": 30.0}, 0, 0.003, {"seconds": 3.0}),
    Kind(_R, "gateway_timeout_after", "does what was asked and answers 504", NO_PARAMS, 0.005, 0.02),
    Kind(_R, "dropped_after", "does what was asked and drops the connection", NO_PARAMS, 0.005, 0.02),
    Kind(_R, "truncated", "does what was asked; the answer breaks off in the middle", NO_PARAMS, 0.002, 0.01),
    Kind(_R, "html_after", "does what was asked and answers with an HTML page", {"status": 200}, 0.002, 0.01),
    # --- trade updates
    Kind(_U, "lost", "never goes out", NO_PARAMS, 0.01, 0.05),
    Kind(_U, "duplicated", "goes out that many times", {"copies": 2}, 0.02, 0.05),
    Kind(_U, "reordered", "goes out after the next one of the account", NO_PARAMS, 0.01, 0.05),
    Kind(_U, "delayed", "goes out late", {"seconds": 0.5}, 0.02, 0.05, {"seconds": 0.1}),
    Kind(_U, "null", "goes out as `data: null`", NO_PARAMS, 0.002, 0.01),
    Kind(_U, "unknown_event", "has an event that nobody has heard of", {"event": "loopback_event"}, 0.002, 0.01),
    Kind(_U, "unknown_status", "has an order status that nobody has heard of", {"status": "loopback_status"}, 0.002, 0.01),
    Kind(_U, "no_event_id", "has no event_id", NO_PARAMS, 0.01, 0.05),
    Kind(_U, "after_the_fill", "`new` or `pending_new` goes out only after the order's next fill", NO_PARAMS, 0.005, 0.02),
    Kind(_U, "after_the_end", "a fill goes out only after the order was canceled, filled or expired", NO_PARAMS, 0.002, 0.02),
    Kind(_U, "replayed", "a fill is followed by the order's `new` and itself again, with the same ids", {"copies": 2},
         0.01, 0.03),
    # --- connections
    Kind(_T, "refused", "a connection is answered with this HTTP status", {"status": 429}, 0.01, 0.05),
    Kind(_T, "no_auth_answer", "a connection never hears whether it is authorized", NO_PARAMS, 0, 0.01),
    Kind(_T, "slow_auth", "a connection waits for its authorization", {"seconds": 1.0}, 0.02, 0.05, {"seconds": 0.2}),
    Kind(_T, "silent", "says no more for so long (0: for ever), and answers pings", _FRAME, 0.001, 0.003, _FOR_A_WHILE),
    Kind(_T, "half_open", "says no more and answers no ping; the connection stays (0: for ever)", _FRAME, 0, 0.002,
         _FOR_A_WHILE),
    Kind(_T, "slow", "this and later frames each wait", {"seconds": 0.2}, 0, 0.002, {"seconds": 0.02}),
    Kind(_T, "dropped", "the connection ends instead: 1006 without a word, else with that code", {"code": 1006}, 0.003, 0.01),
    Kind(_T, "lost", "a frame never goes out, whatever it says"),
    Kind(_D, "refused", "a connection is told 406 after its keys, or is answered with this HTTP status", {"status": 406},
         0.01, 0.05),
    Kind(_D, "no_auth_answer", "a connection never hears whether it is authenticated", NO_PARAMS, 0, 0.01),
    Kind(_D, "slow_auth", "a connection waits for its authentication", {"seconds": 1.0}, 0.02, 0.05, {"seconds": 0.2}),
    Kind(_D, "silent", "says no more for so long (0: for ever), and answers pings", _FRAME, 0.001, 0.003, _FOR_A_WHILE),
    Kind(_D, "half_open", "says no more and answers no ping; the connection stays (0: for ever)", _FRAME, 0, 0.002,
         _FOR_A_WHILE),
    Kind(_D, "slow", "this and later frames each wait", {"seconds": 0.2}, 0, 0.002, {"seconds": 0.02}),
    Kind(_D, "dropped", "the connection ends instead: 1011 with a close frame, 1006 without a word", {"code": 1011},
         0.001, 0.005),
    Kind(_D, "lost", "a frame never goes out; REST has its bars", NO_PARAMS, 0.005, 0.02),
    # --- the market
    Kind(_M, "halt", "trading in a symbol stops for so many minutes", {"symbol": "", "minutes": 5}, SESSION / 2, SESSION),
    Kind(_M, "half_day", "the market closes now; the calendar and the clock say so", NO_PARAMS),
    Kind(_M, "clock_skew", "the server's clock is so far ahead (below zero: behind) from now on", {"market_seconds": 2.0},
         SESSION / 2, SESSION),
    Kind(_M, "gap", "so many minutes of a symbol have no bar, on the stream or later", {"symbol": "", "minutes": 2},
         SESSION, 3 * SESSION),
    Kind(_M, "corrected_bar", "the last bar of a symbol is sent again with a close that many cents higher",
         {"symbol": "", "cents": 1}, SESSION, 3 * SESSION),
    # --- the account
    Kind(_A, "order_by_hand", "somebody orders in the broker's web page",
         {"key": "", "symbol": "", "side": "buy", "qty": Decimal(1)}, 0, SESSION),
    Kind(_A, "closed_by_hand", "somebody closes a position in the broker's web page", {"key": "", "symbol": ""}, 0, SESSION / 2),
    Kind(_A, "split", "a position becomes that many times as many shares, with no order",
         {"key": "", "symbol": "", "ratio": Decimal(2)}),
    Kind(_A, "bust", "a fill is undone at the next minute (trade_bust)", NO_PARAMS, 0, 0.005),
    Kind(_A, "correction", "a fill's price is corrected at the next minute (trade_correct)", {"cents": 1}, 0, 0.01),
    Kind(_A, "stuck_cancel", "a cancel is taken with 204 and stays pending_cancel for so many minutes (0: for ever)",
         {"minutes": 0}, 0, 0.05, {"minutes": 3}),
    Kind(_A, "cancel_fills", "a cancel is taken with 204 and the order fills instead", NO_PARAMS, 0.05, 0.1),
    Kind(_A, "orders_lag", "orders are answered as of so long ago", _LAG, 0.01, 0.05),
    Kind(_A, "positions_lag", "positions are answered as of so long ago", _LAG, 0.01, 0.05),
    Kind(_A, "activities_lag", "fills are answered as of so long ago", _LAG, 0.01, 0.05),
    Kind(_A, "activities_reordered", "rows of FILL activities change places", NO_PARAMS, 0.02, 0.1),
    Kind(_A, "activities_missing", "a row of FILL activities is left out", NO_PARAMS, 0, 0.02),
    # --- the server
    Kind(_S, "restart", "drops every connection and comes back on the same port with the state of its directory",
         NO_PARAMS, 0, SESSION / 2),
)  # fmt: skip

KINDS: Mapping[tuple[str, str], Kind] = MappingProxyType({(kind.where, kind.name): kind for kind in FAULTS})
INTENSITIES = ("light", "heavy")


def chance(*parts: object) -> float:
    """A number from 0 up to 1 that follows from the parts alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def drawn(seed: int, intensity: str) -> tuple[Fault, ...]:
    """A plan of everything that can be survived; the seed moves each chance between half and one and a half of its row's."""
    if intensity not in INTENSITIES:
        raise BadInput(f"Found the intensity {intensity!r} of faults; allowed is {' or '.join(INTENSITIES)}.")
    plan: list[Fault] = []
    for kind in FAULTS:
        share = kind.heavy if intensity == "heavy" else kind.light
        if share:
            probability = round(share * (0.5 + chance(seed, intensity, kind.where, kind.name)), 6)
            plan.append(Fault(kind.where, kind.name, probability=probability, params=dict(kind.drawn)))
    return tuple(plan)


def read(path: Path) -> tuple[Fault, ...]:
    """A script of faults: a YAML or JSON list of rows."""
    try:
        content = msgspec.yaml.decode(path.read_bytes())
    except OSError as error:
        raise BadInput(f"The faults in {path} cannot be read ({error.strerror}). Give an existing YAML file.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"The faults in {path} are not YAML: {' '.join(str(error).split())}.") from None
    return rows(content, str(path))


def rows(content: object, source: str) -> tuple[Fault, ...]:
    """Rows of plain data as faults, every problem told at once."""
    if not isinstance(content, list):
        found = "nothing" if content is None else type(content).__name__
        raise BadInput(f"{source}: found {found}; allowed is a list of faults, each with `where` and `kind`.")
    plan: list[Fault] = []
    problems: list[str] = []
    for number, row in enumerate(content, 1):
        try:
            fault = msgspec.convert(row, Fault)
        except msgspec.ValidationError as error:
            problems.append(f"{source}, fault {number}: {error}. Allowed are {', '.join(Fault.__struct_fields__)}.")
            continue
        problems += [f"{source}, fault {number}: {problem}" for problem in problems_of(fault)]
        plan.append(fault)
    if problems:
        raise BadInput("\n".join(problems))
    return tuple(plan)


def checked(plan: Sequence[Fault]) -> tuple[Fault, ...]:
    problems = [f"Fault {number}: {text}" for number, fault in enumerate(plan, 1) for text in problems_of(fault)]
    if problems:
        raise BadInput("\n".join(problems))
    return tuple(plan)


def problems_of(fault: Fault) -> list[str]:
    """What is wrong with one fault, a sentence each."""
    if fault.where not in PLACES:
        return [f"found where {fault.where!r}; allowed is {', '.join(PLACES)}."]
    kind = KINDS.get((fault.where, fault.kind))
    if kind is None:
        names = [name for where, name in KINDS if where == fault.where]
        near = difflib.get_close_matches(fault.kind, names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return [f"found kind {fault.kind!r}; allowed in {fault.where} is {', '.join(names)}.{hint}"]
    found: list[str] = []
    facts = PLACES[fault.where].facts
    unknown = [name for name in fault.match if name not in facts]
    if unknown:
        found.append(f"cannot match {', '.join(unknown)}; allowed in {fault.where} is {', '.join(facts) or 'nothing'}.")
    found += [f"found {name} {value}; allowed is 1 or more." for name, value in (("at", fault.at), ("times", fault.times))
              if value is not None and value < 1]  # fmt: skip
    if fault.probability is not None and not 0 < fault.probability <= 1:
        found.append(f"found probability {fault.probability}; allowed is above 0, up to 1.")
    if fault.at is not None and fault.probability is not None:
        found.append("has both `at` and `probability`; give one of them.")
    for name, value in fault.params.items():
        if name not in kind.params:
            found.append(f"{kind.name} has no parameter {name}; allowed is {', '.join(kind.params) or 'none'}.")
            continue
        if not _is_usable(name, value, type(kind.params[name])):
            words = _WORDS[type(kind.params[name])]
            found.append(f"found {name} {value!r}; allowed is {words}, such as {kind.params[name] or repr('')}.")
    return found


def _is_usable(name: str, value: Value, wanted: type[Param]) -> bool:
    try:
        typed = _typed(value, wanted)
    except msgspec.ValidationError:
        return False
    if name == "side":
        return str(typed).upper() in Side.__members__
    if isinstance(typed, Decimal):
        return typed.is_finite() and typed > 0
    return isinstance(typed, str) or name in MAY_BE_NEGATIVE or typed >= 0


def _typed(value: Value, wanted: type[Param]) -> Param:
    """A script writes 5 and "5" alike."""
    return str(value) if wanted is str else msgspec.convert(value, wanted, strict=False)


_WORDS: Mapping[type, str] = MappingProxyType(
    {int: "a whole number", float: "a number", Decimal: "a number above zero", str: "a text"}
)
