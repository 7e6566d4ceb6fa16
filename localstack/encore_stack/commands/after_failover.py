"""`scripts/after-failover`: settle what an asynchronous failover of Postgres may have lost."""

import argparse
import sys
from collections.abc import Sequence

from booking.operations.failover import lost_charges, publish_again, refund
from booking.payment.books import BookUnreadable, book_urls
from booking.platform.postgres import DatabaseAway, Server
from booking.platform.settings import settings
from encore_stack.arguments import seconds_up_to
from encore_stack.instance import Instance
from encore_stack.process_settings import adopt_settings

_STATEMENT_TIMEOUT_MS = 60_000
_SINCE_S, _SINCE_S_MAX = 600, 7 * 24 * 3_600


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 settled, 1 there is money to be refunded, 2 it could not be found out."""
    options = _parser().parse_args(arguments)
    adopt_settings(Instance.load_existing())
    server = Server(settings().database_url, statement_timeout_ms=_STATEMENT_TIMEOUT_MS)
    try:
        if not options.look:
            count = publish_again(server, options.since)
            print(f"{count:,} events of the last {options.since:,} s are published again; each acts once")
        found = lost_charges(server, book_urls())
    except (BookUnreadable, DatabaseAway) as fault:
        print(f"error: {fault}; is the stack up? see scripts/status", file=sys.stderr)
        return 2
    finally:
        server.close()
    left = 0
    for charge in found:
        is_refunded = not options.look and refund(charge)
        left += not is_refunded
        words = "refunded" if is_refunded else "to be refunded"
        print(f"  {words}: {charge.amount:,} at {charge.gateway} under {charge.key}, for order {charge.order_id}")
    print(f"charges that no payment accounts for: {len(found)}" if found else "every charge has its payment")
    return 1 if left else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/after-failover",
        description="Settle what a failover of Postgres may have lost without synchronous replication: charges that no"
        " payment accounts for are refunded, and the last events are published once more, for consumers that acted on"
        " the old primary alone. Harmless where nothing was lost; safe to repeat.",
        epilog="exit codes: 0 settled, 1 there is money to be refunded, 2 it could not be found out",
    )
    parser.add_argument("--look", action="store_true", help="only say which charges no payment accounts for")
    parser.add_argument(
        "--since",
        type=seconds_up_to(_SINCE_S_MAX),
        metavar="SECONDS",
        default=_SINCE_S,
        help="publish the events of so long again (default %(default)s)",
    )
    return parser
