"""How a command line reaches a run that holds the writer's lock: request files in `<ledger>.requests/`, one per wish.

A request is written under a temporary name and renamed to `.json`, so it is there whole or not at all. The run takes it between two
turns by renaming it to `.taken` (from then on it cannot be withdrawn), commits what was decided, leaves an `.answer` beside it and
removes it. One that was taken but not yet answered when the run was killed is taken again by the next one; its id is in the log
if it was decided, and then it changes nothing.

Where no command line can be had there is the signal file: `touch paper.ledger.kill` activates the kill switch of paper.ledger, at
once or as soon as a run starts, however old the file is; what is written in it is the reason. The run renames it to
`paper.ledger.kill.taken-1` and so on.

To let operators ask for something else: a row in `REQUESTS`, or in `ABOUT` where the wish is about one thing that has to be named.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from commands import Command
from commands.control import ActivateKillSwitch, HaltTrading, ReduceTrading, ResumeTrading
from commands.truth import AcceptDifference
from mqd_ledger.errors import BadInput, CommandRefused

REQUESTS: Mapping[str, Callable[[datetime, str, str, str], Command]] = MappingProxyType(
    {"halt": HaltTrading, "reduce": ReduceTrading, "resume": ResumeTrading, "kill": ActivateKillSwitch}
)
# What is asked about one thing, whose id is the request's argument.
ABOUT: Mapping[str, Callable[[datetime, str, str, str, str], Command]] = MappingProxyType({"accept": AcceptDifference})
TAKEN, ANSWER = ".taken", ".answer"
WAITING = {".json", TAKEN}
LET_GO_ON = (ResumeTrading, AcceptDifference)  # these let trading go on
LEFT_BEHIND = {ANSWER, ".tmp"}
MOST_AT_ONCE = 100
FORGOTTEN_SECONDS = 60.0  # nobody waits for an answer so long
TEXT_MAX = 2000  # characters of a reason that are kept
KILL = ".kill"  # of the signal file's name
SIGNAL = "signal file"  # who asked, and why where the file does not say


def requests_directory(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".requests")


def wish(verb: str, at: datetime, operator: str, reason: str, request_id: str, argument: str = "") -> Command:
    """The command that a request stands for; a verb that is none is a KeyError."""
    if verb in ABOUT:
        return ABOUT[verb](at, argument, operator, reason, request_id)
    return REQUESTS[verb](at, operator, reason, request_id)


def kill_file(ledger: Path) -> Path:
    """The signal file: that it exists is the wish."""
    return ledger.with_name(ledger.name + KILL)


def ask(ledger: Path, verb: str, operator: str, reason: str, argument: str = "") -> Path:
    """Leave a request for the process that writes this ledger; the file to wait by."""
    directory = requests_directory(ledger)
    directory.mkdir(exist_ok=True)
    path = directory / f"{time.time_ns():020d}-{os.getpid()}.json"
    temporary = path.with_suffix(".tmp")
    request = {"verb": verb, "operator": operator, "reason": reason, "argument": argument}
    temporary.write_text(json.dumps(request), encoding="utf-8")
    temporary.replace(path)
    return path


class RequestBox:
    """The run's side: `take` reads what is waiting, `answer` tells the asker once it is committed or refused."""

    def __init__(self, ledger: Path, every_seconds: float = 0.2) -> None:
        ledger = ledger.absolute()  # a strategy may change the working directory
        self._directory = requests_directory(ledger)
        self._kill_file = kill_file(ledger)
        self._signals: set[str] = set()  # signal files that were taken and could not be renamed
        self._answered: set[Path] = set()
        self._every = every_seconds
        self._looked_at = 0.0

    def take(self, at: datetime) -> Iterator[tuple[Path, Command]]:
        now = time.monotonic()
        if now - self._looked_at < self._every:
            return
        self._looked_at = now
        signal = self._signal(at)
        if signal is not None:
            yield self._kill_file, signal
        found = sorted(self._directory.glob("*"))
        _sweep(path for path in found if path.suffix in LEFT_BEHIND)
        waiting = (path for path in found if path.suffix in WAITING and path not in self._answered)
        for path in islice(waiting, MOST_AT_ONCE):
            taken = _taken(path)
            command = self._read(taken, at)
            if command is not None:
                yield taken, command

    def _read(self, path: Path, at: datetime) -> Command | None:
        """None for what is not asked any more."""
        try:
            age_seconds = time.time() - path.stat().st_mtime
            request = json.loads(path.read_text(encoding="utf-8"))
            verb, operator, reason = request["verb"], _text(request["operator"]), _text(request["reason"])
            if verb == "kill" and not reason.strip():
                reason = "no reason was given"  # this wish is never refused for its words
            command = wish(verb, at, operator, reason, path.stem, _text(request.get("argument", "")))
        except FileNotFoundError:  # withdrawn meanwhile
            return None
        except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
            # Whoever wrote it wanted to stop or to go on; not knowing which, stopping is the safe reading.
            reason = _text(
                f"request {path.stem} could not be read ({type(error).__name__}: {error}); halted to be safe"
            )
            return HaltTrading(at, "unreadable request", reason, path.stem)
        if isinstance(command, LET_GO_ON) and age_seconds > FORGOTTEN_SECONDS:
            # Its asker was killed while it waited. What stops trading counts however old it is; these could lift a later halt.
            path.unlink(missing_ok=True)
            return None
        return command

    def answer(self, path: Path, refusal: str) -> None:
        """An empty `refusal` says that the request is done. One that cannot be removed is not taken again by this run."""
        if path == self._kill_file:
            self._put_away()
            return
        self._answered.add(path)
        try:
            path.with_suffix(ANSWER).write_text(refusal, encoding="utf-8")
            path.unlink(missing_ok=True)
        except OSError:
            return  # the asker says that nobody answered; what was asked is in the log
        self._answered.discard(path)

    def _signal(self, at: datetime) -> Command | None:
        """The kill switch, where the signal file asks for it. Its id is the file's time: the same file counts once."""
        try:
            made_at = self._kill_file.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        except OSError:
            made_at = 0  # something is there, and nobody may look at it
        request_id = f"{SIGNAL}-{made_at}"
        if request_id in self._signals:
            return None
        self._signals.add(request_id)
        try:
            written = (
                self._kill_file.read_bytes()[:TEXT_MAX].decode("utf-8", "backslashreplace").strip("\ufeff \t\r\n\0")
            )
        except OSError:  # a directory, or a file that only its maker may read
            written = ""
        return ActivateKillSwitch(at, SIGNAL, _text(written) or SIGNAL, request_id)

    def _put_away(self) -> None:
        """Under a name that says it was obeyed; where that fails this run knows it by its time, and the log by its id."""
        number = 1
        while (taken := self._kill_file.with_name(f"{self._kill_file.name}.taken-{number}")).exists():
            number += 1
        with suppress(OSError):
            self._kill_file.rename(taken)


