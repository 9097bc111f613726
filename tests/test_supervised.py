"""Streams are watched from outside: whatever becomes of the socket, somebody is told, and there is soon another one.

The real client of alpaca-py over real sockets, against a server that goes wrong on purpose.
"""

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any

import pytest
from msgspec import structs

from mqd_ledger.brokers.alpaca_stream import TradeUpdates
from mqd_ledger.brokers.keys import Keys
from mqd_ledger.errors import BadInput
from mqd_ledger.feeds.alpaca import AlpacaFeed
from mqd_ledger.feeds.connection import Timing
from mqd_ledger.feeds.sample import sample_bars
from mqd_ledger.feeds.supervised import Item, Supervised
from mqd_ledger.loopback.faults import Fault, Faults
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.values import Side
from tests.dsl import D

NOW = datetime(2026, 1, 5, 14, 31, tzinfo=UTC)
PATIENCE = 10.0
QUICK = Timing(
    open_within=5,
    silent_after=0.3,
    ping_every=0.1,
    pong_within=0.2,
    backoff_min=0.02,
    backoff_max=0.1,
    limit_wait=0.05,
    close_within=0.5,
    end_within=5,
)


def wait_until(what: Callable[[], object], words: str) -> None:
    deadline = monotonic() + PATIENCE
    while not what():
        assert monotonic() < deadline, words
        sleep(0.005)


class Inbox:
    """What was told, in its order."""

    def __init__(self, size: int = 0) -> None:
        self.queue: queue.Queue[Item] = queue.Queue(size)
        self.items: list[Item] = []

    def of(self, kind: str) -> list[Any]:
        while not self.queue.empty():
            self.items.append(self.queue.get())
        return [item for item in self.items if item[0] == kind]

    def wait_for(self, kind: str, number: int = 1) -> Any:
        wait_until(lambda: len(self.of(kind)) >= number, f"no {kind} number {number} among {self.items}")
        return self.of(kind)[number - 1]

    @property
    def kinds(self) -> list[str]:
        self.of("")
        return [item[0] for item in self.items]


class World:
    """A server with faults, and streams on it."""

    def __init__(self, stack: ExitStack, *plan: Fault) -> None:
        self._stack = stack
        self.server = stack.enter_context(LoopbackServer(sample_bars(sessions=1), speed=None, faults=Faults(plan)))
        spec = self.server.specs[0]
        self.keys = Keys(spec.key, spec.secret, "loopback")
        self.inbox = Inbox()

    def feed(self, inbox: Inbox | None = None, **changes: Any) -> Supervised:
        arguments: dict[str, Any] = {
            "expects": lambda: False,
            "timing": QUICK,
            "clock": lambda: NOW,
            "keys": self.keys,
            "url": self.server.data_url,
        } | changes
        put = (inbox or self.inbox).queue.put_nowait
        feed = AlpacaFeed(symbols=["SYNA"], sink=put, **arguments)
        return self._started(feed.stream)

    def updates(self, timing: Timing = QUICK, keys: Keys | None = None) -> Supervised:
        put = self.inbox.queue.put_nowait
        updates = TradeUpdates(keys or self.keys, self.server.stream_url, put, lambda: NOW, timing=timing)
        return self._started(updates.stream)

    def _started(self, stream: Supervised) -> Supervised:
        self._stack.callback(stream.stop)
        return stream.start()

    def buy(self) -> None:
        """In the session, so that it is filled at once."""
        self.server.play_until(NOW)
        self.server.by_hand(self.keys.key_id, "SYNA", Side.BUY, D("1"))

    @property
    def connected(self) -> int:
        return len(self.server.streams._places)


@pytest.fixture
def make() -> Iterator[Callable[..., World]]:
    with ExitStack() as stack:
        yield lambda *plan: World(stack, *plan)


def data(kind: str, **params: Any) -> Fault:
    """A fault of the data socket at its first bar; the three frames before it are the greeting and two acknowledgements."""
    return Fault("data_socket", kind, at=4, params=params)


