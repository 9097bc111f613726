"""Snapshots of the State, so that a start need not fold the whole log: a cache beside it, and never more than that.

They lie in `<ledger>.cache/` as `state-<position>.snapshot` (the last two are kept) and `run-start-<position>.snapshot` (the state
right before the open run), and may be deleted at any time. A file is one line of JSON, the `Header`, and the State as MessagePack:
data, which can run no code. It takes its name only when it is complete.

A snapshot is used only if it is whole (its SHA-256), was made by exactly this program (a hash of all its code, for other code may
fold or decide differently) and the log has, at its position, the event with its hash. Any other is passed over, and removed by who
writes the ledger. Whoever makes one has checked the chain up to it, so a start checks the chain from there on (`checked`). Against
somebody who forges a file with its hash there is `verify`, which looks at the whole chain and compares the newest snapshot with a
full fold.

What a run's reactors keep outside the State goes along where they offer it (`remembering.py`): then its rehearsal can begin there.

To keep something new: put it into the State. Nothing has to be done here, unless it is of a type that MessagePack does not have.
"""

import dataclasses
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import commands
from mqd_ledger import __version__, chain
from mqd_ledger.chain import Head
from mqd_ledger.errors import CheckFailed, LedgerError
from mqd_ledger.evolve import evolve
from mqd_ledger.log import EventLog, LogReader
from mqd_ledger.remembering import memory_of
from mqd_ledger.state import State

FORMAT = 1  # of the files; another one is passed over
KEPT = 2  # without a pin: where the newest was damaged, the one before it serves
EVERY = 100_000  # events: about a third of a second of folding
RUN_START = "run-start"
_NAME = re.compile(r"(?P<pin>[a-z-]+)-(?P<position>\d+)\.snapshot")
_UNPINNED = "state"


class Header(msgspec.Struct, frozen=True):
    format: int
    position: int  # of the last event that is in the state
    hash: str  # of that event, in hex
    recorded_at: int
    code: str  # `fingerprint` of the program that folded it
    sha256: str = ""  # of this header without it, and the body


class _Body(msgspec.Struct):
    state: State
    memory: list[Any] | None  # of the reactors, in their order; None: they cannot be given theirs back


class Snapshot(NamedTuple):
    state: State
    position: int
    memory: list[Any] | None


# --- the state as bytes -----------------------------------------------------------------------------------------------

_FIELDS = tuple(field.name for field in dataclasses.fields(State))
_encode = msgspec.msgpack.Encoder().encode


def _other_type(wanted: Any, value: Any) -> Any:
    if getattr(wanted, "__origin__", wanted) is deque:
        return deque(value)
    raise NotImplementedError(f"A snapshot holds no {wanted}.")


_decode = msgspec.msgpack.Decoder(_Body, dec_hook=_other_type).decode


def encode(state: State, memory: list[Any] | None = None) -> bytes:
    """The same bytes for the same state, whatever made it: dicts in their order, which decisions follow; sets, which have none,
    sorted.
    """
    fields = {name: _plain(getattr(state, name)) for name in _FIELDS}
    return _encode({"state": fields, "memory": memory})


def _plain(value: Any) -> Any:
    if isinstance(value, set):
        return sorted(value)
    return list(value) if isinstance(value, deque) else value


def decode(data: bytes) -> tuple[State, list[Any] | None]:
    body = _decode(data)
    state = body.state
    # A working order is one of the orders, not a second one that looks the same.
    state.working = {symbol: {name: state.orders[name] for name in ours} for symbol, ours in state.working.items()}
    return state, body.memory


@cache
def fingerprint() -> str:
    """Of all code of this program, as it was when the process first asked."""
    code = sha256(f"{FORMAT} {__version__} {sys.version_info[:3]} {msgspec.__version__}".encode())
    for package in (Path(__file__).parent, Path(commands.__file__).parent):
        for file in sorted(package.rglob("*.py")):
            code.update(f"{file.relative_to(package.parent).as_posix()}\n".encode())
            code.update(file.read_bytes())
    return code.hexdigest()


# --- the files --------------------------------------------------------------------------------------------------------


