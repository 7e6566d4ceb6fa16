"""What a request costs in one process without a server in front, by the thread's own CPU clock.

The figure that hardly depends on what else the machine does. The servers' CPU is not in it.
"""

import time
from collections.abc import Iterator

from benchmarks.gateway import StepsAndFloors
from benchmarks.requests import Request
from benchmarks.tools import ToolError


def cost_us(application: StepsAndFloors, requests: Iterator[Request], count: int) -> float:
    """CPU microseconds a request, of ``count`` answered one after the other. Raises ToolError for a bad answer."""
    prepared = [next(requests).environ() for _ in range(count)]
    statuses: set[str] = set()
    started_s = time.thread_time()
    for environ in prepared:
        application(environ, lambda status, headers: statuses.add(status))
    cpu_s = time.thread_time() - started_s
    if bad := [status for status in statuses if not status.startswith("2")]:
        raise ToolError(f"{prepared[0]['PATH_INFO']}: answered {', '.join(sorted(bad))}")
    return cpu_s / count * 1e6