def test_bars_come_and_after_stop_nothing_is_left(make: Callable[..., World]) -> None:
    world = make()
    stream = world.feed()
    world.inbox.wait_for("up")
    world.server.step(6)
    kind, name, raw, at = world.inbox.wait_for("frame")
    assert (kind, name, raw["S"], at) == ("frame", "bars", "SYNA", NOW)
    wait_until(lambda: stream.is_up, "it is not up")
    with pytest.raises(BadInput, match="runs already"):
        stream.start()
    assert stream.stop()
    assert not stream.is_up
    assert not [thread for thread in threading.enumerate() if "bars" in thread.name]
    wait_until(lambda: world.connected == 0, "the server still has the connection")
    assert world.inbox.kinds == ["up", "frame"], "an end that was asked for is no news"
    assert stream.start() is stream
    world.inbox.wait_for("up", 2)


def test_trade_updates_come_as_they_are_also_when_they_are_empty(make: Callable[..., World]) -> None:
    world = make(Fault("update", "null", match={"event": "new"}))
    stream = world.updates()
    world.inbox.wait_for("up")
    world.buy()
    frames = [world.inbox.wait_for("frame", number)[2] for number in (1, 2, 3)]
    assert [frame and frame["event"] for frame in frames] == ["pending_new", None, "fill"]
    wait_until(lambda: stream.latency, "no pong was heard")


def test_a_quiet_stream_of_which_nothing_is_due_is_left_alone(make: Callable[..., World]) -> None:
    world = make()
    stream = world.updates(structs.replace(QUICK, silent_after=0.02))
    world.inbox.wait_for("up")
    wait_until(lambda: stream.latency, "no pong was heard")
    assert (stream.connections, world.inbox.kinds) == (1, ["up"])


