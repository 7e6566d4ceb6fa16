"""What the drills about money and events measure, and where Kafka's replicas are moved to."""

import json
from pathlib import Path

import pytest

from drills.harness.books import Movement, charged_twice
from drills.harness.events import has_passed
from drills.harness.evidence import Evidence, Mark
from drills.harness.money import nobody_is_charged_twice
from drills.harness.watch import OUTBOX_AGE, Sample
from encore_stack.instance import Instance
from encore_stack.kafka_replicas import CannotMove, Partition, on_all, without


def moved(firm: str, kind: str, at: str, order_id: str = "order") -> Movement:
    return Movement(firm, kind, f"{firm}-key", order_id, at)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("books", "twice"),
    [
        ([("danal", "charge", "1")], []),
        ([("danal", "charge", "1"), ("payco", "charge", "2")], ["order"]),
        ([("danal", "charge", "1"), ("danal", "refund", "2"), ("payco", "charge", "3")], []),
        ([("danal", "charge", "1"), ("payco", "charge", "2"), ("danal", "refund", "3")], ["order"]),
        ([("danal", "charge", "1"), ("danal", "charge", "2")], ["order"]),
    ],
)
def test_two_charges_at_one_moment_are_one_too_many(books: list[tuple[str, str, str]], twice: list[str]) -> None:
    assert charged_twice(moved(*one) for one in books) == twice


def test_who_is_charged_twice_is_found_among_others() -> None:
    books = [moved("danal", "charge", "1", "a"), moved("payco", "charge", "2", "b"), moved("payco", "charge", "3", "a")]
    seen = Evidence(0, books=books)

    assert charged_twice(books) == ["a"]
    assert nobody_is_charged_twice().measure(seen) == 1


def test_books_that_could_not_be_read_prove_nothing() -> None:
    assert nobody_is_charged_twice().measure(Evidence(0)) is None


def test_it_is_over_from_the_moment_on_from_which_it_stays_low() -> None:
    ages = [(10, 0.1), (11, 5.0), (12, 0.2), (13, 4.0), (14, 0.3), (15, 0.1)]
    seen = Evidence(0, samples=[Sample(at_s, {OUTBOX_AGE: age_s}) for at_s, age_s in ages])
    seen.marks.append(Mark(11, "break", ""))

    assert seen.most(OUTBOX_AGE) == 5.0
    assert seen.from_when(OUTBOX_AGE, at_most=1, from_s=11) == 14
    assert seen.from_when(OUTBOX_AGE, at_most=0.1, from_s=11) == 15
    assert seen.from_when(OUTBOX_AGE, at_most=0, from_s=11) is None


def test_a_broker_gives_its_replicas_to_the_others_and_gets_them_back() -> None:
    partition = Partition("events", 4, 1, (1, 2, 3), (1, 2, 3))

    assert without(partition, 1) == [2, 3]
    assert without(partition, 7) is None
    assert on_all(partition, [1, 2, 3]) is None
    assert on_all(Partition("events", 4, 2, (2, 3), (2, 3)), [1, 2, 3]) == [2, 3, 1]


def test_a_broker_is_not_isolated_where_too_few_would_be_left_in_sync() -> None:
    with pytest.raises(CannotMove, match="events-4"):
        without(Partition("events", 4, 1, (1, 2, 3), (1, 2)), 1)


@pytest.mark.parametrize(("tickets", "sales", "passed"), [(8, 8, True), (7, 8, False), (8, None, False)])
def test_a_record_is_passed_when_every_consumer_has_it_behind_it(
    tmp_path: Path, tickets: int | None, sales: int | None, passed: bool
) -> None:
    instance = Instance("drill", tmp_path)
    assert not has_passed(instance, 3, 7), "the poller has not said anything yet"
    instance.run_dir.mkdir(parents=True)
    others = {"partition": 4, "committed": 100}
    mappings = [{"partitions": [{"partition": 3, "committed": committed}, others]} for committed in (tickets, sales)]
    (instance.run_dir / "poller.json").write_text(json.dumps({"mappings": mappings}))

    assert has_passed(instance, 3, 7) == passed
