"""The Redis master is killed while a thousand people wait (Sentinel: one master, two replicas, three sentinels).

Joins and polls pause until the sentinels have made a replica the master; places are kept by the tokens, so who was told
one has it afterwards. Whoever has a pass goes on shopping meanwhile. The old master comes back as a replica.
"""

from drills.harness.failover import failover_drill
from drills.harness.stage import Topology

DRILL = failover_drill(
    name="redis-primary-killed",
    breaks="kill -9 of the Redis master under load; the sentinels make a replica the master",
    topology=Topology(redis="sentinel"),
)
