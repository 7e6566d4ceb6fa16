"""The consumer that keeps the sales read model. Each event counts once."""

from collections.abc import Mapping
from typing import Any

from booking.events.consumer import Consumer
from booking.platform.resources import read_text
from booking.queue import set_sold_out
from booking.sales import SALES_CONSUMER

_COUNT = read_text(__package__, "sql/count_sales.sql")


def _tell(effect: Mapping[str, Any]) -> None:
    for concert in effect["moved"]:
        set_sold_out(concert["concert_id"], concert["sold_out"])


consume = Consumer(SALES_CONSUMER, _COUNT, _tell).consume
"""``consume(event, context)``, the handler: see ``events.consumer``."""
