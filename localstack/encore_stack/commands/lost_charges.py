"""`scripts/lost-charges`: find charges that no payment accounts for, and refund them."""

import argparse
import os
import sys
from collections.abc import Sequence

from booking.operations.audit import AuditImpossible
from booking.operations.lost_charges import lost_charges, refund
from booking.platform.postgres import DatabaseAway, Server
from booking.platform.settings import settings
from encore_stack.instance import Instance, function_environment

_STATEMENT_TIMEOUT_MS = 60_000


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 there are none (any more), 1 there are some, 2 it could not be found out."""
    options = _parser().parse_args(arguments)
    os.environ.update(function_environment(Instance.load_existing()))
    settings.cache_clear()
    server = Server(settings().database_url, statement_timeout_ms=_STATEMENT_TIMEOUT_MS)
    urls = {"danal": settings().danal_url, "payco": settings().payco_url}
    try:
        found = lost_charges(server, urls)
    except (AuditImpossible, DatabaseAway) as fault:
        print(f"error: {fault}; is the stack up? see scripts/status", file=sys.stderr)
        return 2
    finally:
        server.close()
    left = 0
    for charge in found:
        is_refunded = options.refund and refund(charge)
        left += not is_refunded
        words = "refunded" if is_refunded else "NOT REFUNDED" if options.refund else "lost"
        print(f"  {words}  {charge.amount:>10,} at {charge.gateway} under {charge.key}, for order {charge.order_id}")
    if not found:
        print("every charge has its payment")
    elif left:
        print(f"{left} charges that no payment accounts for" + ("" if options.refund else "; --refund sends them back"))
    else:
        print(f"{len(found)} charges that no payment accounted for were refunded")
    return 1 if left else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/lost-charges",
        description="Charges in the payment firms' books that no payment in the database accounts for. Without"
        " synchronous replication a failover of Postgres may lose the last commits; where one of them was a payment,"
        " its money was taken for nothing.",
        epilog="exit codes: 0 there are none (any more), 1 there are some, 2 it could not be found out",
    )
    parser.add_argument("--refund", action="store_true", help="send the money back, each charge by its key")
    return parser
