"""One Kafka broker or three: what an instance has, what its brokers are told, and when the number may change."""

from pathlib import Path

import pytest

from encore_stack.instance import BROKERS, BadInstance, Instance
from encore_stack.parts import part_named, with_needs
from encore_stack.parts.kafka import Kafka
from encore_stack.ports import DEFAULT_PORTS, PortClaims, choose_ports
from encore_stack.stack import Stack, StackError


@pytest.fixture(autouse=True)
def no_other_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance("main", tmp_path, dict(DEFAULT_PORTS))


@pytest.fixture
def three(instance: Instance) -> Instance:
    instance.choose_kafka(3)
    return instance


def write_data(instance: Instance) -> None:
    folder = instance.data_dir("kafka") / "log"
    folder.mkdir(parents=True)
    (folder / "meta.properties").touch()


def properties(instance: Instance, broker: str) -> dict[str, str]:
    lines = Kafka(broker)._properties(instance).splitlines()
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    assert len({key for key, _ in pairs}) == len(pairs), "a property is set twice"
    return dict(pairs)


def test_one_broker_is_the_default_and_replicates_nothing(instance: Instance) -> None:
    told = properties(instance, "kafka")

    assert instance.brokers == ("kafka",)
    assert instance.kafka_bootstrap_servers == "127.0.0.1:19092"
    assert told["controller.quorum.voters"] == "1@127.0.0.1:19093"
    assert {value for key, value in told.items() if key.endswith(("replication.factor", "min.isr"))} == {"1"}


def test_three_brokers_are_one_cluster_that_replicates(three: Instance) -> None:
    told = [properties(three, name) for name in BROKERS]

    assert [each["node.id"] for each in told] == ["1", "2", "3"]
    assert len({each["listeners"] for each in told}) == len({each["log.dirs"] for each in told}) == 3
    assert {each["controller.quorum.voters"] for each in told} == {
        "1@127.0.0.1:19093,2@127.0.0.1:19095,3@127.0.0.1:19097"
    }
    for each in told:
        assert (each["offsets.topic.replication.factor"], each["default.replication.factor"]) == ("3", "3")
        assert each["min.insync.replicas"] == each["transaction.state.log.min.isr"] == "2"
        assert each["advertised.listeners"] in each["listeners"]
        assert "0.0.0.0" not in each["listeners"]


def test_clients_are_told_all_brokers(three: Instance) -> None:
    assert three.kafka_bootstrap_servers == "127.0.0.1:19092,127.0.0.1:19094,127.0.0.1:19096"


def test_ports_are_taken_for_the_brokers_there_are(instance: Instance) -> None:
    claims = PortClaims()
    one = choose_ports({}, (), claims, use_defaults=False, names=instance.port_names)
    instance.choose_kafka(3)
    three = choose_ports(one, (), claims, use_defaults=False, names=instance.port_names)
    claims.release()

    assert set(three) - set(one) == {"kafka2", "kafka2_controller", "kafka3", "kafka3_controller"}
    assert len(set(three.values())) == len(three)


def test_the_number_is_kept_with_the_instance(three: Instance) -> None:
    three.make_dirs()
    three.save_config()

    again = Instance.load("main", three.project_dir)
    again.choose_kafka()

    assert again.brokers == BROKERS


def test_the_number_may_change_until_kafka_has_data(three: Instance) -> None:
    three.choose_kafka(1)
    assert three.brokers == ("kafka",)
    write_data(three)

    three.choose_kafka(1)
    with pytest.raises(BadInstance, match="scripts/down --wipe first"):
        three.choose_kafka(3)

    assert three.brokers == ("kafka",)


def test_brokers_of_somebody_else_are_not_counted(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka.test:9092")

    with pytest.raises(BadInstance, match="leave one of the two out"):
        instance.choose_kafka(3)

    instance.choose_kafka()
    assert (instance.brokers, instance.kafka_bootstrap_servers) == ((), "kafka.test:9092")
    assert Kafka("kafka2").absent(instance) == "external: kafka.test:9092"


def test_without_the_variable_kafka_is_ours_again(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    instance.external_kafka = "kafka.test:9092"  # as an earlier start has noted it

    instance.choose_kafka()

    assert instance.brokers == ("kafka",)


def test_brokers_start_together_and_before_the_poller() -> None:
    assert with_needs(["kafka2"]) == list(BROKERS)
    assert set(BROKERS) < set(with_needs(["poller"]))


def test_a_broker_that_the_instance_does_not_have_is_no_part_of_it(instance: Instance) -> None:
    assert part_named("kafka").absent(instance) is None
    with pytest.raises(StackError, match="scripts/up --brokers 3"):
        Stack(instance).stop("kafka3")
