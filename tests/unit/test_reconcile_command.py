"""What scripts/reconcile tells of differences between the books and the payments, and how it ends."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from booking.operations.reconciliation import Difference, Facts, Kind, Reconciliation, Remedy, State, judge
from encore_stack.commands import reconcile
from encore_stack.commands.reconcile import as_line, as_text, run

CAPTURED_ONLY_HERE = Facts(
    gateway="danal", key="k-1", order_id="r-1", charged=0, refunded=0, book_currency="KRW", charges_of_order=0,
    payment_gateway="danal", reservation_id="r-1", amount=7_000, currency="KRW", status="captured", in_flight=False,
)  # fmt: skip
LOST = replace(
    CAPTURED_ONLY_HERE, key="00000000-0000-4000-8000-000000000001", charged=7_000, charges_of_order=2,
    payment_gateway=None, reservation_id=None, amount=None, currency=None, status=None,
)  # fmt: skip
IN_FLIGHT = replace(CAPTURED_ONLY_HERE, charged=7_000, charges_of_order=1, status="pending", in_flight=True)


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What the reconciliation finds."""

    def find(*differences: Difference, unread: dict[str, str] | None = None) -> None:
        found = Reconciliation({"danal": 3, "payco": 0}, unread or {}, list(differences))
        monkeypatch.setattr(reconcile, "reconcile", lambda server, urls, heal, progress: found)

    monkeypatch.setattr(reconcile, "adopt_settings", lambda _: None)
    monkeypatch.setattr(reconcile.Instance, "load_existing", lambda: None)
    monkeypatch.setattr(reconcile, "settings", lambda: type("Settings", (), {"database_url": "postgresql://a:b@c:1/d"}))
    monkeypatch.setattr(reconcile, "book_urls", dict)
    return find


def test_books_that_agree_end_with_0(finds: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    finds()

    assert run([]) == 0
    assert "new entries: 3 in the book of danal, 0 in the book of payco" in (told := capsys.readouterr().out)
    assert told.endswith("the books and the payments agree\n")


def test_a_difference_is_told_with_what_to_do_and_ends_with_1(
    finds: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    finds(judge(CAPTURED_ONLY_HERE), judge(IN_FLIGHT))

    assert run([]) == 1
    told = capsys.readouterr().out
    assert (
        "captured here, not at the firm\n  danal: nothing under k-1 for r-1; here it is captured, 7,000 KRW\n" in told
    )
    assert "  -> the ticket is not paid for" in told
    assert "in flight (younger than 60 s, or paying)\n  danal: 7,000 KRW charged under k-1 for r-1; here it is" in told
    assert "differences: 1 (0 healed, 1 in flight)" in told and "agree" not in told


def test_what_is_in_flight_or_healed_is_no_difference(finds: Callable[..., None]) -> None:
    healed = judge(LOST)
    healed.state = State.HEALED
    finds(judge(IN_FLIGHT), healed)

    assert run(["--heal"]) == 0
    assert (healed.kind, healed.remedy) == (Kind.CHARGED_TWICE, Remedy.SEND_BACK)
    assert as_line(healed).endswith("here there is no such payment; that reservation has 2 charges (sent back)")


def test_a_book_that_cannot_be_read_ends_with_2(finds: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    finds(judge(CAPTURED_ONLY_HERE), unread={"payco": "the book of payco cannot be read"})

    assert run([]) == 2
    captured = capsys.readouterr()
    assert "error: the book of payco cannot be read; the payments at payco are not looked at" in captured.err
    assert "captured here, not at the firm" in captured.out


def test_machines_get_every_difference(finds: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    finds(*[judge(CAPTURED_ONLY_HERE)] * 12)

    assert run(["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert len(report["differences"]) == 12
    assert report["differences"][0].items() >= {"kind": "not_charged", "state": "left", "key": "k-1"}.items()
    assert "… and 2 more (--json shows all)" in as_text(Reconciliation({}, {}, [judge(CAPTURED_ONLY_HERE)] * 12))
