"""The line's measurements one after the other, as text for ``load/line.md``."""

from collections.abc import Callable

from benchmarks.report import markdown_table
from benchmarks.run import own_gateway
from benchmarks.stage import LINE_CONCERT_ID, LINE_LENGTH, LINE_RATE_PER_S, Stage
from line import joins, polls

_CONNECTIONS = 32


def measure_line(duration_s: float, tell: Callable[[str], None]) -> str:
    """All of it, as Markdown. Raises ToolError, and what starting the servers raises."""
    stage = Stage(tell)
    stage.set_up()
    parts = [_poll_loads(tell), *_joins(stage, duration_s, tell)]
    return "\n\n".join(parts)


def _joins(stage: Stage, duration_s: float, tell: Callable[[str], None]) -> list[str]:
    handler = joins.handler_per_s(stage)
    tell("the first second of a gateway")
    first_joins, first_polls = joins.first_second(stage, tell)
    with own_gateway(stage, tell) as base_url:
        tell(f"{joins.RUSH_PEOPLE:,} people at once")
        rush = joins.rush(stage, base_url)
        ceilings = list(joins.ceilings(stage, base_url, duration_s, tell))
        polls_per_s = joins.polls_per_s(stage, base_url, _CONNECTIONS, duration_s)
    curve = markdown_table(
        ["connections", "script alone", "through the fast gateway"],
        [[f"{each.connections}", f"{each.script_per_s:,.0f}", f"{each.http_per_s:,.0f}"] for each in ceilings],
    )
    return [
        f"Joins a second of one concert with {LINE_LENGTH:,} waiting; the handler's own CPU in one process allows"
        f" {handler:,.0f}:\n\n{curve}",
        f"Over {_CONNECTIONS} connections: {polls_per_s:,.0f} polls a second; in the first second of a gateway that has"
        f" just started {first_joins:,.0f} joins and {first_polls:,.0f} polls.",
        f"{rush.people:,} distinct people joined an empty line within {rush.took_s:.1f} s, each with a place of theirs,"
        f" none refused; Redis took {rush.redis_mb:.1f} MB for them.",
    ]


def _poll_loads(tell: Callable[[str], None]) -> str:
    rows = []
    for waiting in polls.SIZES:
        tell(f"the polls of {waiting:,} people")
        load = polls.poll_load(LINE_CONCERT_ID, waiting, LINE_RATE_PER_S)
        whole = (load.waiting, load.followed, load.last_turn_s, load.polls_per_s_max, load.polls_per_s_mean)
        parts = (load.polls_each_mean, load.polls_each_max, load.late_s_p99, load.late_s_max)
        rows.append([*(f"{figure:,.0f}" for figure in whole), *(f"{figure:.1f}" for figure in parts)])
    heads = ["waiting", "followed", "last turn, s", "polls/s, most", "mean", "polls each, mean", "most"]
    heads += ["pass fetched after the turn, s, p99", "most"]
    return (
        f"Polls at {LINE_RATE_PER_S:g} let in a second, all joined within {polls.JOINED_WITHIN_S:g} s:\n\n"
        + markdown_table(heads, rows)
    )
