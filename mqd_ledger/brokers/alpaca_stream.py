"""Alpaca's stream of trade updates: what becomes of the account's orders, as it happens.

    updates = TradeUpdates(keys, None, inbox.put_nowait, clock).start()
    ("frame", "trade_updates", data, at)  ->  alpaca_updates.commands_of(data, ...)      on the thread that decides

Nobody trades for hours, so silence says nothing here: whether the connection lives is seen by the pings alone. Nothing is sent
twice: after every "up" the orders and fills have to be read over REST.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Self

import msgspec

from mqd_ledger.brokers.keys import Keys
from mqd_ledger.feeds.connection import Handler, Timing, Watched
from mqd_ledger.feeds.supervised import Sink, Supervised

NAME = "trade_updates"


class TradeUpdates:
    """`url` None is Alpaca itself: the paper account's stream or the live one's, as the keys say."""

    def __init__(
        self,
        keys: Keys,
        url: str | None,
        sink: Sink,
        clock: Callable[[], datetime],
        *,
        timing: Timing = Timing(),  # noqa: B008  frozen
    ) -> None:
        self._keys, self._url = keys, url
        self.stream = Supervised(NAME, self._make, sink, clock, decode=msgspec.json.decode, timing=timing)

    def start(self) -> Self:
        self.stream.start()
        return self

    def stop(self, timeout: float = 10) -> bool:
        return self.stream.stop(timeout)

    def _make(self, handle: Handler, websocket_params: Mapping[str, Any]) -> Watched:
        from alpaca.trading.stream import TradingStream

        class Stream(Watched, TradingStream):
            pass

        async def take(raw: Mapping[str, Any]) -> None:
            await handle(raw.get("data"))  # which the real server has been seen to leave empty

        stream = Stream(
            self._keys.key_id,
            self._keys.secret,
            paper=self._keys.environment != "live",
            raw_data=True,
            url_override=self._url or "",  # which the library takes for none
            websocket_params=dict(websocket_params),
        )
        stream.subscribe_trade_updates(take)
        return stream
