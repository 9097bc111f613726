"""Trading with a broker elsewhere: one thread that decides, and helpers around it that wait for the world.

    streams, workers ──Arrival──▶ Inbox ──▶ Desk: engine, log, outbox ──effects──▶ workers
                                              (decides alone)

What comes from outside is put into the bounded inbox by the thread that received it, stamped once. The desk takes one arrival after
another, turns it into commands with the state at hand, records what was decided and, once that is on the disk, hands what has to
happen in the world to a worker, whose answer is a new arrival. No other thread ever looks at the state or the log.

To make the desk hear something new: let its thread put an `Arrival`. To make it do something at a time: a row in `Desk.timers`.
"""
