"""The ledger, who writes it, and how a run on it can be reached."""

import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from mqd_ledger import chain, live_safety, lock
from mqd_ledger.doctor.base import FAIL, OK, SKIPPED, WARN, Found, Patient
from mqd_ledger.envelope import stored_names
from mqd_ledger.events import Event, RunStarted
from mqd_ledger.log import LogReader
from mqd_ledger.operator_requests import WAITING, kill_file, requests_directory
from mqd_ledger.sessions import session_at
from mqd_ledger.values import from_microseconds, iso

TAIL = 10_000  # events
SILENT = timedelta(minutes=10)  # a run with a broker records a bar a minute while the market is open

Kind = TypeVar("Kind", bound=Event)


def readable(patient: Patient) -> Found:
    path = patient.ledger
    if not path.exists():
        return OK, f"{path} is not there yet; `run` makes it", ""
    with LogReader.open(path) as log:
        head = log.head
    if not os.access(path, os.W_OK) or not os.access(patient.folder, os.W_OK):
        return FAIL, f"{path} may be read but not written", "Give this user the right to write the file and its folder."
    return OK, f"{path}, events: {head.position:,}", ""


def books(patient: Patient) -> Found:
    """Whether a run with that broker may go on with this ledger."""
    earlier = live_safety.modes_of(patient.ledger)
    live_safety.require_books(patient.ledger, patient.mode)
    return OK, f"its runs were of mode {earlier[-1]}" if earlier else "no run is in them yet", ""


def writer(patient: Patient) -> Found:
    holder = lock.holder(patient.ledger)
    return OK, f"written by {holder}" if holder else "nobody writes it now", ""


def last_event(patient: Patient) -> Found:
    """A run with a broker that records nothing while the market is open hangs."""
    if not patient.ledger.exists():
        return SKIPPED, "there is no ledger yet", ""
    with LogReader.open(patient.ledger) as log:
        recorded_at = from_microseconds(log.head.recorded_at)
    run = last(patient.ledger, RunStarted)
    now = patient.clock()
    text = f"recorded at {iso(recorded_at)}"
    session = session_at(now)
    is_trading = run is not None and run.mode.startswith("alpaca") and lock.holder(patient.ledger) is not None
    if is_trading and session is not None and now - max(recorded_at, session.open_at) > SILENT:
        return (
            WARN,
            f"{text}, although a process trades",
            "Look at `mqd-ledger status`; if it hangs, stop it and run again.",
        )
    return OK, text, ""


def chain_of_the_tail(patient: Patient) -> Found:
    if not patient.ledger.exists():
        return SKIPPED, "there is no ledger yet", ""
    with LogReader.open(patient.ledger) as log:
        upto = log.head.position
        first = max(0, upto - TAIL)
        rows = log.rows(after=max(0, first - 1), upto=upto)
        start = chain.Head()
        if first:
            row = next(rows)
            start = chain.Head(row[0], row[9], row[5])
        chain.check(rows, start)
    return OK, f"the last {upto - first:,} events are as they were written; `mqd-ledger verify` looks at all", ""


def kill_signal(patient: Patient) -> Found:
    path = kill_file(patient.ledger)
    if not path.exists():
        return OK, "no signal file asks for the kill switch", ""
    return (
        WARN,
        f"{path} asks for the kill switch",
        "The run, or the next one, closes everything; remove the file if not.",
    )


def requests(patient: Patient) -> Found:
    """The folder by which halt, resume and kill reach a run."""
    path = requests_directory(patient.ledger)
    if not path.exists():
        return OK, "nobody has asked a run for anything yet", ""
    if not path.is_dir() or not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        advice = "Remove it, or give this user the right to read and write it: halt and kill could not reach a run."
        return FAIL, f"{path} is no folder that can be read and written", advice
    if os.name == "posix" and path.stat().st_mode & stat.S_IWOTH:
        return WARN, f"others on this machine may write into {path}", f"They could resume trading: chmod 700 {path}"
    waiting = [one for one in path.iterdir() if one.suffix in WAITING]
    if waiting and lock.holder(patient.ledger) is None:
        return (
            WARN,
            f"{len(waiting)} waiting in {path}",
            "The next run takes what is asked there; look whether that is wanted.",
        )
    return OK, f"{path} can be read and written", ""


def last(path: Path, kind: type[Kind]) -> Kind | None:
    """The last event of a kind in a ledger, if there is one."""
    found = None
    if path.exists():
        with LogReader.open(path) as log:
            for recorded in log.replay(types=stored_names(kind)):
                found = recorded.event
    return found if isinstance(found, kind) else None
