"""A log that is sealed and written in a process of its own, so that a long backtest need not wait for its disk and its hashes.

The engine's process makes the entries and sends them down a pipe; the other process links and writes them exactly as `EventLog`
would (it uses the same `Sealer`), batch by batch. Only for runs of which nothing leaves the process: a commit here means *sent*,
and what is written is known when `head` answers or `close` returns. If the engine's process dies, the writer ends after the last
batch that reached it whole: a shorter log, never a torn one. If the writer fails, the next commit says why.

It takes a moment to start; until it says that it is ready, batches are written by `EventLog` itself, so a short run never waits.
"""

import os
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

from mqd_ledger.chain import Head
from mqd_ledger.errors import LedgerError, LedgerUnreadable
from mqd_ledger.log import EventLog
from mqd_ledger.sealer import Entry, Sealer
from mqd_ledger.store import open_ledger

STARTED_AFTER = 4_000  # events: a run that has as many may have many more
BATCHES_AHEAD = 16  # sent and not yet taken: bounds the memory of a disk that is slower than the engine
_LENGTH = struct.Struct("<Q")
_READY = b"ready"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Entry] | None).decode


class PipedLog(EventLog):
    """`EventLog` for backtests: the same log to the byte, sooner."""

    _writer: "_Writer | None" = None
    _handed_over = False  # from then on this process does not touch the file

    def commit(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        if self._handed_over:
            self._send_entries()
            meanwhile()
            return
        super().commit(meanwhile)
        if self._writer is None:
            if self.path is not None and self._committed >= STARTED_AFTER and (os.cpu_count() or 1) > 1:
                self._writer = _Writer(self.path)
        elif self._writer.ready.is_set():
            self.recorder.close()
            self._handed_over = True

    def _send_entries(self) -> None:
        assert self._writer is not None
        if self._recorded:
            self._writer.send(self._entries())
            self._committed = self._next - 1

    @property
    def head(self) -> Head:
        """The last event; asking waits until all that was sent is written."""
        if not self._handed_over:
            return super().head
        self._send_entries()
        assert self._writer is not None
        return self._writer.head()

    def close(self) -> None:
        try:
            if self._writer is not None:
                self._writer.end()
        finally:
            super().close()


class _Writer:
    """The other process, and the thread that keeps its pipe full."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self.ready = threading.Event()
        self._broken = threading.Event()
        self._batches: queue.Queue[bytes | None] = queue.Queue(BATCHES_AHEAD)
        package = str(Path(__file__).resolve().parent.parent)
        search = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(  # noqa: S603  our own module, in our own interpreter
            [sys.executable, "-m", "mqd_ledger.pipeline", str(ledger.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search},
        )
        self._feeder = threading.Thread(target=self._feed, name="log writer", daemon=True)
        self._feeder.start()

    def _feed(self) -> None:
        """In a thread of its own; after a failure it goes on taking batches, so that nobody waits for room for ever."""
        entries, answers = self._process.stdin, self._process.stdout
        assert entries is not None
        assert answers is not None
        if answers.read(len(_READY)) == _READY:
            self.ready.set()
        while (batch := self._batches.get()) is not None:
            if self._broken.is_set():
                continue
            try:
                entries.write(_LENGTH.pack(len(batch)) + batch)
                entries.flush()
            except OSError:
                self._broken.set()

    def send(self, entries: list[Entry] | None) -> None:
        if self._broken.is_set():
            raise self._failure()
        self._batches.put(_encode(entries))

    def head(self) -> Head:
        self.send(None)
        assert self._process.stdout is not None
        answer = _receive(self._process.stdout)
        if answer is None:
            raise self._failure()
        return msgspec.msgpack.decode(answer, type=Head)

    def _failure(self) -> LedgerError:
        assert self._process.stderr is not None
        said = self._process.stderr.read().decode(errors="replace").strip()
        return LedgerUnreadable(
            said
            or f"The process that writes {self._ledger} ended with code {self._process.wait()}; what it wrote is whole."
        )

    def end(self) -> None:
        """Send what is left, close the pipe (its sign to end) and wait for it."""
        self._batches.put(None)
        if not self.ready.is_set():
            self._process.kill()  # it has been given nothing
        self._feeder.join()
        with suppress(OSError), self._process:
            """Leaving the block closes the pipes and waits."""


def _receive(pipe: IO[bytes]) -> bytes | None:
    """One frame, or None where the other side has ended, also in the middle of one."""
    length = pipe.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(length)
    data = pipe.read(size)
    return data if len(data) == size else None


def write_from(entries: IO[bytes], answers: IO[bytes], ledger: Path) -> None:
    """The writer's side: seal and write batches until they end; None among them asks for the head."""
    answers.write(_READY)
    answers.flush()
    if (data := _receive(entries)) is None:
        return
    recorder = open_ledger(ledger, "write", "normal")
    try:
        sealer = Sealer(recorder)
        while data is not None:
            batch = _decode(data)
            if batch is None:
                answer = _encode(sealer.head)
                answers.write(_LENGTH.pack(len(answer)) + answer)
                answers.flush()
            else:
                sealer.seal(batch)
                sealer.write()
            data = _receive(entries)
    finally:
        recorder.close()


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches both processes; the engine's decides what it means
    try:
        write_from(sys.stdin.buffer, sys.stdout.buffer, Path(sys.argv[1]))
    except LedgerError as error:
        sys.stderr.write(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
