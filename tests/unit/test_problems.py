"""Refusals: every one that the code can raise is a complete problem of a stable type."""

import importlib
import json
import pkgutil
from collections.abc import Iterator

import pytest

import booking
from booking.platform.problems import Refusal


def every_refusal() -> Iterator[type[Refusal]]:
    for module in pkgutil.walk_packages(booking.__path__, "booking."):
        if module.name != "booking.platform.migrate":
            importlib.import_module(module.name)
    kinds = [Refusal]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind is not Refusal:
            yield kind


@pytest.mark.parametrize("kind", sorted(every_refusal(), key=lambda kind: kind.__qualname__))
def test_a_refusal_is_a_complete_problem(kind: type[Refusal]) -> None:
    problem = json.loads(kind("in detail", extra=1).body())

    assert problem["type"] == f"/problems/{kind.slug}"
    assert problem["title"] and not problem["title"].endswith(".")
    assert 400 <= problem["status"] <= 599
    assert problem["detail"] == "in detail"
    assert problem["extra"] == 1
    if problem["status"] == 503:
        assert "Retry-After" in kind().headers()


def test_no_two_refusals_share_a_type_with_different_statuses() -> None:
    statuses: dict[str, set[int]] = {}
    for kind in every_refusal():
        statuses.setdefault(kind.slug, set()).add(kind.status)

    assert {slug: found for slug, found in statuses.items() if len(found) > 1} == {}