def _taken(path: Path) -> Path:
    """A request under the name by which its asker knows that it is being decided; where it cannot be renamed, as it is."""
    try:
        return path.replace(path.with_suffix(TAKEN))
    except OSError:  # also where it was withdrawn meanwhile: then there is nothing to read either
        return path


def _sweep(paths: Iterable[Path]) -> None:
    """Remove what askers left behind that were killed before they could read, or while they wrote."""
    for path in paths:
        with suppress(OSError):  # gone already, or no file of ours
            if time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS:
                path.unlink()


def _text(value: object) -> str:
    """What the log can hold of a text from outside."""
    return str(value)[:TEXT_MAX].encode("utf-8", "backslashreplace").decode()


def wait_for_answer(path: Path, seconds: float, is_running: Callable[[], bool]) -> bool:
    """True when the run has done what was asked, False if it ended without; a refusal or no answer is an error that says so."""
    deadline = time.monotonic() + seconds
    answer, taken = path.with_suffix(ANSWER), path.with_suffix(TAKEN)
    looks, runs = 0, True
    try:
        while (path.exists() or taken.exists()) and time.monotonic() <= deadline and runs:
            time.sleep(0.02)
            looks += 1
            runs = looks % 25 != 0 or is_running()
    finally:  # also when interrupted: nothing is left that a later run would take
        withdrawn = _withdraw(path)
    if not runs and (withdrawn or _withdraw(taken)):  # it was killed before it answered
        return False
    if withdrawn:
        raise BadInput(
            f"The process that writes this ledger did not take the request within {seconds:g} s, so it was withdrawn. "
            "Look at it with `mqd-ledger status`; if it hangs, stop it and give the command again."
        )
    if taken.exists():
        raise BadInput(
            f"The process that writes this ledger has taken the request, but not answered it within {seconds:g} s: it will "
            "still be decided. `mqd-ledger status` shows when it is."
        )
    refusal = answer.read_text(encoding="utf-8") if answer.exists() else ""
    answer.unlink(missing_ok=True)
    if refusal:
        raise CommandRefused(refusal)
    return True


def _withdraw(path: Path) -> bool:
    """Whether the request was still there to be taken back."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