class _File(NamedTuple):
    path: Path
    pin: str
    position: int


class Snapshots:
    """The snapshots of one ledger. Only the process that writes the ledger may make or remove any: all others are `read_only`."""

    def __init__(self, ledger: Path, *, read_only: bool = False, every: int = EVERY) -> None:
        """`every` so many events a run makes one."""
        self.folder = ledger.absolute().with_name(ledger.name + ".cache")
        self.every = every
        self._read_only = read_only
        self._writing = threading.Lock()

    def save(self, state: State, head: Head, memory: list[Any] | None = None, *, pin: str = "") -> bool:
        """Keep a state as of the event `head`; False where the directory cannot be written: there are just no snapshots then."""
        return self.write(encode(state, memory), head, pin=pin)

    def write(self, body: bytes, head: Head, *, pin: str = "") -> bool:
        """The slower half of `save`: hash, write, force to the disk. It looks at nothing but what it is given."""
        if self._read_only or not head.position:
            return False
        bare = Header(FORMAT, head.position, head.hash.hex(), head.recorded_at, fingerprint())
        header = msgspec.structs.replace(bare, sha256=_digest(bare, body))
        path = self.folder / f"{pin or _UNPINNED}-{head.position}.snapshot"
        new = path.with_suffix(".new")
        with self._writing:
            try:
                self.folder.mkdir(exist_ok=True)
                with new.open("wb") as file:
                    file.write(msgspec.json.encode(header) + b"\n")
                    file.write(body)
                    file.flush()
                    os.fsync(file.fileno())
                new.replace(path)
                self._tidy()
            except OSError:
                return False
        return True

    def latest(
        self, log: LogReader, *, after: int = 0, upto: int | None = None, remembering: bool = False
    ) -> Snapshot | None:
        """The newest usable one between two positions; if wanted, only with what the reactors remember."""
        for file, _, body in self._usable(log, after, upto):
            try:
                state, memory = decode(body)
            except (msgspec.MsgspecError, KeyError):
                self._remove(file.path)
                continue
            if memory is not None or not remembering:
                return Snapshot(state, file.position, memory)
        return None

    def head(self, log: LogReader) -> Head:
        """The event of the newest usable one; that before the first event if there is none."""
        for _, header, _ in self._usable(log, 0, None):
            return Head(header.position, bytes.fromhex(header.hash), header.recorded_at)
        return Head()

    def _usable(self, log: LogReader, after: int, upto: int | None) -> Iterator[tuple[_File, Header, bytes]]:
        """Those that are whole, of this program and of this log; the newest first."""
        for file in sorted(self._files(), key=lambda file: file.position, reverse=True):
            if not after <= file.position <= (sys.maxsize if upto is None else upto):
                continue
            try:
                header, body = _read(file.path)
            except OSError:  # a newer one has taken its place, or it is not ours to read
                continue
            if header is not None and header.position == file.position and _is_of(header, log):
                yield file, header, body
            else:
                self._remove(file.path)

    @property
    def newest(self) -> int:
        """The position of the newest file, whatever it is worth; 0 if there is none."""
        return max((file.position for file in self._files()), default=0)

    def _files(self) -> list[_File]:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except OSError:
            return []  # there is none yet
        found = filter(None, map(_NAME.fullmatch, names))
        return [_File(self.folder / name[0], name["pin"], int(name["position"])) for name in found]

    def _tidy(self) -> None:
        seen: dict[str, int] = {}
        for file in sorted(self._files(), key=lambda file: file.position, reverse=True):
            seen[file.pin] = seen.get(file.pin, 0) + 1
            if seen[file.pin] > (KEPT if file.pin == _UNPINNED else 1):
                self._remove(file.path)
        for cut_short in self.folder.glob("*.new"):
            self._remove(cut_short)

    def _remove(self, path: Path) -> None:
        if not self._read_only:
            with suppress(OSError):  # it is passed over all the same
                path.unlink()


def _digest(bare: Header, body: bytes) -> str:
    digest = sha256(msgspec.json.encode(bare))
    digest.update(body)
    return digest.hexdigest()


