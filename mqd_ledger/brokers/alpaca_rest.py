"""Requests to Alpaca through its own client, with what that client leaves out: time-outs, a budget, exact numbers, clear outcomes.

A request ends in one of four ways: an answer; `Refused`, Alpaca's verdict that it was not done; `Unauthorized`, the keys are no
good; `Ambiguous`, nobody knows whether it was done. Reads are repeated where that helps. Everything that changes something is sent
once: the client's own repetition, which would send an order twice, is switched off.

`requests` is taken from the client that alpaca-py makes. Each thread has a client of its own, since a session is not for sharing;
the budget is one for all, since Alpaca counts by account.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from ipaddress import ip_address
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from mqd_ledger.brokers.alpaca_budget import Budget, Urgency, seconds_of
from mqd_ledger.brokers.keys import Keys, scrub
from mqd_ledger.errors import BadInput, BrokenPromise, LedgerError

if TYPE_CHECKING:
    from requests import RequestException, Response

    from mqd_ledger.brokers.alpaca_wire import Wire

ATTEMPTS = 4  # of a read
TRIED_FOR = 45.0  # seconds; no read is begun again after that
AGAIN_AFTER, JITTER = (
    0.1,
    0.1,
)  # seconds before the second attempt, doubled for each further one; and up to so much more
OPEN_WITHIN = 1.0  # seconds for a request that nobody waits for
SHOWN_MAX = 300  # characters of Alpaca's words in a message
__all__ = ["AlpacaRest", "Ambiguous", "BrokerFailure", "Budget", "Refused", "Unauthorized", "Urgency"]
JSON = msgspec.json.Decoder(float_hook=Decimal)
ENCODE = msgspec.json.Encoder().encode
# Each repetition of a read is told to this logger; without a handler Python would print it between the lines of a user's output.
logging.getLogger("stamina").addHandler(logging.NullHandler())


class BrokerFailure(LedgerError):
    """A request that was not answered with what was asked for."""


class Refused(BrokerFailure):
    """Alpaca's verdict: it was understood and not done. `code` is 0 where none was given; it never tells the reason alone."""

    def __init__(self, status: int, code: int, message: str, body: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.status, self.code, self.message, self.body = status, code, message, body
        super().__init__(f"Alpaca refused the request: {message} (HTTP {status}{f', code {code}' if code else ''}).")


class Unauthorized(BrokerFailure):
    """The keys are wrong, were withdrawn, or are those of another environment."""


class Ambiguous(BrokerFailure):
    """Nobody knows whether it was done. `retry_after` are seconds that Alpaca asks to wait."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        self.reason, self.retry_after = reason, retry_after
        super().__init__(f"Alpaca gave no usable answer ({reason}); it is asked again.")


class AlpacaRest:
    def __init__(
        self,
        keys: Keys,
        url: str | None,
        environment: str,
        *,
        budget: Budget,
        timeout: tuple[float, float] = (3.05, 10.0),
    ) -> None:
        """`url` is for a loopback server; without one the environment decides. `timeout` is for connecting and for the answer."""
        if is_loopback(url or "") != (environment == "loopback") or bool(url) != (environment == "loopback"):
            raise BadInput(
                f'The environment {environment!r} does not fit the address {url or "of Alpaca"}: "loopback" goes with an address '
                "on this machine, every other with none."
            )
        self.keys, self.url, self.environment, self.budget = keys, url, environment, budget
        self._timeout = timeout
        self._of_thread = threading.local()
        self._wires: list[Wire] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"AlpacaRest({self.environment}, {self.url or 'Alpaca'}, {self.keys!r})"

    def close(self) -> None:
        """Close the connections of all threads; a request that is made afterwards opens a new one."""
        with self._lock:
            for wire in self._wires:
                wire.close()

    def hang_up_late(self) -> None:
        """End what has been under way for too long; whoever waits for it hears that the connection was dropped."""
        now = monotonic()
        for wire in list(self._wires):
            wire.transport.hang_up_if_late(now)

    @contextmanager
    def held_back(self, is_recorded: Callable[[], bool]) -> Iterator[None]:
        """What this thread asks for is prepared at once; its first byte leaves when `is_recorded`, which may wait, is true.
        Where it is false nothing leaves.
        """
        self._of_thread.is_recorded = is_recorded
        try:
            yield
        finally:
            self._of_thread.is_recorded = None

    def _may_leave(self) -> None:
        """Called by each connection before it writes."""
        is_recorded = getattr(self._of_thread, "is_recorded", None)
        if is_recorded is not None and not is_recorded():
            raise Ambiguous("it was not recorded, so it was not sent")

    # --- reads

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The answer's JSON; repeated on anything but a verdict."""
        import stamina

        for attempt in stamina.retry_context(
            on=_again, attempts=ATTEMPTS, timeout=TRIED_FOR, wait_initial=AGAIN_AFTER, wait_jitter=JITTER
        ):
            with attempt:
                return self._once("GET", path, dict(params or {}), Urgency.READ)
        raise BrokenPromise("A read that failed was neither repeated nor told; the retries of stamina have changed.")

    def keep_open(self) -> None:
        """Use this thread's connection once, if a request can be spared: an order that follows need not wait for handshakes, and
        not long for an answer that does not come.
        """
        if not self.budget.wait(Urgency.READ):
            with self._wire().within(OPEN_WITHIN), suppress(BrokerFailure):  # whoever needs an answer asks for one
                self._once("GET", "/clock", {}, Urgency.READ)

    # --- changes, sent once

    def post(self, path: str, body: Mapping[str, Any], urgency: Urgency = Urgency.ENTRY) -> Any:
        return self._once("POST", path, dict(body), urgency)

    def patch(self, path: str, body: Mapping[str, Any], urgency: Urgency = Urgency.ENTRY) -> Any:
        return self._once("PATCH", path, dict(body), urgency)

    def delete(self, path: str, params: Mapping[str, Any] | None = None, urgency: Urgency = Urgency.EXIT) -> Any:
        return self._once("DELETE", path, dict(params or {}), urgency)

    # --- one request

    def _once(self, method: str, path: str, data: dict[str, Any], urgency: Urgency) -> Any:
        from alpaca.common.exceptions import APIError
        from requests import RequestException

        if not self.budget.take(urgency):
            raise Ambiguous("it was not sent, because too many requests were made within a minute")
        wire = self._wire()
        client = wire.client
        verbs: dict[str, Callable[..., Any]] = {
            "GET": client.get,
            "POST": wire.post,
            "PATCH": client.patch,
            "DELETE": client.delete,
        }
        wire.transport.answers.clear()
        try:
            with suppress(APIError):  # it fails on a body that is no JSON: the answer itself is read below
                verbs[method](path, data)
        except RequestException as failure:
            if not wire.transport.answers:  # else the client failed on a whole answer, which is read below
                raise Ambiguous(f"{method} {path}: {_words(failure)}") from None
        return self._read(f"{method} {path}", wire.transport.answers[-1])

    def _read(self, request: str, response: "Response") -> Any:
        status = response.status_code
        self.budget.heard(status, response.headers)
        try:
            body = JSON.decode(response.content) if response.content else None
            is_json = True
        except (msgspec.DecodeError, UnicodeDecodeError):
            body, is_json = None, False
        if 200 <= status < 300 and is_json:
            return body
        code, message = _verdict(body)
        if status == 401 or (status == 403 and isinstance(body, dict) and not code):
            raise Unauthorized(
                f"Alpaca does not take the keys {self.keys.shown} for {self.environment}: {self._shown(message) or status}. "
                "Check that both halves are of one pair, that it was not withdrawn, and that it is for this environment."
            )
        if 400 <= status < 500 and status not in (408, 429) and isinstance(body, dict):
            raise Refused(status, code, self._shown(message), body)
        words = self._shown(message) if is_json else "with a body that is no JSON"
        raise Ambiguous(f"{request}: HTTP {status} {words}".rstrip(), seconds_of(response.headers))

    def _shown(self, message: str) -> str:
        return scrub(message[:SHOWN_MAX], self.keys)

    def _wire(self) -> "Wire":
        wire: Wire | None = getattr(self._of_thread, "wire", None)
        if wire is None:
            from mqd_ledger.brokers.alpaca_wire import open_wire

            is_local = self.url is not None and is_loopback(self.url)
            wire = self._of_thread.wire = open_wire(
                self.keys,
                self.url,
                self.environment,
                timeout=self._timeout,
                may_leave=self._may_leave,
                uses_proxies=not is_local,  # they do not know this machine's loopback
            )
            with self._lock:
                self._wires.append(wire)
        return wire


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _again(failure: Exception) -> bool | float:
    """Whether a read is worth repeating, or after how many seconds."""
    if not isinstance(failure, Ambiguous):
        return False
    return True if failure.retry_after is None else failure.retry_after


def _verdict(body: object) -> tuple[int, str]:
    """Code and message of an error's body; zero and nothing where there is none."""
    if not isinstance(body, dict):
        return 0, ""
    code, message = body.get("code"), body.get("message")
    return code if isinstance(code, int) else 0, str(message or "no reason given")


def _words(failure: "RequestException") -> str:
    """What happened, without the library's own words: these repeat the request."""
    from requests import exceptions

    for kind, words in (
        (exceptions.ConnectTimeout, "no connection within the time allowed"),
        (exceptions.Timeout, "no answer within the time allowed"),
        (exceptions.ChunkedEncodingError, "the answer broke off"),
        (exceptions.ProxyError, "the proxy of the environment did not take it"),
        (exceptions.SSLError, "the connection is not safe: its certificate could not be checked"),
        (exceptions.ConnectionError, "there was no connection, or it was dropped"),
    ):
        if isinstance(failure, kind):
            return words
    return f"it failed with {type(failure).__name__}"
