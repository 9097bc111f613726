"""The log of record on disk and in memory: eventsourcing's SQLite and in-memory recorders, extended by our envelope and chain.

    streams(id, name)   types(id, name)   events(position, stream, version, type, occurred_at, recorded_at,
                                                 correlation, causation, payload, hash)

`position` is an explicit primary key without gaps, so VACUUM cannot renumber it. Streams and types stand once by name, and events
hold their small numbers. The payload is text, for people and for DuckDB; bytes that are not UTF-8 stay bytes.

The recorders remain recorders of that library (its own test cases run over them), so any eventsourcing application can open a
ledger: PERSISTENCE_MODULE=mqd_ledger.store, MAPPER_TOPIC=mqd_ledger.store:LedgerMapper, SQLITE_DBNAME=the file.

A ledger file is only ever touched through `sqlite3`: POSIX drops all of a process's locks on a file when any of its descriptors
of that file is closed, after which another process may delete the WAL, and commits that were acknowledged are gone. So never
`open()` one, not even to copy it: `backup` does that.
"""

import os
import sys
from contextlib import closing
from pathlib import Path

from mqd_ledger.chain import Head
from mqd_ledger.errors import BadInput, LedgerUnreadable
from mqd_ledger.store.connections import Access, Durability, LedgerDatastore
from mqd_ledger.store.library import Factory, LedgerEvent, LedgerMapper
from mqd_ledger.store.memory import MemoryLedgerRecorder
from mqd_ledger.store.recorder import SQLiteLedgerRecorder
from mqd_ledger.store.rows import Batch, LedgerRecorder, StoredRow


def open_ledger(path: Path, access: Access, durability: Durability = "full") -> SQLiteLedgerRecorder:
    """A recorder on a ledger file that has been looked at; close it. Whoever writes has to hold the `lock.WriterLock`."""
    if access != "create":
        require_file(path)
    recorder = SQLiteLedgerRecorder(LedgerDatastore(path, access=access, durability=durability))
    try:
        recorder.open()
    except BaseException:
        recorder.close()
        raise
    return recorder


def require_file(path: Path) -> None:
    if path.is_dir():
        raise LedgerUnreadable(f"{path} is a directory, not a ledger. Give the path of the file.")
    if not path.exists():
        raise LedgerUnreadable(f"There is no ledger at {path}. Check the path, or make one with `mqd-ledger init`.")


def backup(source: Path, target: Path) -> Head:
    """Copy a ledger, also while it is being written, to a new file that appears whole or not at all; the copy's head."""
    if target.exists():
        raise BadInput(f"{target} exists already; a backup never overwrites anything. Give another name.")
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with closing(open_ledger(source, "read")) as recorder:
            recorder.copy_to(part)
        with closing(open_ledger(part, "write")) as copy:
            head = copy.head()
        part.replace(target)
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            part.with_name(part.name + suffix).unlink(missing_ok=True)
    _make_durable(target.parent)
    return head


def _make_durable(directory: Path) -> None:
    """A rename is on the disk when its directory is; Windows has no such call and needs none."""
    if sys.platform != "win32":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


__all__ = [
    "Access",
    "Batch",
    "Durability",
    "Factory",
    "LedgerDatastore",
    "LedgerEvent",
    "LedgerMapper",
    "LedgerRecorder",
    "MemoryLedgerRecorder",
    "SQLiteLedgerRecorder",
    "StoredRow",
    "backup",
    "open_ledger",
    "require_file",
]
