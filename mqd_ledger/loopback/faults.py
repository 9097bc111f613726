"""What goes wrong at the loopback server: a plan of faults, which of them strike when, and a list of those that did.

    request, answered    around every REST request            faults_rest, faults_views
    updates              every trade update on its way out    faults_updates
    socket               every websocket                      faults_sockets
    cancel               every cancel request                 here
    attach               every minute played                  faults_world

All kinds of faults are rows of `faults_table.FAULTS`, which says how to add one. The same plan, seed and occurrences give the same
faults: chances follow from the seed, the fault's place in the plan and the number of the occurrence.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
from aiohttp import web

from mqd_ledger.errors import BadInput
from mqd_ledger.loopback import faults_rest as rest
from mqd_ledger.loopback import faults_table as table
from mqd_ledger.loopback.chance import draw
from mqd_ledger.loopback.faults_sockets import FaultySocket
from mqd_ledger.loopback.faults_table import FAULTS, Fault
from mqd_ledger.loopback.faults_updates import ABOUT, CHANGES, FILLS, Frame, Update, Waiting, facts_of, words_of
from mqd_ledger.loopback.faults_views import VIEWS, Past, closed_early
from mqd_ledger.values import EPOCH

if TYPE_CHECKING:
    from mqd_ledger.loopback.faults_world import World
    from mqd_ledger.loopback.server import LoopbackServer

__all__ = ["FAULTS", "Fault", "Faults", "Happened"]

AFTER_A_FILL = ("bust", "correction")
CANCELS = ("stuck_cancel", "cancel_fills")
MILLION = 1_000_000


class Happened(msgspec.Struct, frozen=True):
    """A fault that struck: when in market time, and what."""

    number: int
    at: datetime
    where: str
    kind: str
    what: str


class Faults:
    def __init__(self, plan: Sequence[Fault] = (), seed: int = 0) -> None:
        self.seed = seed
        self.plan: list[Fault] = []
        self.happened: list[Happened] = []
        self.past = Past()
        self._seen: list[int] = []
        self._struck: list[int] = []
        self._waiting = Waiting()
        self._world: World | None = None
        self.add(plan)

    @classmethod
    def load(cls, path: Path, seed: int = 0) -> Self:
        """A script: a YAML or JSON list of faults."""
        return cls(table.read(path), seed)

    @classmethod
    def seeded(cls, seed: int, intensity: str = "light") -> Self:
        """Everything that a trader has to survive, now and then ("light") or all the time ("heavy")."""
        return cls(table.drawn(seed, intensity), seed)

    def add(self, plan: Sequence[Fault]) -> None:
        """More faults; their occurrences are counted from now on."""
        new = table.checked(plan)
        self.plan += new
        self._seen += [0] * len(new)
        self._struck += [0] * len(new)

    def attach(self, server: "LoopbackServer") -> None:
        """At each start of the server."""
        from mqd_ledger.loopback.faults_world import World

        if self._world is None or self._world.server is not server:
            self._world = World(server, self)
        self._world.attach()

    @property
    def now(self) -> datetime:
        return EPOCH if self._world is None else self._world.now()

    # --- which strike

    def strikes(self, where: str, kinds: Container[str], facts: Mapping[str, str], what: str) -> Iterator[Fault]:
        """The faults that strike at this occurrence, in the order of the plan. Who takes only the first leaves the occurrence
        uncounted for the others.
        """
        for number in self._due(where, kinds, facts):
            self.note(self.plan[number], what)
            yield self.plan[number]

    def _due(self, where: str, kinds: Container[str], facts: Mapping[str, str]) -> Iterator[int]:
        for number, fault in enumerate(self.plan):
            if fault.where == where and fault.kind in kinds and _matches(fault, facts) and self._is_due(number, fault):
                self._struck[number] += 1
                yield number

    def note(self, fault: Fault, what: str) -> None:
        self.happened.append(Happened(len(self.happened) + 1, self.now, fault.where, fault.kind, what))

    def _is_due(self, number: int, fault: Fault) -> bool:
        self._seen[number] += 1
        seen = self._seen[number]
        if seen < (fault.at or 1):
            return False
        if fault.probability is None:
            return self._struck[number] < (fault.times or 1)
        if fault.times is not None and self._struck[number] >= fault.times:
            return False
        return draw(MILLION, self.seed, number, fault.where, fault.kind, seen) < fault.probability * MILLION

    # --- REST

    async def request(self, request: web.Request) -> web.StreamResponse | None:
        """Before anything is done: an answer that takes the handler's place, or None."""
        if not self.plan or not rest.is_rest(request):
            return None
        for fault in self.strikes("rest", rest.BEFORE, rest.facts_of(request), _words(request)):
            if (response := await rest.BEFORE[fault.kind](request, fault, self.now)) is not None:
                return response
        return None

    async def answered(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        """After it was done: what goes out."""
        if not self.plan or not rest.is_rest(request):
            return response
        facts = rest.facts_of(request)
        kinds = {kind for kind, view in VIEWS.items() if view.is_about(request)}
        for fault in self.strikes("account", kinds, facts, _words(request)) if kinds else ():
            response = VIEWS[fault.kind].change(self.past, request, response, fault, self.now)
        response = self.past.without_missing(request, response)
        if self._world is not None and self._world.closed_early_at is not None:
            response = closed_early(request, response, self._world.closed_early_at)
        for fault in self.strikes("rest", rest.AFTER, facts, _words(request)):
            return await rest.AFTER[fault.kind](request, response, fault)
        return response

    # --- streams

    def updates(self, update: Update, key: str = "") -> list[Frame]:
        """What goes out for one trade update of the account with that key: (seconds to wait, `data` of the frame)."""
        self.past.learn(update, key, self.now)
        self._waiting.remember(update)
        frames: list[Frame] = [(0.0, update)]
        if self.plan:
            facts = facts_of(update, key)
            event = facts["event"]
            kinds = {kind for kind in CHANGES if event in ABOUT.get(kind, (event,))}
            for fault in self.strikes("update", kinds, facts, words_of(update)):
                frames = list(CHANGES[fault.kind](fault, update, key, self._waiting))
                break
            if event in FILLS and self._world is not None:
                for fault in self.strikes("account", AFTER_A_FILL, facts, words_of(update)):
                    self._world.after_fill(fault, update, key)
        return frames + self._waiting.released_by(update, key)

    def socket(self, where: str, /, **options: Any) -> FaultySocket:
        """The "trade_socket" or "data_socket" for a new connection; raises the HTTP error that refuses the upgrade."""
        socket = FaultySocket(where, self, **options)
        socket.refuse()
        return socket

    def socket_fault(self, where: str, kinds: Mapping[str, Any], what: str) -> Fault | None:
        return next(self.strikes(where, kinds, {}, what), None) if self.plan else None

    # --- the account and the world

    def cancel(self, order: Mapping[str, Any], key: str = "") -> Fault | None:
        """What becomes of a cancel that the broker takes with 204: "stuck_cancel", "cancel_fills", or as it should be."""
        if not self.plan:
            return None
        facts = {name: str(order.get(name) or "") for name in ("symbol", "status", "client_order_id")}
        what = f"cancel of {facts['symbol']} {facts['client_order_id']}"
        return next(self.strikes("account", CANCELS, {**facts, "key": key}, what), None)

    def minute(self, world: "World", at: datetime) -> None:
        """A minute was played."""
        from mqd_ledger.loopback.faults_world import HAPPENINGS

        facts = {"time": at.strftime("%Y-%m-%dT%H:%M:%SZ")}
        for where in ("market", "account", "server"):
            for number in self._due(where, {kind for place, kind in HAPPENINGS if place == where}, facts):
                try:
                    what = HAPPENINGS[where, self.plan[number].kind](world, self.plan[number])
                except BadInput as problem:
                    what = f"not done: {problem}"
                if what:
                    self.note(self.plan[number], what)
                else:
                    self._struck[number] -= 1


def _matches(fault: Fault, facts: Mapping[str, str]) -> bool:
    return all(fnmatchcase(facts.get(name, ""), pattern) for name, pattern in fault.match.items())


def _words(request: web.Request) -> str:
    return f"{request.method} {request.path_qs}"
