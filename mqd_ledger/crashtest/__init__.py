"""Kill it anywhere, and prove that it came back: a seeded paper session, killed again and again, compared with its broker.

victim.py    the process that is killed: the ordinary program with a trap at one place
session.py   starts the market and the victims, one after another
compare.py   the ledger against the broker: positions, cash, fills, orders, what was sent, every proof of `verify`
pulse.py     the strategies that trade all the time, so that there is always something to lose
"""
