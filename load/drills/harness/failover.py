"""A Redis master is killed under load, another takes its place, and the old one comes back as its replica."""

from contextlib import suppress

from redis.exceptions import RedisError

from booking.platform.redis_keys import line_key
from drills.harness.crowd import Plan
from drills.harness.drill import (
    Bound,
    Drill,
    back_within,
    nobody_loses_the_place,
    nobody_over_capacity,
    refused_at_all,
    the_shop_goes_on,
    waiting_at_break,
)
from drills.harness.record import LINE_STEPS
from drills.harness.scene import Scene
from drills.harness.stage import Gate, Topology
from encore_stack.redis_roles import NoMaster, master_of, role_of

_CAPACITY, _RATE_PER_S = 100, 20
_BEFORE_S, _DOWN_S, _AFTER_S = 15, 8, 20
_BACK_S = 5
_WAITING_MIN = 300
_SHOP_ANSWERS_MIN = 5
_NEW_MASTER_S_MAX = 20
_REPLICA_S_MAX = 20


def failover_drill(name: str, breaks: str, topology: Topology) -> Drill:
    """The same rush, kill and bounds for each way to run Redis in which another server takes a lost one's place."""
    return Drill(
        name=name,
        breaks=breaks,
        plan=Plan(at_once=800, within_s=6, then_per_s=_RATE_PER_S, people_max=2_500, stay_s_max=4),
        gate=Gate(_CAPACITY, _RATE_PER_S),
        incident=_kill_the_master_of_the_line,
        duration_s=_BEFORE_S + _DOWN_S + _AFTER_S,
        topology=topology,
        felt=refused_at_all(*LINE_STEPS),
        bounds=(
            waiting_at_break(_WAITING_MIN),
            *(back_within(_BACK_S, step) for step in LINE_STEPS),
            *nobody_loses_the_place(),
            nobody_over_capacity(_CAPACITY),
            *the_shop_goes_on(_SHOP_ANSWERS_MIN),
            _comes_back_as_replica(),
        ),
    )


async def _kill_the_master_of_the_line(scene: Scene) -> None:
    """Fifteen seconds of rush, the kill, the failover, the old master's return, twenty seconds more."""
    instance, key = scene.stage.instance, line_key(scene.crowd.concert.concert_id, "gate")

    def successor() -> str | None:
        with suppress(NoMaster):
            master = master_of(instance, key)
            return master if master != victim and role_of_or_none(master) == "master" else None
        return None

    def role_of_or_none(name: str) -> str | None:
        with suppress(RedisError):
            role = role_of(instance, name)
            return None if role.fault else str(role)
        return None

    await scene.wait(_BEFORE_S)
    victim = await scene.do(lambda: master_of(instance, key))
    scene.breaks(f"kill -9 of {victim}, the master of the line")
    scene.stage.kill(victim)
    scene.figure("new_master_s", await scene.until(lambda: successor() is not None, _NEW_MASTER_S_MAX, "a new master"))
    master = await scene.do(successor)
    scene.healed(f"{master} is the master now")
    await scene.wait(_DOWN_S)
    await scene.do(lambda: scene.stage.stack.start(victim))
    wanted = f"replica of {master}"
    await scene.until(lambda: role_of_or_none(victim) == wanted, _REPLICA_S_MAX, f"{victim} is a {wanted}")
    scene.figure("came_back_as_replica", 1)
    scene.note(f"{victim} is back, as a {wanted}")
    await scene.wait(_AFTER_S)


def _comes_back_as_replica() -> Bound:
    """The killed server replicates the one that has taken its place."""
    return Bound("old masters back as replicas", ">=", 1, lambda seen: seen.figures.get("came_back_as_replica"))
