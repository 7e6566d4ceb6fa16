"""The Postgres primary is killed while people buy, and a commit waits for the replica: nothing acknowledged is lost.

As postgres-failover-async, but for what may be lost: nothing, neither of the people's nor of the clerk's commits, and
no charge is left without its payment. The promoted server waits for nobody until the old one has joined it again.
"""

from dataclasses import replace

from drills import postgres_failover_async as asynchronous
from drills.harness.drill import Bound, back_within, no_failures, nobody_loses_the_place
from drills.harness.evidence import Evidence
from drills.harness.postgres import charges_settled, comes_back, counted, lost_commits
from drills.harness.record import LINE_STEPS
from drills.harness.stage import Topology


def _gave_up(seen: Evidence) -> float:
    return float(sum(person.outcome.startswith("gave up") for person in seen.people))


DRILL = replace(
    asynchronous.DRILL,
    name="postgres-failover-sync",
    breaks="kill -9 of the Postgres primary under load; its synchronous replica is promoted",
    topology=Topology(postgres="sync"),
    plan=replace(asynchronous.DRILL.plan, may_lose_commits=False),
    bounds=(
        no_failures(*asynchronous.READS, name="reads (steps 3 to 5)"),
        no_failures(*LINE_STEPS, name="joins and polls"),
        *(back_within(asynchronous.BACK_S, step) for step in asynchronous.WRITES),
        counted(asynchronous.COMMITS_MIN),
        lost_commits("lost_of_people", "people"),
        lost_commits("lost_of_clerk", "the clerk"),
        *charges_settled(may_be_lost=False),
        Bound("people who gave up", "<=", 0, _gave_up),
        *nobody_loses_the_place(),
        comes_back(),
    ),
)
