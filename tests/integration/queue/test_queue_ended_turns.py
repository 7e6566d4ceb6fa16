"""Turns that ended while the line could not be told: the background loop frees their slots from Postgres's record."""

import pytest

from booking.platform.postgres import primary
from booking.queue import Pass, read_pass
from booking.queue.admissions import copy_admissions, keep_lines_moving
from booking.queue.ended_turns import free_ended_slots
from booking.queue.line import TurnOver


def paid_untold(shopper: Pass) -> None:
    """What a payment's transaction records, without the call to the line that follows it."""
    primary().rows(
        "select end_admission(:pass_id, :concert_id, :person, 'paid', clock_timestamp())",
        pass_id=shopper.pass_id,
        concert_id=shopper.concert_id,
        person=shopper.person,
    )


@pytest.mark.parametrize("is_copied", [True, False], ids=["recorded", "not recorded yet"])
def test_the_slot_of_a_turn_that_the_line_takes_for_open_is_freed(open_line, is_copied):
    line = open_line(capacity=2)
    paid, _ = read_pass(line.join("ann").shop_pass), line.join("eve")
    line.join("bob")
    if is_copied:
        copy_admissions()
    paid_untold(paid)
    assert line.poll("bob").state == "waiting"  # or there is nothing to free

    assert free_ended_slots(line.concert_id) == 1

    assert line.poll("bob").state == "admitted"
    assert line.poll("eve").state == "admitted"
    with pytest.raises(TurnOver):
        line.poll("ann")
    assert [turn["end_reason"] for turn in line.admissions()] == ["paid", None, None]


def test_a_line_whose_turns_are_all_open_or_told_is_left_alone(open_line):
    line = open_line(capacity=2)
    assert free_ended_slots(line.concert_id) == 0
    line.join("ann")
    line.join("eve")
    line.leave("eve")
    copy_admissions()

    assert free_ended_slots(line.concert_id) == 0
    assert line.inside() == 1


def test_the_background_loop_frees_them(open_line):
    line = open_line(capacity=1)
    paid = read_pass(line.join("ann").shop_pass)
    line.join("bob")
    paid_untold(paid)

    keep_lines_moving()

    assert line.poll("bob").state == "admitted"