BROKEN = {
    "closed by the server": (data("dropped", code=1011), "1011"),
    "dropped without a word": (data("dropped", code=1006), "no close frame"),
    "connected but mute": (data("silent"), "nothing came for 0.3 s although something was due"),
    "half open": (data("half_open"), "keepalive ping timeout"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_stream_of_bars_is_made_anew(make: Callable[..., World], case: str) -> None:
    fault, words = BROKEN[case]
    world = make(fault)
    due = threading.Event()
    stream = world.feed(expects=due.is_set)
    world.inbox.wait_for("up")
    if case == "connected but mute":
        due.set()
    world.server.step(6)
    assert words in world.inbox.wait_for("down")[2]
    due.clear()
    world.inbox.wait_for("up", 2)
    world.server.step()
    assert world.inbox.wait_for("frame")[2]["S"] == "SYNA"
    assert stream.left_behind == 0


def test_a_half_open_stream_of_trade_updates_is_noticed_by_its_pings(make: Callable[..., World]) -> None:
    world = make(Fault("trade_socket", "half_open", at=3))
    world.updates()
    world.inbox.wait_for("up")
    world.buy()
    assert "keepalive ping timeout" in world.inbox.wait_for("down")[2]
    world.inbox.wait_for("up", 2)


@pytest.mark.parametrize("where", ("trade_socket", "data_socket"))
def test_a_server_that_never_answers_the_keys_is_not_waited_for(make: Callable[..., World], where: str) -> None:
    world = make(Fault(where, "no_auth_answer"))
    timing = structs.replace(QUICK, open_within=1)
    stream = world.updates(timing) if where == "trade_socket" else world.feed(timing=timing)
    assert "was not ready 1 s after connecting" in world.inbox.wait_for("down")[2]
    world.inbox.wait_for("up")
    assert stream.connections >= 2
    assert stream.left_behind == 0


def test_a_server_that_takes_a_connection_and_says_nothing_is_not_waited_for(make: Callable[..., World]) -> None:
    world = make()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"ws://127.0.0.1:{mute.getsockname()[1]}/v2/iex"
        stream = world.feed(url=url, timing=structs.replace(QUICK, open_within=0.3))
        world.inbox.wait_for("down")
        wait_until(lambda: stream.connections >= 2, "it gave up")
        assert stream.stop()


@pytest.mark.parametrize("where", ("trade_socket", "data_socket"))
def test_a_place_that_is_taken_is_waited_for_and_told_once(make: Callable[..., World], where: str) -> None:
    world = make(Fault(where, "refused", times=3))
    stream = world.updates() if where == "trade_socket" else world.feed()
    world.inbox.wait_for("up")
    assert stream.connections == 4
    assert world.inbox.kinds == ["down", "up"]
    assert "another connection holds this account's only place" in world.inbox.wait_for("down")[2]


def test_of_two_feeds_of_one_account_the_second_waits_until_the_first_is_gone(make: Callable[..., World]) -> None:
    world = make()
    first, second = Inbox(), Inbox()
    stream = world.feed(first)
    first.wait_for("up")
    world.feed(second)
    assert "connection limit exceeded" in second.wait_for("down")[2]
    assert first.kinds == ["up"]
    stream.stop()
    second.wait_for("up")


@pytest.mark.parametrize("where", ("trade_socket", "data_socket"))
def test_keys_that_are_refused_are_told_once_and_never_shown(make: Callable[..., World], where: str) -> None:
    world = make()
    keys = Keys(world.keys.key_id, "not-the-secret", "loopback")
    stream = world.updates(keys=keys) if where == "trade_socket" else world.feed(keys=keys)
    wait_until(lambda: stream.connections >= 3, "it gave up")
    reason = world.inbox.wait_for("down")[2]
    assert reason.startswith("the keys were refused (")
    assert keys.secret not in reason
    assert world.inbox.kinds == ["down"]


def test_a_server_that_comes_back_is_found_again(make: Callable[..., World]) -> None:
    world = make()
    world.feed()
    world.updates()
    world.inbox.wait_for("up", 2)
    world.server.restart()
    world.inbox.wait_for("down", 2)
    world.inbox.wait_for("up", 4)
    world.buy()
    names: set[str] = set()
    for number in range(1, 10):  # an order's updates are several, and may all come before the bar
        names.add(world.inbox.wait_for("frame", number)[1])
        if len(names) == 2:
            break
    assert names == {"bars", "trade_updates"}


def test_a_message_that_cannot_be_read_means_that_something_was_missed(make: Callable[..., World]) -> None:
    world = make()
    world.feed()
    world.inbox.wait_for("up")
    (connection,) = world.server.streams._data_connections()
    world.server.call(lambda: connection.queue.put_nowait(b"\xc1"))
    assert "the connection failed" in world.inbox.wait_for("down")[2]
    world.inbox.wait_for("up", 2)


def test_a_complaint_in_the_middle_ends_the_connection(make: Callable[..., World]) -> None:
    world = make()
    world.feed()
    world.inbox.wait_for("up")
    (connection,) = world.server.streams._data_connections()
    world.server.call(lambda: connection._error(405, "symbol limit exceeded"))
    assert "data plan does not include" in world.inbox.wait_for("down")[2]
    world.inbox.wait_for("up", 2)


def test_a_full_queue_blocks_nothing_and_what_was_lost_is_told_as_a_break(make: Callable[..., World]) -> None:
    world = make()
    small = Inbox(3)
    stream = world.feed(small)
    wait_until(lambda: small.queue.qsize() == 1, "it is not up")
    world.server.step(11)
    wait_until(lambda: stream.lost == 4, "of six bars four find no room")
    assert small.wait_for("down") == ("down", "bars", "4 frames were lost so far because they were not taken in time")
    small.wait_for("up", 2)
    world.server.step()
    small.wait_for("frame", 3)
    assert small.kinds == ["up", "frame", "frame", "down", "up", "frame"]
    assert stream.connections == 1


def test_a_thread_that_does_not_end_is_left_behind_and_heard_no_more(make: Callable[..., World]) -> None:
    """Its clock hangs, as one does that asks over a dead network."""
    world = make()
    hangs, goes_on = threading.Event(), threading.Event()

    def clock() -> datetime:
        if not hangs.is_set():
            hangs.set()
            goes_on.wait(PATIENCE)
        return NOW

    timing = structs.replace(QUICK, end_within=0.1, left_behind_max=1, backoff_max=0.05)
    stream = world.feed(clock=clock, expects=hangs.is_set, timing=timing)
    world.inbox.wait_for("up")
    world.server.step(6)
    assert "nothing came" in world.inbox.wait_for("down")[2]
    assert "1 of its threads do not end" in world.inbox.wait_for("down", 2)[2]
    assert (stream.left_behind, stream.connections) == (1, 1)
    goes_on.set()
    world.inbox.wait_for("up", 2)
    assert (stream.left_behind, world.inbox.of("frame")) == (0, [])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watch_that_fails_is_told(make: Callable[..., World]) -> None:
    """Whether a bar is due follows from the calendar, which ends one day."""

    def due() -> bool:
        raise BadInput("the calendar ends")

    world = make()
    world.feed(expects=due)
    world.inbox.wait_for("up")
    assert (
        "it is watched no more, start the program again: BadInput: the calendar ends" in world.inbox.wait_for("down")[2]
    )
    wait_until(lambda: world.connected == 0, "the server still has the connection")
