"""What was the account worth, and when? One row at each change of cash or holdings, and one at the end of each trading day.

Between those rows only prices moved. A row per bar would say little more at a hundred times the size, but the bars do count:
`peak` is the highest equity there ever was and `max_drawdown` the deepest fall from a peak, at any bar until then. The row of kind
`day` stands at the last thing heard of on its day; for the day that is still running it moves along. A deposit or withdrawal
moves the peak with it, so that it looks like neither profit nor loss.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from mqd_ledger import events as e
from projections.shape import DayClosed, Kind, Meta, Statement, Table, amount, at, ratio

NAME = "equity"
VERSION = 1

EQUITY = Table(
    "equity",
    key=("position", "kind"),
    columns={
        "position": Kind.INTEGER,  # of the event in the log; of the day's last event for its end
        "kind": Kind.TEXT,  # fill, bust, correction, cash, fee, adjustment, day
        "trade_date": Kind.DATE,
        "valued_at": Kind.TIME,
        "cash": Kind.DECIMAL,
        "market_value": Kind.DECIMAL,  # of the holdings at their last known prices; negative where shorts prevail
        "equity": Kind.DECIMAL,
        "peak": Kind.DECIMAL,
        "drawdown": Kind.DECIMAL,  # now, as a fraction of the peak
        "max_drawdown": Kind.DECIMAL,  # ever until now
    },
    indexes=("trade_date",),
)
TABLES = (EQUITY,)

_KINDS: Mapping[type[e.Event], str] = MappingProxyType(
    {
        e.OrderFilled: "fill",
        e.ExecutionBusted: "bust",
        e.ExecutionCorrected: "correction",
        e.CashMoved: "cash",
        e.FeeCharged: "fee",
        e.AdjustmentBooked: "adjustment",
        DayClosed: "day",
    }
)
READS = tuple(_KINDS)

_MOVES_ALONG = "delete from equity where trade_date = ? and kind = 'day'"


def apply(event: e.Event, meta: Meta) -> Iterator[Statement]:
    account = meta.account
    if isinstance(event, DayClosed):
        yield _MOVES_ALONG, (event.day,)
    yield (
        EQUITY.insert,
        (
            meta.position,
            _KINDS[type(event)],
            meta.day,
            at(event.occurred_at),
            amount(account.cash),
            amount(account.equity - account.cash),
            amount(account.equity),
            amount(account.peak),
            ratio(account.drawdown),
            ratio(account.max_drawdown),
        ),
    )
