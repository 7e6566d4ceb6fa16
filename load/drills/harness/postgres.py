"""The Postgres primary is killed under load, its replica is promoted, the old one comes back as a replica.

Lost is what somebody was told is done and the new primary does not have. Two kinds of commits are counted: those of the
people, and those of a clerk who does nothing but commit, so that there is one in every millisecond.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress

import pg8000.native

from booking.operations.failover import lost_charges, publish_again, refund
from booking.payment.books import book_urls
from booking.platform.postgres import Server
from booking.platform.resources import read_text
from booking.platform.settings import settings
from drills.harness.crowd import Acknowledged
from drills.harness.drill import Bound
from drills.harness.evidence import Evidence, Mark
from drills.harness.scene import Scene, tell
from drills.harness.stage import Stage
from encore_stack.parts import Unhealthy, part_named, postgres
from encore_stack.parts.postgres import connected

STALLED_S = 0.4
_PUBLISHED_AGAIN_S = 600
_NOTICED_S = 1.5
"""So long without an answer means down, as the sentinels of Redis have it."""
_REPLICA_S_MAX = 30
_COUNT_S_MAX = 30
_CLERK_BEFORE_S = 3
_CLERK_TABLE = "create table if not exists drill_commit (number bigint primary key)"
_LOST = read_text("drills.harness", "sql/lost_commits.sql")


class Clerk:
    """Commits one row after the other, until the server is gone, and knows which it was told are safe."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._thread = threading.Thread(target=self._commit, daemon=True)
        self.acknowledged: list[int] = []

    def begin(self) -> None:
        with connected(self._stage.instance, self._stage.instance.postgres_primary) as connection:
            connection.run(_CLERK_TABLE)
        self._thread.start()

    def lost(self) -> int:
        """How many of its acknowledged commits the primary of this moment does not have."""
        self._thread.join()
        instance = self._stage.instance
        with connected(instance, instance.postgres_primary, timeout_s=_COUNT_S_MAX) as connection:
            kept = {number for (number,) in connection.run("select number from drill_commit")}
        return len(set(self.acknowledged) - kept)

    def _commit(self) -> None:
        instance = self._stage.instance
        number = time.time_ns()
        with suppress(Unhealthy), connected(instance, instance.postgres_primary) as connection:
            insert = connection.prepare("insert into drill_commit values (:number)")
            while True:
                insert.run(number=number)
                self.acknowledged.append(number)
                number += 1


async def fail_over(scene: Scene, *, before_s: float, down_s: float, after_s: float) -> None:
    """The incident; the killed server comes back after ``down_s``.

    Its replication stalls for a moment before it is killed: on one machine a replica is never behind by itself.
    """
    stage, instance = scene.stage, scene.stage.instance
    victim, promoted = instance.postgres_primary, instance.postgres_replica
    clerk = Clerk(stage)
    await scene.wait(before_s - _CLERK_BEFORE_S)
    await scene.do(clerk.begin)
    await scene.wait(_CLERK_BEFORE_S)
    scene.note(f"{victim} sends nothing to {promoted} any more")
    await scene.do(lambda: _stall_replication(stage))
    await scene.wait(STALLED_S)
    scene.breaks(f"kill -9 of every process of {victim}, the primary")
    await scene.do(lambda: postgres.kill(instance, victim))
    await scene.do(lambda: _await_silence(victim, stage))
    scene.note(f"{victim} has not answered for {_NOTICED_S:g} s: {promoted} is promoted")
    await scene.do(lambda: stage.stack.promote(promoted))
    promoted_s, promoted_at_s = scene.clock(), time.time()
    scene.healed(f"{promoted} is the primary now")
    await scene.do(lambda: _count_lost(scene, clerk, promoted_s, promoted_at_s))
    if instance.replication == "async":
        scene.note(await scene.do(lambda: _settle(scene.figures)))
    await scene.wait(down_s)
    await scene.do(lambda: stage.stack.start(victim))
    roles = {victim: f"replica of {promoted}", promoted: "primary"}
    if instance.replication == "sync":
        roles[promoted] += f", commits wait for {victim}"

    def as_wanted() -> bool:
        return {name: part_named(name).role(instance) for name in roles} == roles

    await scene.until(as_wanted, _REPLICA_S_MAX, f"{victim} is a replica of {promoted}")
    scene.figure("came_back_as_replica", 1)
    scene.note(f"{victim} is back: {', '.join(f'{name} is {role}' for name, role in sorted(roles.items()))}")
    await scene.wait(after_s)