def _read(path: Path) -> tuple[Header | None, bytes]:
    """A file's header and body; None for the header where it is not whole, or of another program."""
    line, _, body = path.read_bytes().partition(b"\n")
    try:
        header = msgspec.json.decode(line, type=Header)
    except msgspec.MsgspecError:
        return None, b""
    if header.format != FORMAT or header.code != fingerprint():
        return None, b""
    bare = msgspec.structs.replace(header, sha256="")
    return (header, body) if header.sha256 == _digest(bare, body) else (None, b"")


def _is_of(header: Header, log: LogReader) -> bool:
    """Whether the log has, at its place, the event after which the snapshot was made."""
    row = next(iter(log.rows(header.position - 1, header.position)), None)
    return row is not None and (row[9].hex(), row[5]) == (header.hash, header.recorded_at)


# --- starting from them -----------------------------------------------------------------------------------------------


def restore(log: LogReader, snapshots: Snapshots | None = None, upto: int | None = None) -> State:
    """The state that a log tells of: a snapshot, and the fold of the rest."""
    found = None if snapshots is None else snapshots.latest(log, upto=upto)
    state, position = (State(), 0) if found is None else (found.state, found.position)
    for event in log.events(position, upto):
        evolve(state, event)
    return state


def checked(log: LogReader, snapshots: Snapshots | None = None) -> Head:
    """The last event, after a look at the chain: from the newest snapshot on, which was made behind a chain that was checked."""
    start = Head() if snapshots is None else snapshots.head(log)
    return chain.check(log.rows(start.position), start)


def wrong_fields(log: LogReader, snapshots: Snapshots) -> tuple[int, list[str]] | None:
    """The position of the newest snapshot, and the fields in which it is not, to the byte, what a fold of the whole log gives."""
    found = snapshots.latest(log)
    if found is None:
        return None
    folded = restore(log, upto=found.position)
    same = {name: [_encode(_plain(getattr(one, name))) for one in (found.state, folded)] for name in _FIELDS}
    return found.position, [name for name, (one, other) in same.items() if one != other]


class Saver:
    """Saves now and then while a run goes on. The state is encoded at once; a thread hashes and writes it."""

    def __init__(self, snapshots: Snapshots, reactors: Sequence[object] = ()) -> None:
        """`reactors` are those of the run, all of them: what they keep goes along."""
        self._snapshots = snapshots
        self._reactors = reactors
        self._last: int | None = None
        self._thread: threading.Thread | None = None

    def maybe(self, state: State, log: EventLog) -> bool:
        """Save if enough has happened since the last time; call it between turns."""
        if log.pending or (self._thread is not None and self._thread.is_alive()):
            return False
        head = log.head
        if self._last is None:
            self._last = self._snapshots.newest
        if head.position - self._last < self._snapshots.every:
            return False
        self._last = head.position
        body = encode(state, memory_of(self._reactors))
        self._thread = threading.Thread(target=self._snapshots.write, args=(body, head), name="snapshot")
        self._thread.start()
        return True

    def close(self, state: State, log: EventLog) -> None:
        """The run is over, or stops for now: the next start begins here."""
        if self._thread is not None:
            self._thread.join()
        if not log.pending and log.head.position != self._last:
            self._snapshots.save(state, log.head, memory_of(self._reactors))


# --- the whole of it, for a process in the background -----------------------------------------------------------------


def check_whole(ledger: Path) -> str:
    """What a start does not look at again: the chain from its first event, and the newest snapshot against a full fold. A sentence
    that says what was found; what does not fit raises.
    """
    with LogReader.open(ledger) as log:
        head = chain.check(log.rows())
        compared = wrong_fields(log, Snapshots(ledger, read_only=True))
    if compared is not None and compared[1]:
        raise CheckFailed(f"The snapshot at event {compared[0]} is not what the log gives: {', '.join(compared[1])}.")
    return f"{head.position:,} events, none altered, missing, moved or inserted; {head.hash.hex()}"


def main() -> int:
    try:
        sys.stdout.write(check_whole(Path(sys.argv[1])))
    except LedgerError as error:
        sys.stderr.write(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
