"""How a command line reaches a run that holds the writer's lock: request files in `<ledger>.requests/`, one per wish.

A request is written under a temporary name and renamed to `.json`, so it is there whole or not at all. The run takes it between two
turns by renaming it to `.taken` (from then on it cannot be withdrawn), commits what was decided, leaves an `.answer` beside it and
removes it. One that was taken but not yet answered when the run was killed is taken again by the next one; its id is in the log
if it was decided, and then it changes nothing.
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
from commands.control import HaltTrading, ReduceTrading, ResumeTrading
from mqd_ledger.errors import BadInput, CommandRefused

REQUESTS: Mapping[str, Callable[[datetime, str, str, str], Command]] = MappingProxyType(
    {"halt": HaltTrading, "reduce": ReduceTrading, "resume": ResumeTrading}
)
TAKEN, ANSWER = ".taken", ".answer"
WAITING = {".json", TAKEN}
LEFT_BEHIND = {ANSWER, ".tmp"}
MOST_AT_ONCE = 100
FORGOTTEN_SECONDS = 60.0  # nobody waits for an answer so long
TEXT_MAX = 2000  # characters of a reason that are kept


def _directory(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".requests")


def ask(ledger: Path, verb: str, operator: str, reason: str) -> Path:
    """Leave a request for the process that writes this ledger; the file to wait by."""
    directory = _directory(ledger)
    directory.mkdir(exist_ok=True)
    path = directory / f"{time.time_ns():020d}-{os.getpid()}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"verb": verb, "operator": operator, "reason": reason}), encoding="utf-8")
    temporary.replace(path)
    return path


class RequestBox:
    """The run's side: `take` reads what is waiting, `answer` tells the asker once it is committed or refused."""

    def __init__(self, ledger: Path, every_seconds: float = 0.2) -> None:
        self._directory = _directory(ledger.absolute())  # a strategy may change the working directory
        self._answered: set[Path] = set()
        self._every = every_seconds
        self._looked_at = 0.0

    def take(self, at: datetime) -> Iterator[tuple[Path, Command]]:
        now = time.monotonic()
        if now - self._looked_at < self._every:
            return
        self._looked_at = now
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
            command = REQUESTS[request["verb"]](at, _text(request["operator"]), _text(request["reason"]), path.stem)
        except FileNotFoundError:  # withdrawn meanwhile
            return None
        except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
            # Whoever wrote it wanted to stop or to go on; not knowing which, stopping is the safe reading.
            reason = _text(
                f"request {path.stem} could not be read ({type(error).__name__}: {error}); halted to be safe"
            )
            return HaltTrading(at, "unreadable request", reason, path.stem)
        if isinstance(command, ResumeTrading) and age_seconds > FORGOTTEN_SECONDS:
            # Its asker was killed while it waited. What stops trading counts however old it is; this would lift a later halt.
            path.unlink(missing_ok=True)
            return None
        return command

    def answer(self, path: Path, refusal: str) -> None:
        """An empty `refusal` says that the request is done. One that cannot be removed is not taken again by this run."""
        self._answered.add(path)
        try:
            path.with_suffix(ANSWER).write_text(refusal, encoding="utf-8")
            path.unlink(missing_ok=True)
        except OSError:
            return  # the asker says that nobody answered; what was asked is in the log
        self._answered.discard(path)


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
