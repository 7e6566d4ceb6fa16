"""The two Postgres servers of the stack: who is the primary by their data, and what follows from it."""

from pathlib import Path

import pytest

from encore_stack.instance import POSTGRES_SERVERS, Instance, function_environment
from encore_stack.parts import part_named, with_needs
from encore_stack.parts.postgres_data import write_settings
from encore_stack.ports import DEFAULT_PORTS
from encore_stack.stack import Stack, StackError

FIRST, SECOND = POSTGRES_SERVERS


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance("main", tmp_path, dict(DEFAULT_PORTS))


def has_data(instance: Instance, name: str, *, of_a_replica: bool) -> None:
    data = instance.data_dir(name)
    data.mkdir(parents=True, exist_ok=True)
    (data / "PG_VERSION").write_text("15\n")
    if of_a_replica:
        (data / "standby.signal").touch()


def test_at_first_the_first_is_the_primary(instance: Instance) -> None:
    assert (instance.postgres_primary, instance.postgres_replica) == (FIRST, SECOND)


@pytest.mark.parametrize(("first", "primary"), [(False, FIRST), (True, SECOND)])
def test_their_data_say_who_is_the_primary(instance: Instance, first: bool, primary: str) -> None:
    has_data(instance, FIRST, of_a_replica=first)
    has_data(instance, SECOND, of_a_replica=not first)

    assert instance.postgres_primary == primary
    replica = instance.postgres_replica
    assert part_named(primary).waits_for(instance) == ()
    assert part_named(replica).waits_for(instance) == (primary,)


@pytest.mark.parametrize("promoted", [True, False], ids=["promoted", "broken off before"])
@pytest.mark.parametrize("signalled", [True, False], ids=["signalled", "broken off in between"])
def test_who_was_replaced_is_no_primary_any_more(instance: Instance, promoted: bool, signalled: bool) -> None:
    has_data(instance, FIRST, of_a_replica=signalled)
    has_data(instance, SECOND, of_a_replica=not promoted)
    instance.rejoin_mark(FIRST).touch()

    assert instance.postgres_primary == SECOND


def test_functions_are_told_both_servers_whoever_is_the_primary(instance: Instance) -> None:
    before = function_environment(instance)
    has_data(instance, FIRST, of_a_replica=True)
    has_data(instance, SECOND, of_a_replica=False)

    assert function_environment(instance) == before
    assert before["ENCORE_DATABASE_URL"].endswith("@127.0.0.1:15432,127.0.0.1:15433/encore")
    assert before["ENCORE_REPLICA_URL"].endswith("@127.0.0.1:15433,127.0.0.1:15432/encore")


def test_they_start_together_and_nothing_restarts_one(instance: Instance) -> None:
    for name in POSTGRES_SERVERS:
        assert with_needs([name]) == list(POSTGRES_SERVERS)
        assert not part_named(name).restarts_when_it_dies(instance)


@pytest.mark.parametrize(("synchronous", "waits_for"), [(True, SECOND), (False, "")])
def test_a_primary_waits_for_the_other_where_it_is_to(instance: Instance, synchronous: bool, waits_for: str) -> None:
    has_data(instance, FIRST, of_a_replica=False)
    write_settings(instance, FIRST, synchronous=synchronous)

    settings = (instance.data_dir(FIRST) / "postgresql.conf").read_text()
    assert f"\nsynchronous_standby_names = '{waits_for}'\n" in settings
    assert "application_name=postgres " in settings


def test_how_postgres_replicates_is_kept_with_the_instance(instance: Instance) -> None:
    instance.replication = "sync"
    instance.make_dirs()
    instance.save_config()

    assert Instance.load("main", instance.project_dir).replication == "sync"


def test_only_postgres_is_promoted(instance: Instance) -> None:
    with pytest.raises(StackError, match="postgres and postgres2"):
        Stack(instance).promote("redis")


def test_a_replica_that_does_not_run_is_not_promoted(instance: Instance) -> None:
    instance.make_dirs()
    instance.ports[SECOND] = 1  # nobody listens there

    with pytest.raises(StackError, match=rf"postgres2: it does not answer .*: scripts/stack start {SECOND}"):
        Stack(instance).promote(SECOND)
