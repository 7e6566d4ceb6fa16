"""Background loops: started each minute, they work a little over a minute, one leader at a time.

The leader holds a Postgres advisory lock on a connection of its own. When its function dies the server sees the
connection end and frees the lock, so the run that stands by takes over at its next try.
"""

import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit

from booking.platform.postgres import DatabaseAway, Server
from booking.platform.problems import Refusal
from booking.platform.settings import settings
from booking.platform.telemetry import logger, measure, start_correlation

_STAND_BY_TICK_S = 0.5
_PAUSE_AFTER_FAULT_S = 1.0
_TRY_LEAD = """
select pg_try_advisory_lock(:space, :name), set_config('tcp_keepalives_idle', '5', false),
       set_config('tcp_keepalives_interval', '2', false), set_config('tcp_keepalives_count', '3', false)
"""
"""A leader whose machine vanishes does not end its connection: the server asks after it, and not only in two hours."""
_STILL_LEADING = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
_LOCK_SPACE = 0x656E63  # 'enc', as in loop_has_leader.sql: keeps the loops' locks apart from the per-person ones


@dataclass(slots=True)
class LoopReport:
    """What one run of a loop did: whether it ever led, how often it worked, how much it did, how often it failed."""

    loop: str
    led: bool = False
    ticks: int = 0
    done: int = 0
    faults: int = 0


def run_loop(name: str, tick_s: float, work: Callable[[], int], *, run_s: float | None = None) -> dict[str, Any]:
    """Call ``work`` every ``tick_s`` seconds while leading; it returns how many things it did.

    A fault of ``work`` is logged and ends only its tick. Returns the fields of a LoopReport.
    """
    start_correlation(None)
    deadline_s = time.monotonic() + (run_s or settings().loop_run_s)
    lease = Lease(name)
    report = LoopReport(name)
    try:
        while (now_s := time.monotonic()) < deadline_s:
            if not lease.held():
                time.sleep(min(_STAND_BY_TICK_S, deadline_s - now_s))
                continue
            report.led = True
            report.ticks += 1
            pause_s = tick_s
            try:
                report.done += work()
            except Exception as fault:
                report.faults += 1
                pause_s = max(tick_s, _PAUSE_AFTER_FAULT_S)
                _log_fault(name, fault)
            time.sleep(max(0.0, min(pause_s - (time.monotonic() - now_s), deadline_s - time.monotonic())))
    finally:
        lease.release()
    measure("LoopWorkDone", report.done, MetricUnit.Count, loop=name)
    measure("LoopFaults", report.faults, MetricUnit.Count, loop=name)
    logger().info("loop ended", extra=asdict(report))
    return asdict(report)


def lease_key(name: str) -> int:
    """The loop's in the space of the loops' locks, for ``loop_has_leader()`` too."""
    return zlib.crc32(name.encode()) - 2**31


class Lease:
    """Leadership of one loop: a session lock on a connection that does nothing else."""

    def __init__(self, name: str) -> None:
        self._key = lease_key(name)
        self._server = Server(settings().database_url)
        self._leading = False

    def held(self) -> bool:
        """Whether this run leads now; tries to take the lead when it does not."""
        try:
            if self._leading:
                # A lost connection would be replaced by one without the lock: ask the server, on this very one.
                self._leading = self._server.value(_STILL_LEADING, safe_to_repeat=False) > 0
            if not self._leading:
                self._leading = self._server.value(_TRY_LEAD, space=_LOCK_SPACE, name=self._key)
        except DatabaseAway:
            self._leading = False
        return self._leading

    def release(self) -> None:
        """Step down: closing the connection frees the lock."""
        self._server.close()


def _log_fault(name: str, fault: Exception) -> None:
    if isinstance(fault, Refusal):
        logger().warning("loop tick put off", loop=name, reason=fault.slug)
    else:
        logger().exception("loop tick failed", loop=name)
