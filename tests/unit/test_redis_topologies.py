"""The ways in which the stack runs Redis: its parts, ports and addresses, and what a change forgets."""

import os
import re
from pathlib import Path

import pytest

from encore_stack import redis_roles
from encore_stack.instance import REDIS_PARTS, REDIS_SERVERS, SENTINELS, BadInstance, Instance, function_environment
from encore_stack.parts import PART_NAMES, PARTS, part_named, with_needs
from encore_stack.parts.redis import before_a_server
from encore_stack.ports import DEFAULT_PORTS, port_owner
from encore_stack.stack import Stack, StackError
from encore_stack.supervisor import Process

TOPOLOGIES = tuple(REDIS_SERVERS)


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance("main", tmp_path, dict(DEFAULT_PORTS))


def run_as(instance: Instance, topology: str) -> Instance:
    instance.choose_redis(topology)
    return instance


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_an_instance_has_the_parts_and_ports_of_its_topology(instance: Instance, topology: str) -> None:
    run_as(instance, topology)
    present = {part.name for part in PARTS if not part.absent(instance)} & set(REDIS_PARTS)

    assert present == {*REDIS_SERVERS[topology], *(SENTINELS if topology == "sentinel" else ())}
    ports = {name for name in instance.port_names if port_owner(name) in REDIS_PARTS}
    assert ports == present | ({f"{name}_bus" for name in present} if topology == "cluster" else set())


def test_no_two_ports_have_the_same_default() -> None:
    assert len(set(DEFAULT_PORTS.values())) == len(DEFAULT_PORTS)
    assert {port_owner(name) for name in DEFAULT_PORTS} <= set(PART_NAMES)


@pytest.mark.parametrize(
    ("topology", "urls"),
    [
        ("single", ["redis://127.0.0.1:16379/0"] * 3),
        ("split", [f"redis://127.0.0.1:{port}/0" for port in (16379, 16385, 16386)]),
        ("sentinel", ["redis+sentinel://127.0.0.1:16396,127.0.0.1:16397,127.0.0.1:16398/encore/0"] * 3),
        ("cluster", ["redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in range(16379, 16385))] * 3),
    ],
)
def test_functions_are_told_where_the_line_the_locks_and_the_cache_are(
    instance: Instance, topology: str, urls: list[str]
) -> None:
    environment = function_environment(run_as(instance, topology))

    assert [environment[f"ENCORE_{name}_REDIS_URL"] for name in ("QUEUE", "LOCKS", "CACHE")] == urls


def test_the_topology_is_kept_with_the_instance(instance: Instance) -> None:
    assert instance.choose_redis("cluster")
    instance.make_dirs()
    instance.save_config()

    again = Instance.load("main", instance.project_dir)

    assert not again.choose_redis(None)
    assert again.redis_servers == REDIS_SERVERS["cluster"]


def test_a_change_forgets_what_redis_holds_and_nothing_else(instance: Instance) -> None:
    run_as(instance, "sentinel")
    for part in ("postgres", "redis", "redis2", "sentinel"):
        instance.data_dir(part).mkdir(parents=True)

    assert not instance.choose_redis("sentinel")
    assert instance.data_dir("redis2").exists()
    assert instance.choose_redis("single")

    assert [path.name for path in instance.data_dir("postgres").parent.iterdir()] == ["postgres"]


def test_a_redis_that_runs_is_not_changed(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(instance)
    monkeypatch.setattr(stack.supervisor, "processes", lambda: {"redis": Process("RUNNING", 1, "")})
    instance.data_dir("redis").mkdir(parents=True)

    assert not stack.choose_redis("single")
    with pytest.raises(BadInstance, match="scripts/down first"):
        stack.choose_redis("cluster")

    assert instance.redis_topology == "single"
    assert instance.data_dir("redis").exists()


def test_a_part_of_another_topology_is_no_part_of_the_instance(instance: Instance) -> None:
    with pytest.raises(StackError, match="scripts/up --redis sentinel or cluster has this part"):
        Stack(instance).stop("redis2")


def test_the_servers_start_together_and_the_sentinels_after_them() -> None:
    assert set(with_needs(["redis"])) == set(REDIS_PARTS)
    assert set(REDIS_SERVERS["sentinel"]) <= set(part_named("sentinel2").needs)


@pytest.mark.parametrize(
    ("topology", "restarts"), [("single", True), ("split", True), ("sentinel", False), ("cluster", False)]
)
def test_nothing_restarts_a_server_that_has_replicas(instance: Instance, topology: str, restarts: bool) -> None:
    assert part_named("redis").restarts_when_it_dies(run_as(instance, topology)) is restarts


def test_the_nodes_of_a_cluster_know_each_other_from_the_start(instance: Instance) -> None:
    run_as(instance, "cluster")
    files = []
    for name in instance.redis_servers:
        instance.data_dir(name).mkdir(parents=True)
        redis_roles.write_nodes(instance, name)
        files.append((instance.data_dir(name) / "nodes.conf").read_text())

    assert [file.count("myself,") for file in files] == [1] * 6
    assert len({file.replace("myself,", "") for file in files}) == 1
    slots = [range(int(first), int(last) + 1) for first, last in re.findall(r" (\d+)-(\d+)$", files[0], re.MULTILINE)]
    assert sorted(slot for each in slots for slot in each) == list(range(16384))


def test_a_node_that_starts_again_learns_the_ports_of_the_others(instance: Instance) -> None:
    run_as(instance, "cluster")
    instance.data_dir("redis").mkdir(parents=True)
    redis_roles.write_nodes(instance, "redis")
    file = instance.data_dir("redis") / "nodes.conf"
    # As Redis has written it after a failover.
    before = file.read_text().replace("myself,master - 0 0 1 connected 0-5460", "myself,slave x 0 5 4 connected")
    file.write_text(before)
    instance.ports |= {"redis4": 20004, "redis4_bus": 20014}

    redis_roles.write_nodes(instance, "redis")

    assert file.read_text() == before.replace(":16382@16392 ", ":20004@20014 ")
    assert ":20004@20014 " in file.read_text()


def test_a_server_starts_where_batch_scheduling_is_refused(
    instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = part_named("redis").command(instance)
    assert [word.rsplit("/", 1)[-1] for word in command[:4]] == ["chrt", "--batch", "0", "redis-server"]

    refusing = tmp_path / "chrt"
    refusing.write_text("#!/bin/sh\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    before_a_server.cache_clear()
    try:
        assert part_named("redis").command(instance) == command[3:]
    finally:
        before_a_server.cache_clear()