def refund_lost_charges(stage: Stage, seen: Evidence) -> None:
    """Look for charges once more: a function may have sent one after the failover, for a payment from before it."""
    mark = Mark(seen.ended_s, "note", _refund(seen.figures))
    seen.marks.append(mark)
    tell(mark)


def lost_commits(count: str, name: str) -> Bound:
    """None of these commits is lost."""
    return Bound(f"acknowledged commits of {name} that the new primary lacks", "<=", 0, _figure(count))


def charges_settled(may_be_lost: bool) -> list[Bound]:
    """No charge without its payment; or, where commits may be lost, none that was not refunded."""
    if may_be_lost:
        return [Bound("charges without a payment that were not refunded", "<=", 0, _figure("lost_charges_kept"))]
    return [Bound("charges that no payment accounts for", "<=", 0, _figure("lost_charges"))]


def counted(acknowledged_min: int) -> Bound:
    """Enough was committed before the break for a loss to show."""
    return Bound("commits acknowledged before the break", ">=", acknowledged_min, _figure("acknowledged"))


def comes_back() -> Bound:
    """The old primary is a replica of the new one, and where commits wait for a replica, they do again."""
    return Bound("old primaries back as replicas", ">=", 1, _figure("came_back_as_replica"))


def loses_some() -> Bound:
    """Without a loss to count the drill would prove nothing of it."""
    return Bound(
        "acknowledged commits that the new primary lacks", ">=", 1,
        lambda seen: seen.figures.get("lost_of_people", 0) + seen.figures.get("lost_of_clerk", 0),
    )  # fmt: skip


def _settle(figures: dict[str, float]) -> str:
    """As ``scripts/after-failover`` does."""
    with closing(Server(settings().database_url, statement_timeout_ms=60_000)) as server:
        events = publish_again(server, _PUBLISHED_AGAIN_S)
    return f"scripts/after-failover: {events:,} events are published again; {_refund(figures)}"


def _refund(figures: dict[str, float]) -> str:
    with closing(Server(settings().database_url, statement_timeout_ms=60_000)) as server:
        found = lost_charges(server, book_urls())
    kept = sum(not refund(charge) for charge in found)
    figures["lost_charges"] = figures.get("lost_charges", 0) + len(found)
    figures["lost_charges_kept"] = kept
    return f"{len(found)} charges that no payment accounts for, {len(found) - kept} refunded"


def _stall_replication(stage: Stage) -> None:
    instance = stage.instance
    with connected(instance, instance.postgres_primary, user="postgres") as connection:
        for (pid,) in connection.run("select pid from pg_stat_replication"):
            os.kill(pid, signal.SIGSTOP)


def _figure(name: str) -> Callable[[Evidence], float | None]:
    return lambda seen: seen.figures.get(name)


def _await_silence(name: str, stage: Stage) -> None:
    """Return when it has not answered for a while."""
    silent_since_s = time.monotonic()
    while time.monotonic() - silent_since_s < _NOTICED_S:
        try:
            part_named(name).probe(stage.instance)
            silent_since_s = time.monotonic()
        except Unhealthy:
            time.sleep(0.1)


def _count_lost(scene: Scene, clerk: Clerk, promoted_s: float, promoted_at_s: float) -> None:
    instance = scene.stage.instance
    told = [one for one in scene.crowd.acknowledged if one.at_s <= promoted_s]
    lost = _lost_of(told, promoted_at_s, instance.postgres_primary, scene)
    of_clerk = clerk.lost()
    scene.figure("acknowledged", len(told) + len(clerk.acknowledged))
    scene.figure("acknowledged_of_people", len(told))
    scene.figure("lost_of_people", len(lost))
    scene.figure("acknowledged_of_clerk", len(clerk.acknowledged))
    scene.figure("lost_of_clerk", of_clerk)
    scene.note(
        f"lost commits, {instance.replication}: {len(lost)} of {len(told):,} that people were told of"
        f" ({', '.join(sorted({kind for kind, _ in lost})) or 'none'}),"
        f" {of_clerk} of {len(clerk.acknowledged):,} of the clerk"
    )


def _lost_of(told: list[Acknowledged], by_s: float, primary: str, scene: Scene) -> list[tuple[str, str]]:
    connection: pg8000.native.Connection
    with connected(scene.stage.instance, primary, timeout_s=_COUNT_S_MAX) as connection:
        rows = connection.run(
            _LOST, kinds=[one.kind for one in told], ids=[one.reservation_id for one in told], by=by_s
        )
    return [(str(kind), str(reservation_id)) for kind, reservation_id in rows]
