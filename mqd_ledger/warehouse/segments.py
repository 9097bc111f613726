"""Sealed segments: what the log has held for a while, as Parquet, so that a query over millions of events takes a moment.

They lie in `<ledger>.cache/segments/` as `<first>-<last>.parquet`, each with its manifest `<first>-<last>.json`, and may be deleted
at any time. A segment holds 100,000 events; the newest ones stand in smaller ones of 10,000 until there are enough for a large one,
so that what has to be read from the ledger itself stays small.

A segment is used only if its file is the one that was sealed (its SHA-256, looked at again whenever size or times of the file
changed) and the log has the same hash at its last position: one of another or of a restored ledger, or one that was edited, is
made anew. It takes its name only when it is complete, and its manifest comes after it, so that two processes that make the same
one disturb nobody. Where the directory cannot be written there are just no new segments.
"""

from collections.abc import Callable
from contextlib import suppress
from hashlib import file_digest
from pathlib import Path
from typing import NamedTuple

import duckdb
import msgspec

from mqd_ledger.warehouse import duck
from mqd_ledger.warehouse.tail import LedgerFile
from mqd_ledger.warehouse.whole import appearing_whole

SIZES = (100_000, 10_000)  # events of a segment, the large ones first
FORMAT = 1  # of the columns in the files; another one makes every segment anew

Progress = Callable[[int, int], None]  # events sealed so far, and of how many


class Segment(NamedTuple):
    path: Path
    last: int


class _Stamp(msgspec.Struct, frozen=True):
    """What shows cheaply that a file was not touched."""

    size: int
    modified_ns: int
    changed_ns: int


class _Manifest(msgspec.Struct, frozen=True):
    format: int
    first: int
    last: int
    count: int
    sha256: str  # of the segment's file
    chain_head: str  # the hash of its last event, in hex
    stamp: _Stamp


_decode_manifest = msgspec.json.Decoder(_Manifest).decode


def folder_of(ledger: Path) -> Path:
    return ledger.absolute().with_name(ledger.name + ".cache") / "segments"


def sealed(ledger: Path, log: LedgerFile, progress: Progress | None = None) -> list[Segment]:
    """The segments that cover the log from its first event on; those that are missing are made."""
    folder = folder_of(ledger)
    head = log.last_position()
    found: list[Segment] = []
    position = 0
    for size in SIZES:
        while position + size <= head:
            path = folder / f"{position + 1}-{position + size}.parquet"
            if not _is_good(path, position, position + size, log):
                if not _seal(path, position, position + size, log):
                    return found
                if progress is not None:
                    progress(position + size, head)
            position += size
            found.append(Segment(path, position))
    _tidy(folder, found)
    return found


def _is_good(path: Path, after: int, last: int, log: LedgerFile) -> bool:
    manifest = _read_manifest(path)
    expected = (FORMAT, after + 1, last, last - after)
    if manifest is None or (manifest.format, manifest.first, manifest.last, manifest.count) != expected:
        return False
    if manifest.chain_head != log.hash_at(last):
        return False
    try:
        stamp = _stamp(path)
        if stamp == manifest.stamp:
            return True
        if _sha256(path) != manifest.sha256:
            return False
    except OSError:
        return False
    with suppress(OSError):  # the place may be read-only
        _write_manifest(path, msgspec.structs.replace(manifest, stamp=stamp))  # copied or touched, but the same
    return True


def _seal(path: Path, after: int, last: int, log: LedgerFile) -> bool:
    """False where it cannot be written: another process may hold it open (on Windows), or nothing may be written here."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing_whole(path) as temporary:
            with duck.connect() as connection:
                count = duck.append(connection, "sealing", log.chunks(after, last))
                connection.execute(
                    f"copy (select {duck.TYPED} from sealing order by position) to {duck.text(temporary)} "
                    "(format parquet, compression zstd)"
                )
            digest = _sha256(temporary)
        _write_manifest(path, _Manifest(FORMAT, after + 1, last, count, digest, log.hash_at(last), _stamp(path)))
    except (OSError, duckdb.IOException):
        return False
    return count == last - after


def _tidy(folder: Path, used: list[Segment]) -> None:
    """Remove small segments that a large one has taken in. Best effort: a reader may hold one open."""
    keep = {segment.path.stem for segment in used}
    end = used[-1].last if used else 0
    try:
        for path in folder.glob("*-*.*"):
            last = path.stem.rpartition("-")[2]
            if path.stem not in keep and last.isdecimal() and int(last) <= end:
                path.unlink(missing_ok=True)
    except OSError:
        return


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    return _Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read_manifest(path: Path) -> _Manifest | None:
    try:
        return _decode_manifest(path.with_suffix(".json").read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None


def _write_manifest(path: Path, manifest: _Manifest) -> None:
    with appearing_whole(path.with_suffix(".json")) as temporary:
        temporary.write_bytes(msgspec.json.encode(manifest))
