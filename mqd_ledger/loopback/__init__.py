"""An Alpaca server on this machine: the protocol of Alpaca around the project's own simulated broker, for trying out a strategy.

server      LoopbackServer: starts, stops, restarts; what a test does by hand
clock       market time, for the server and for who trades against it
market      plays bars: prices, quotes, history, halts, corrections
account     one account: engine, simulated broker, ledger; its orders in `order_book`, its figures in `figures`
rules       what Alpaca validates before it takes an order; an order as asked for in `tickets`
rest        the routes under /v2; streams: both websockets; views: the JSON of what goes out
switches    everything about which Alpaca's documentation is silent, as a choice
hooks       where faults come in; faults, control: what can go wrong, and the remote control

Everything is decided by the seed, the bars and what clients do: nothing here throws dice of its own.
"""
