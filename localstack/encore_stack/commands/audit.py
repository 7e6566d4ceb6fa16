"""`scripts/audit`: check the invariants of the sale."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from booking.operations.audit import INVARIANTS, AuditImpossible, Auditor, Verdict
from booking.operations.topic import read_topic
from booking.payment.books import book_urls
from booking.platform.postgres import DatabaseAway
from booking.platform.settings import settings
from encore_stack.arguments import seconds_up_to
from encore_stack.instance import Instance
from encore_stack.process_settings import adopt_settings
from encore_stack.progress import Progress

_SETTLE_S_DEFAULT, _SETTLE_S_MAX = 120, 3_600
_FINDINGS_SHOWN_MAX = 10


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 passed, 1 an invariant is broken, 2 the audit could not be made, 3 work would not settle."""
    options = _parser().parse_args(arguments)
    adopt_settings(Instance.load_existing())
    auditor = Auditor(
        settings().database_url,
        book_urls().values(),
        read_topic=partial(read_topic, settings().kafka_bootstrap_servers, settings().reservation_topic),
        without=options.without or (),
    )
    progress = Progress(quiet=options.json)
    try:
        settled = options.settle is None or auditor.settle(options.settle, lambda left: progress(_as_wait(left)))
        verdict = auditor.audit()
    except (AuditImpossible, DatabaseAway) as fault:
        why = "the database is away" if isinstance(fault, DatabaseAway) else fault
        print(f"error: the audit cannot be made: {why}; is the stack up? see scripts/status", file=sys.stderr)
        return 2
    finally:
        auditor.close()
    print(_as_json(verdict) if options.json else as_text(verdict))
    if not verdict.passed:
        return 1
    if not settled:
        print(f"error: work was still in flight after {options.settle} s", file=sys.stderr)
        return 3
    return 0


def as_text(verdict: Verdict) -> str:
    """The verdict for people: a line an invariant, what is broken, what is in flight."""
    lines = []
    for invariant in INVARIANTS:
        found = verdict.violations.get(invariant.name)
        if found is None:
            lines.append(f"  {invariant.name}  not looked at  {invariant.rule}")
            continue
        lines.append(f"  {invariant.name}  {'ok    ' if not found else 'BROKEN'}  {invariant.rule}")
        lines += [f"        {subject}: {fault}" for subject, fault in found[:_FINDINGS_SHOWN_MAX]]
        if len(found) > _FINDINGS_SHOWN_MAX:
            lines.append(f"        … and {len(found) - _FINDINGS_SHOWN_MAX} more (--json shows all)")
    looked_at = ", ".join(f"{count:,} {name}" for name, count in verdict.checked.items())
    lines += [f"  looked at {looked_at}; in flight: {_counted(verdict.in_flight) or 'nothing'}"]
    lines.append(f"audit {'passed' if verdict.passed else 'FAILED'}")
    return "\n".join(lines)


def _as_json(verdict: Verdict) -> str:
    report = {
        "passed": verdict.passed,
        "violations": {
            name: [{"subject": subject, "fault": fault} for subject, fault in found]
            for name, found in verdict.violations.items()
        },
        "in_flight": verdict.in_flight,
        "checked": verdict.checked,
    }
    return msgspec.json.encode(report).decode()


def _as_wait(left: Mapping[str, int]) -> str:
    return f"waiting for {_counted(left)}"


def _counted(in_flight: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in in_flight.items() if count)


def _parser() -> argparse.ArgumentParser:
    rules = "\n".join(f"  {invariant.name}  {invariant.rule}" for invariant in INVARIANTS)
    parser = argparse.ArgumentParser(
        prog="scripts/audit",
        description="Check the invariants of the sale from committed data, the gateways' books and the topic of the"
        f" events:\n\n{rules}",
        epilog="exit codes: 0 passed, 1 an invariant is broken, 2 the audit could not be made, 3 work did not settle",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--settle",
        type=seconds_up_to(_SETTLE_S_MAX),
        nargs="?",
        const=_SETTLE_S_DEFAULT,
        metavar="SECONDS",
        help=f"first wait for work in flight, at most this long (default {_SETTLE_S_DEFAULT})",
    )
    parser.add_argument(
        "--without",
        action="append",
        choices=[invariant.name for invariant in INVARIANTS],
        metavar="INVARIANT",
        help="do not look at this one (I6 where no relay works); may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="the verdict for machines, with every finding")
    return parser
