"""A Redis master is killed under load, another takes its place, and the old one comes back as its replica."""

from contextlib import suppress

from redis.exceptions import RedisError

from booking.platform.redis_keys import line_key
from drills.harness.drill import Bound
from drills.harness.scene import Scene
from encore_stack.redis_roles import NoMaster, master_of, role_of

_NEW_MASTER_S_MAX = 20
_REPLICA_S_MAX = 20


async def kill_the_master_of_the_line(scene: Scene, *, before_s: float, down_s: float, after_s: float) -> None:
    """The incident of a failover; the killed server comes back after ``down_s``."""
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

    await scene.wait(before_s)
    victim = await scene.do(lambda: master_of(instance, key))
    scene.breaks(f"kill -9 of {victim}, the master of the line")
    scene.stage.kill(victim)
    scene.figure("new_master_s", await scene.until(lambda: successor() is not None, _NEW_MASTER_S_MAX, "a new master"))
    master = await scene.do(successor)
    scene.healed(f"{master} is the master now")
    await scene.wait(down_s)
    await scene.do(lambda: scene.stage.stack.start(victim))
    wanted = f"replica of {master}"
    await scene.until(lambda: role_of_or_none(victim) == wanted, _REPLICA_S_MAX, f"{victim} is a {wanted}")
    scene.figure("came_back_as_replica", 1)
    scene.note(f"{victim} is back, as a {wanted}")
    await scene.wait(after_s)


def comes_back_as_replica() -> Bound:
    """The killed server replicates the one that has taken its place."""
    return Bound("old masters back as replicas", ">=", 1, lambda seen: seen.figures.get("came_back_as_replica"))
