"""mqd-ledger: a trading engine whose every order, decision, fill and bar is an event in one append-only log."""

__version__ = "0.1.0"
