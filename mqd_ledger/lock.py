"""One writer per ledger: a lock that the operating system releases when its process ends, however it ends.

The lock is on `<ledger>.lock`, never on the ledger itself (see `store.py`). Who holds it stands beside it in
`<ledger>.writer.json`, since a locked file cannot be read on Windows. What that file says counts only while the lock is held, so
what a crash leaves behind neither blocks nor misleads anybody.
"""

import os
import platform
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from filelock import FileLock, Timeout

from mqd_ledger.errors import LedgerLocked, LedgerUnreadable
from mqd_ledger.values import iso

PATIENCE = 0.25  # seconds; somebody may only be asking who holds it


class _Info(msgspec.Struct, frozen=True):
    pid: int
    host: str
    command: str


@dataclass(frozen=True)
class Holder:
    """The process that writes a ledger. `pid` is 0 while it has the lock but has not said yet who it is."""

    pid: int
    host: str
    since: datetime
    command: str

    def __str__(self) -> str:
        if not self.pid:
            return "a process that has only just started"
        return f"process {self.pid} on {self.host}, since {iso(self.since.replace(microsecond=0))}: {self.command}"


class WriterLock:
    """The right to write one ledger. Acquired at once or not at all; also refused to a second holder in the same process."""

    def __init__(self, ledger_path: Path) -> None:
        self._ledger = ledger_path
        self._lock = _lock_of(ledger_path)

    def acquire(self) -> None:
        if not _take(self._lock, self._ledger, PATIENCE):
            raise LedgerLocked(
                f"The ledger {self._ledger} is being written by another process ({_told(self._ledger)}). One ledger has one "
                "writer: stop that process, or give this one another ledger. Reading (status, replay, sql) works meanwhile."
            )
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        info = msgspec.json.encode(_Info(os.getpid(), platform.node(), command))
        try:
            _info_path(self._ledger).write_bytes(info)
        except OSError as error:
            self._lock.release()
            raise LedgerUnreadable(f"The ledger {self._ledger} cannot be written: {error}.") from error

    def release(self) -> None:
        if self._lock.is_locked:
            with suppress(OSError):  # somebody reads it on Windows; without the lock it says nothing
                _info_path(self._ledger).unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.release()


def holder(ledger_path: Path) -> Holder | None:
    """Who writes this ledger now; None if nobody does."""
    if not _beside(ledger_path, ".lock").exists():
        return None
    lock = _lock_of(ledger_path)
    try:
        if _take(lock, ledger_path, 0):
            lock.release()
            return None
    except LedgerUnreadable:
        return None  # who may not even lock it here has nobody to fear
    return _told(ledger_path)


def _beside(ledger_path: Path, suffix: str) -> Path:
    return ledger_path.with_name(ledger_path.name + suffix)


def _info_path(ledger_path: Path) -> Path:
    return _beside(ledger_path, ".writer.json")


def _lock_of(ledger_path: Path) -> FileLock:
    return FileLock(_beside(ledger_path, ".lock"), thread_local=False)


def _take(lock: FileLock, ledger_path: Path, timeout: float) -> bool:
    try:
        lock.acquire(timeout=timeout, poll_interval=0.02)
    except Timeout:
        return False
    except OSError as error:
        raise LedgerUnreadable(
            f"The ledger {ledger_path} cannot be written: {error.strerror or error} ({_beside(ledger_path, '.lock')}). This "
            "user has to be allowed to write there, and no file may stand where a directory has to be."
        ) from error
    return True


def _told(ledger_path: Path) -> Holder:
    """What the holder says of itself, which it does just after it has taken the lock."""
    path = _info_path(ledger_path)
    for _attempt in range(10):
        try:
            info = msgspec.json.decode(path.read_bytes(), type=_Info)
            since = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        except (OSError, msgspec.DecodeError):
            time.sleep(0.02)
        else:
            return Holder(info.pid, info.host, since, info.command)
    return Holder(0, "", datetime.fromtimestamp(0, UTC), "")
