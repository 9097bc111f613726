"""Chance and identity that the seed decides: the same seed and the same names give the same number, id or text on every machine.

To draw something new, give it names of its own: no draw changes another one.
"""

from datetime import datetime
from hashlib import sha256
from uuid import UUID, uuid5

from mqd_ledger.values import EPOCH

NAMESPACE = UUID("6d71642d-6c65-4467-a572-6c6f6f706261")
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def draw(below: int, *names: object) -> int:
    """A whole number from 0 to below - 1."""
    return int.from_bytes(sha256("/".join(map(str, names)).encode()).digest()[:8], "big") % below


def uuid_of(*names: object) -> str:
    return str(uuid5(NAMESPACE, "/".join(map(str, names))))


def ulid(at: datetime, number: int, *names: object) -> str:
    """26 characters that sort like (time, number): how Alpaca names its events."""
    value = int((at - EPOCH).total_seconds() * 1000) << 80 | number % 2**40 << 40 | draw(2**40, *names, number)
    return "".join(CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))
