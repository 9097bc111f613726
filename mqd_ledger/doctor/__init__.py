"""`mqd-ledger doctor`: is everything in place that trading needs? Each check looks at one thing, and changes nothing.

To add a check: a function of a `Patient` that returns what it `Found`, in the file that it belongs to, and a row in `CHECKS`. It is
skipped where one that it needs has failed. A `LedgerError` that a check meets is a failure in its own words.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from mqd_ledger.brokers.keys import scrub
from mqd_ledger.doctor import broker, ledger, machine
from mqd_ledger.doctor.base import FAIL, SKIPPED, Finding, Found, Host, Patient
from mqd_ledger.errors import LedgerError

__all__ = ["API_HOSTS", "CHECKS", "FAIL", "Finding", "Host", "Patient", "examine"]

API_HOSTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "paper": ("paper-api.alpaca.markets", "data.alpaca.markets", "stream.data.alpaca.markets"),
        "live": ("api.alpaca.markets", "data.alpaca.markets", "stream.data.alpaca.markets"),
    }
)


class Check(NamedTuple):
    look: Callable[[Patient], Found]
    needs: tuple[str, ...] = ()  # other checks
    broker: str = ""  # only with this one


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "python": Check(machine.python),
        "libraries": Check(machine.libraries),
        "settings": Check(machine.settings),
        "disk space": Check(machine.disk_space),
        "disk speed": Check(machine.disk_speed),
        "calendar": Check(machine.calendar),
        "keys": Check(machine.keys, broker="alpaca"),
        "key file": Check(machine.key_file, ("keys",), "alpaca"),
        "live trading": Check(machine.live_trading, ("settings",), "alpaca"),
        "network": Check(broker.network, broker="alpaca"),
        "account": Check(broker.account, ("keys", "network"), "alpaca"),
        "clock": Check(broker.clock, ("account",), "alpaca"),
        "broker's calendar": Check(broker.calendar, ("account",), "alpaca"),
        "port": Check(machine.port, broker="loopback"),
        "ledger": Check(ledger.readable),
        "books": Check(ledger.books, ("ledger",)),
        "writer": Check(ledger.writer),
        "last event": Check(ledger.last_event, ("ledger",)),
        "chain": Check(ledger.chain_of_the_tail, ("ledger",)),
        "signal file": Check(ledger.kill_signal),
        "requests": Check(ledger.requests),
    }
)


def examine(patient: Patient) -> Iterator[Finding]:
    """Every check, one after another; what one of them missed keeps no other from looking, unless it needs it."""
    failed: set[str] = set()
    for name, check in CHECKS.items():
        if check.broker and check.broker != patient.broker_name:
            yield Finding(name, SKIPPED, f"only for broker {check.broker}", "")
            continue
        missed = [needed for needed in check.needs if needed in failed]
        if missed:
            failed.add(name)
            yield Finding(name, SKIPPED, f"waits for: {', '.join(missed)}", "")
            continue
        verdict, found, advice = _looked(check, patient)
        if verdict == FAIL:
            failed.add(name)
        yield Finding(name, verdict, scrub(found, patient.known_keys), scrub(advice, patient.known_keys))


def _looked(check: Check, patient: Patient) -> Found:
    try:
        return check.look(patient)
    except LedgerError as error:
        return FAIL, " ".join(str(error).split()), ""
    except OSError as error:
        return FAIL, f"{error.filename or 'the system'}: {error.strerror or error}", ""
