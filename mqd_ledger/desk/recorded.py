"""What stands between a decision and the world: nothing of a turn leaves before the turn is on the disk."""

from threading import Lock
from types import TracebackType
from typing import Self


class Recorded:
    """The desk holds it while it commits; a worker, which has prepared its request meanwhile, waits for it at the socket.

        with Recorded() as recorded:
            ...     # hand out what waits for it
            log.commit()

    Called, it waits, and says whether the commit was done.
    """

    def __init__(self) -> None:
        self._held = Lock()
        self._is_done = False

    def __enter__(self) -> Self:
        self._held.acquire()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._is_done = error_type is None
        self._held.release()

    def __call__(self) -> bool:
        with self._held:
            return self._is_done
