"""A file that appears whole or not at all: written under another name beside it, forced to the disk, then renamed."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def temporary_beside(path: Path) -> Path:
    """A name in the same directory (only there a rename is atomic) that no other process or thread uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.new")


@contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """Write to the path that is given; if the block ends well it replaces `path`, otherwise nothing of it stays."""
    temporary = temporary_beside(path)
    try:
        yield temporary
        force_to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    with suppress(OSError):  # Windows opens no directories; there the rename itself is journaled
        _sync_directory(path.parent)


def force_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
