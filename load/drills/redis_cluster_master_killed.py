"""The cluster's master of the hash slot in which the line lies is killed (three masters, each with a replica).

All keys of one concert's line are in one slot, so this node is all that the line has. Its replica takes over the slots;
the others' slots go on meanwhile. Places are kept by the tokens. The old master comes back as a replica.
"""

from drills.harness.failover import failover_drill
from drills.harness.stage import Topology

DRILL = failover_drill(
    name="redis-cluster-master-killed",
    breaks="kill -9 of the cluster's master that has the line's hash slot, under load; its replica takes over",
    topology=Topology(redis="cluster"),
)
