"""The way to the broker, its account, its clock and its calendar."""

import socket
import ssl

from mqd_ledger.brokers.keys import check_account
from mqd_ledger.doctor.base import FAIL, OK, WARN, Found, Host, Patient
from mqd_ledger.doctor.ledger import last
from mqd_ledger.events import AccountAttached
from mqd_ledger.sessions import next_session, session_at
from mqd_ledger.values import iso

SKEW_WARN, SKEW_MAX = 1.0, 5.0  # seconds between the broker's clock and ours
TIMEOUT = 5.0  # seconds for one connection


def network(patient: Patient) -> Found:
    """TCP and TLS to every host, without a key."""
    failed = [f"{host.name}: {problem}" for host in patient.hosts if (problem := _unreachable(host))]
    if failed:
        return FAIL, "; ".join(failed), "Look at the connection, the name server, and a firewall or proxy in between."
    return OK, f"{', '.join(host.name for host in patient.hosts)} can be reached", ""


def _unreachable(host: Host) -> str:
    """Why not; empty if it can be reached."""
    try:
        with socket.create_connection((host.name, host.port), TIMEOUT) as plain:
            if host.is_encrypted:
                with ssl.create_default_context().wrap_socket(plain, server_hostname=host.name):
                    pass
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not trusted ({error.verify_message})"
    except socket.gaierror:
        return "its name is not known"
    except TimeoutError:
        return f"no answer within {TIMEOUT:g} s"
    except OSError as error:
        return str(error.strerror or error)
    return ""


def account(patient: Patient) -> Found:
    found = patient.broker.account()
    check_account(patient.environment, found.account_number)
    if found.is_blocked:
        why = found.blocked_because or "the broker does not say why"
        return FAIL, f"{found.account_number} is blocked: {why}", "Ask the broker; it takes no orders."
    attached = last(patient.ledger, AccountAttached)
    if attached is not None and attached.account_number != found.account_number:
        text = f"{found.account_number}, but {patient.ledger} keeps the books of {attached.account_number}"
        return FAIL, text, "Use that account's keys, or another --ledger."
    return OK, f"{found.account_number}, equity {found.equity:,.2f}, buying power {found.buying_power:,.2f}", ""


def clock(patient: Patient) -> Found:
    """Our clock against the broker's; an answer is as old as half of the time that it took."""
    before = patient.clock()
    theirs = patient.broker.clock().now
    took = patient.clock() - before
    ahead = (theirs - before - took / 2).total_seconds()
    way = "behind" if ahead > 0 else "ahead of"
    text = f"this machine is {abs(ahead):.1f} s {way} the broker, give or take {took.total_seconds() / 2:.1f} s"
    certain = abs(ahead) - took.total_seconds() / 2
    if certain > SKEW_MAX:
        return FAIL, text, "Set the clock by a time server: fresh prices look old, and old ones fresh."
    return (WARN, text, "Set the clock by a time server.") if certain > SKEW_WARN else (OK, text, "")


def calendar(patient: Patient) -> Found:
    """The next session as the broker has it against our table."""
    theirs = patient.broker.clock()
    now = session_at(theirs.now)
    coming = next_session(theirs.now)
    ours = (now is not None, coming.open_at, (now or coming).close_at)
    if ours == (theirs.is_open, theirs.next_open_at, theirs.next_close_at):
        return OK, f"agrees: the market opens {iso(coming.open_at)}", ""
    (their_text, our_text) = (
        f"{'open' if is_open else 'closed'}, opens {iso(opens_at)}, closes {iso(closes_at)}"
        for is_open, opens_at, closes_at in ((theirs.is_open, theirs.next_open_at, theirs.next_close_at), ours)
    )
    return (
        FAIL,
        f"the broker: {their_text}; here: {our_text}",
        "Correct the tables in mqd_ledger/sessions.py before you trade.",
    )
