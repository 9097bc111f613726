"""What two comparisons of the books have both seen: only a disagreement that lasts is one.

A suspicion is about something (`kind`, `subject`) and says what was seen; seen otherwise, it begins anew.
"""

from datetime import datetime, timedelta

from mqd_ledger.values import EPOCH

About = tuple[str, str]


class Suspicions:
    def __init__(self) -> None:
        self._known: dict[About, tuple[object, datetime]] = {}
        self._seen: dict[About, tuple[object, datetime]] = {}
        self._asked_at, self._settle = EPOCH, timedelta()
        self.young: set[About] = set()  # what the comparison under way, or the last one, could not judge yet

    def begin(self, asked_at: datetime, settle: int) -> None:
        """Another look at the broker's books, asked for at that time."""
        self._asked_at, self._settle = asked_at, timedelta(seconds=settle)
        self._seen, self.young = {}, set()

    def lasts(self, kind: str, subject: str, what: object) -> bool:
        """Whether the same was seen long enough ago, and in every look since."""
        before, since = self._known.get((kind, subject), (None, EPOCH))
        if before != what:
            since = self._asked_at
        self._seen[kind, subject] = what, since
        if self._asked_at - since >= self._settle:
            return True
        self.young.add((kind, subject))
        return False

    def doubt(self, kind: str, subject: str) -> None:
        """Something that this look cannot judge, whatever was seen before."""
        self.young.add((kind, subject))

    def since(self, kind: str, subject: str) -> datetime:
        return self._seen[kind, subject][1]

    def end(self) -> None:
        """What was not seen again is forgotten."""
        self._known = self._seen
