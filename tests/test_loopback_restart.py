"""The loopback server ends and comes back: stopped, killed, restarted; and market time, which its clients share."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests

from mqd_ledger.errors import BadInput
from mqd_ledger.loopback.account import account_specs
from mqd_ledger.loopback.clock import LoopbackClock, MarketClock, later
from mqd_ledger.loopback.faults import Fault, Faults
from mqd_ledger.loopback.server import LoopbackServer
from mqd_ledger.loopback.switches import Switches
from mqd_ledger.values import MICROSECOND
from tests.dsl import MINUTE, OPENING, at
from tests.loopback import KEY, client, events, fetch, flat, history, minutes, opened, order, updates

PRICES = minutes(SPY="100 101 102 103 104 105", QQQ="50 51 52 53 54 55")
ALL = {"status": "all", "limit": 500}


def trade_a_little(server: LoopbackServer) -> None:
    """Something of everything that can become of an order."""
    trading = client(server)
    order(trading, "buy 20 SPY")
    order(trading, "buy $333 QQQ")
    order(trading, "buy 1 SPY limit 50 ioc")
    server.step(2)
    trading.cancel_order_by_id(order(trading, "buy 3 SPY limit 90")["id"])
    resting = order(trading, "buy 2 QQQ limit 40 gtc", client_order_id="first")
    trading.patch(f"/orders/{resting['id']}", {"limit_price": "41", "client_order_id": "second"})
    order(trading, "sell 5 SPY stop 80")
    server.step()


def seen(server: LoopbackServer) -> list[Any]:
    """Everything that a client can read of its account."""
    trading = client(server)
    return [trading.get(path, ALL) for path in ("/orders", "/positions", "/account", "/account/activities/FILL")]


def test_a_server_on_the_same_directory_knows_everything_again(tmp_path: Path) -> None:
    switches = Switches(partial_percent=50)
    with opened(PRICES, directory=tmp_path, switches=switches) as server:
        trade_a_little(server)
        before, now = seen(server), server.clock.now()
        bars = history(server).get("/stocks/bars", {"symbols": "SPY,QQQ", "timeframe": "1Min"})
    with LoopbackServer(PRICES, directory=tmp_path, switches=switches) as server:
        assert server.clock.now() == now
        assert seen(server) == before
        assert history(server).get("/stocks/bars", {"symbols": "SPY,QQQ", "timeframe": "1Min"}) == bars
        trading = client(server)
        with pytest.raises(Exception, match="client_order_id must be unique"):
            order(trading, "buy 1 SPY", client_order_id="first")
        with updates(server) as listening:
            order(trading, "sell 1 SPY", client_order_id="third")
            server.step(3)
            ids = [one["id"] for one in trading.get("/orders", ALL)]
            assert len(ids) == len(set(ids)) == len(before[0]) + 1
            times = [one["submitted_at"] for one in trading.get("/orders", ALL)]
            assert times == sorted(set(times), reverse=True)
            assert events(listening.until(3))[:2] == ["pending_new", "new"]


def test_an_execution_is_called_the_same_after_a_restart_and_never_as_another_one(tmp_path: Path) -> None:
    """What the ledger does not hold, such as a cancel that nothing comes of, moves no later name."""
    faults = Faults([Fault("account", "stuck_cancel")])
    with opened(PRICES, directory=tmp_path, faults=faults) as server:
        trading = client(server)
        trading.cancel_order_by_id(order(trading, "buy 3 SPY limit 90")["id"])
        order(trading, "buy 1 SPY")
        before = [row["id"] for row in trading.get("/account/activities/FILL")]
    with LoopbackServer(PRICES, directory=tmp_path) as server:
        trading = client(server)
        order(trading, "buy 1 QQQ")
        newest, *others = [row["id"] for row in trading.get("/account/activities/FILL")]
        assert others == before
        assert newest.partition("::")[2] not in {name.partition("::")[2] for name in before}


def test_what_rests_over_a_restart_goes_on_resting(tmp_path: Path) -> None:
    with opened(PRICES, directory=tmp_path) as server:
        resting = order(client(server), "buy 2 SPY stop 104")
    with LoopbackServer(PRICES, directory=tmp_path) as server:
        assert client(server).get("/orders")[0]["id"] == resting["id"]
        server.step(6)
        assert client(server).get("/positions/SPY")["qty"] == "2"


@pytest.mark.parametrize("keeps_files", (True, False))
def test_a_restart_comes_back_on_the_same_port_and_drops_who_was_there(tmp_path: Path, keeps_files: bool) -> None:
    with opened(PRICES, directory=tmp_path if keeps_files else None) as server:
        trade_a_little(server)
        before, port = seen(server), server.port
        with updates(server):
            connection = requests.Session()
            connection.trust_env = False
            connection.get(f"{server.rest_url}/loopback/clock", timeout=5)
            server.stop()
            with pytest.raises(requests.ConnectionError):
                connection.get(f"{server.rest_url}/loopback/clock", timeout=5)
            connection.close()
        server.start()
        assert server.port == port
        assert seen(server) == before
        with updates(server) as listening:
            order(client(server), "buy 1 QQQ limit 42")
            listening.until(2)


def test_a_port_that_is_taken_is_said() -> None:
    with opened(PRICES) as server, pytest.raises(BadInput, match=f"cannot listen on 127.0.0.1:{server.port}"):
        LoopbackServer(PRICES, port=server.port).start()


def test_a_server_without_bars_is_refused() -> None:
    with pytest.raises(BadInput, match="no bar to play"):
        LoopbackServer([])


def test_the_seed_decides_every_id_and_every_chance() -> None:
    def told(seed: int) -> list[Any]:
        with opened(PRICES, seed=seed, switches=Switches(partial_percent=50), accounts=account_specs(2)) as server:
            trade_a_little(server)
            return seen(server)

    first = told(1)
    assert told(1) == first
    other = told(2)
    assert {one["id"] for one in first[0]}.isdisjoint({one["id"] for one in other[0]})


# --- a process of its own --------------------------------------------------------------------------------------------------


@contextmanager
def served(directory: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    command = [sys.executable, "-m", "mqd_ledger", "loopback", "--json", "--directory", str(directory), *more]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def post(said: dict[str, str], name: str) -> int:
    session = requests.Session()
    session.trust_env = False
    body = {"symbol": "SYNA", "qty": "1", "side": "buy", "type": "market", "time_in_force": "gtc"}
    with session:
        return session.post(
            f"{said['rest']}/v2/orders",
            json={**body, "client_order_id": name},
            headers={"APCA-API-KEY-ID": said["key"], "APCA-API-SECRET-KEY": said["secret"]},
            timeout=10,
        ).status_code


def test_a_killed_server_has_lost_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    with served(tmp_path) as (process, said):
        assert [post(said, f"order-{number}") for number in range(20)] == [200] * 20
        process.kill()
        process.wait()
    with LoopbackServer(directory=tmp_path) as server:
        names = [one["client_order_id"] for one in client(server).get("/orders", {**ALL, "direction": "asc"})]
        assert names == [f"order-{number}" for number in range(20)]


WAYS_TO_END = ("end of stdin",) if os.name == "nt" else ("SIGTERM", "SIGINT", "end of stdin")


@pytest.mark.parametrize("how", WAYS_TO_END)
def test_a_server_process_ends_when_it_is_told_or_left_alone(tmp_path: Path, how: str) -> None:
    left_alone = ["--until-stdin-ends"] if how == "end of stdin" else []
    with served(tmp_path, *left_alone) as (process, said):
        assert fetch(f"{said['rest']}/loopback/clock")["speed"] == 60
        if left_alone:
            assert process.stdin is not None
            process.stdin.close()
        else:
            os.kill(process.pid, getattr(signal, how))
        assert process.wait(10) == 0


# --- market time -----------------------------------------------------------------------------------------------------------


def test_market_time_jumps_over_nights_weekends_and_afternoons_of_half_days() -> None:
    friday = at("2026-01-09T21:05")
    assert later(friday, timedelta(minutes=4)) == at("2026-01-09T21:09")
    assert later(friday, timedelta(minutes=5)) == at("2026-01-12T14:25")
    assert later(at("2026-01-10T12:00"), timedelta(minutes=1)) == at("2026-01-12T14:26")
    half_day = at("2026-11-27T18:09")
    assert later(half_day, timedelta(minutes=3)) == at("2026-11-30T14:27")
    a_week = 5 * timedelta(hours=6, minutes=45)
    assert later(at("2026-01-05T14:25"), a_week) == at("2026-01-12T14:25")


def test_a_clock_with_a_speed_runs_and_is_not_set() -> None:
    wall = iter([0.0, 1.0, 2.0, 3.5])
    clock = MarketClock(OPENING, 60, monotonic=lambda: next(wall))
    assert [clock.now() for _ in range(3)] == [OPENING + MINUTE, OPENING + 2 * MINUTE, OPENING + 3.5 * MINUTE]
    with pytest.raises(BadInput, match="runs by itself"):
        clock.advance_to(OPENING)
    with pytest.raises(BadInput, match="speed above zero"):
        MarketClock(OPENING, 0)


def test_stamps_are_unique_and_grow_whatever_the_skew() -> None:
    clock = MarketClock(OPENING, None)
    stamps = [clock.stamp() for _ in range(3)]
    clock.skew = timedelta(seconds=2)
    stamps += [clock.stamp() for _ in range(2)]
    clock.skew = timedelta(seconds=-2)
    stamps += [clock.stamp() for _ in range(2)]
    assert all(one < other for one, other in pairwise(stamps))
    assert (stamps[0], stamps[3]) == (OPENING + MICROSECOND, OPENING + timedelta(seconds=2) + MICROSECOND)
    with pytest.raises(BadInput, match="never goes back"):
        clock.advance_to(OPENING - MINUTE)


def test_a_traders_clock_follows_the_servers_and_survives_it() -> None:
    with opened(PRICES) as server:
        clock = LoopbackClock(server.rest_url)
        assert (clock.now(), clock.rate) == (OPENING, 0)
        server.step(3)
        assert clock.now() == OPENING + 3 * MINUTE
        server.stop()
        assert clock.now() == OPENING + 3 * MINUTE
        server.start()
        server.step()
        assert clock.now() == OPENING + 4 * MINUTE


def test_a_traders_clock_computes_between_its_questions_and_never_goes_back() -> None:
    wall = [0.0]
    with LoopbackServer(flat(2), speed=0.001) as server:
        clock = LoopbackClock(server.rest_url, monotonic=lambda: wall[0])
        begin = clock.now()
        assert clock.rate == 0.001
        wall[0] = 0.9
        within = clock.now()
        assert timedelta(0) < within - begin <= timedelta(milliseconds=1)
        wall[0] = 1.0
        assert within <= clock.now() < begin + MINUTE


def test_the_account_of_a_key() -> None:
    with opened(PRICES, accounts=account_specs(2, Decimal(5))) as server:
        assert server.account().spec.key == KEY
        assert server.account("PKLOOPBACK2").spec.account_number == "PA3LOOPBACK2"
