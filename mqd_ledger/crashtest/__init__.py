"""Kill it anywhere, and prove that it came back: a seeded paper session, killed again and again, compared with its broker.

victim.py    the process that is killed: the ordinary program with a trap at one place
session.py   starts the market and the victims, one after another
compare.py   the ledger against the broker: positions, cash, fills, orders, the chain
pulse.py     the strategy that trades all the time, so that there is always something to lose
"""
