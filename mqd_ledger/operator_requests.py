"""How a command line reaches a run that holds the writer's lock: request files in `<ledger>.requests/`, one per wish.

A request is written under a temporary name and renamed, so it is there whole or not at all. The run takes it between two turns,
commits what was decided, leaves an answer beside it and removes it. One that was decided but not yet answered when the run was
killed is decided again, which changes nothing.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from commands import Command
from commands.control import HaltTrading, ReduceTrading, ResumeTrading
from mqd_ledger.errors import BadInput, CommandRefused

REQUESTS: Mapping[str, Callable[[datetime, str, str], Command]] = MappingProxyType(
    {"halt": HaltTrading, "reduce": ReduceTrading, "resume": ResumeTrading}
)
MOST_AT_ONCE = 100


def _directory(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".requests")


def ask(ledger: Path, verb: str, operator: str, reason: str) -> Path:
    """Leave a request for the process that writes this ledger; the file whose disappearance is the answer."""
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
        self._directory = _directory(ledger)
        self._every = every_seconds
        self._looked_at = 0.0

    def take(self, at: datetime) -> list[tuple[Path, Command]]:
        now = time.monotonic()
        if now - self._looked_at < self._every or not self._directory.is_dir():
            return []
        self._looked_at = now
        return [(path, self._read(path, at)) for path in sorted(self._directory.glob("*.json"))[:MOST_AT_ONCE]]

    def _read(self, path: Path, at: datetime) -> Command:
        try:
            request = json.loads(path.read_text(encoding="utf-8"))
            return REQUESTS[request["verb"]](at, str(request["operator"]), str(request["reason"]))
        except (ValueError, KeyError, TypeError) as error:
            # Whoever wrote it wanted to stop or to go on; not knowing which, stopping is the safe reading.
            return HaltTrading(
                at, "unreadable request", f"{path.name} could not be read ({error!r}); halted to be safe"
            )

    def answer(self, path: Path, refusal: str) -> None:
        """An empty `refusal` says that the request is done."""
        path.with_suffix(".answer").write_text(refusal, encoding="utf-8")
        path.unlink(missing_ok=True)


def wait_for_answer(path: Path, seconds: float) -> None:
    """Return when the run has done what was asked; a refusal or no answer within `seconds` is an error that says so."""
    deadline = time.monotonic() + seconds
    answer = path.with_suffix(".answer")
    while path.exists():
        if time.monotonic() > deadline:
            path.unlink(missing_ok=True)
            raise BadInput(
                f"The process that writes this ledger did not take the request within {seconds:g} s, so it was withdrawn. "
                "Look at it with `mqd-ledger status`; if it hangs, stop it and give the command again."
            )
        time.sleep(0.02)
    refusal = answer.read_text(encoding="utf-8") if answer.exists() else ""
    answer.unlink(missing_ok=True)
    if refusal:
        raise CommandRefused(refusal)
