"""What a run will do, decided before it starts: how many buyers, when they come, what each of them does."""

import csv
import heapq
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

Target = Literal["gateway", "localstack"]

USERS_MAX = 5_000
DURATION_S_MAX = 900
SPARE_SEATS = 0.25
"""More seats must be free than are wanted, by this share: people who want the same seats need others to turn to."""

_SEATS_WANTED = (1, 2, 2, 4, 1, 2, 3, 2)
_DECLINED_EVERY, _REPEATS_EVERY, _LEAVES_EVERY = 12, 15, 25


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of run. ``think_scale`` shortens or stretches the pauses in which a buyer thinks (1: 3 to 10 s in all)."""

    name: str
    users: int
    duration_s: int
    think_scale: float
    some_leave: bool
    timeout_s: int = 30
    """A buyer's patience with one request; API Gateway itself gives up after 29 s."""
    patience_s: int = 180
    """A buyer's patience with the whole purchase."""

    def with_load(self, users: int | None, duration_s: int | None, think_scale: float | None) -> "Profile":
        """With what was asked for instead. Raises UnusableLoad."""
        chosen = replace(
            self,
            users=self.users if users is None else users,
            duration_s=self.duration_s if duration_s is None else duration_s,
            think_scale=self.think_scale if think_scale is None else think_scale,
        )
        if not 1 <= chosen.users <= USERS_MAX:
            raise UnusableLoad(f"--users must be from 1 to {USERS_MAX:,}")
        if not 1 <= chosen.duration_s <= DURATION_S_MAX:
            raise UnusableLoad(f"--duration must be from 1 to {DURATION_S_MAX} seconds")
        if not 0 <= chosen.think_scale <= 10:
            raise UnusableLoad("--think must be from 0 (nobody thinks) to 10")
        return chosen

    @property
    def ends_within_s(self) -> int:
        """When the last buyer has lost patience, with a margin for artillery's own start and end."""
        return self.duration_s + self.patience_s + 60


SMOKE = Profile("smoke", users=8, duration_s=4, think_scale=0.1, some_leave=False)
STEPS = Profile("steps", users=150, duration_s=60, think_scale=1, some_leave=True)
PROFILES = {profile.name: profile for profile in (SMOKE, STEPS)}


class UnusableLoad(ValueError):
    """The load asked for is out of bounds; the message says which bound."""


class NotEnoughSeats(Exception):
    """The concerts on sale have too few free seats for the run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One buyer; ``leaves`` says where they give up: in the shop ("line"), with seats held ("reservation"), or ""."""

    user_id: str
    concert_id: int
    seats: int
    method: str
    leaves: str
    repeats: str
    """ "yes" for a buyer who sends steps 6 and 7 twice with the same key."""


def plan_buyers(profile: Profile, free_seats: Mapping[int, int]) -> list[Planned]:
    """The buyers of a run, spread over the concerts by their free seats. Raises NotEnoughSeats.

    The shares are the same in every run: of 150 buyers 12 leave, 13 are declined first, 10 press the buttons twice.
    """
    wanted = [_SEATS_WANTED[nth % len(_SEATS_WANTED)] for nth in range(profile.users)]
    free = sum(free_seats.values())
    if sum(wanted) * (1 + SPARE_SEATS) > free:
        raise NotEnoughSeats(_too_few(wanted, free))
    emptiest = [(-seats, concert_id) for concert_id, seats in free_seats.items()]
    heapq.heapify(emptiest)
    buyers = []
    for nth, seats in enumerate(wanted):
        left, concert_id = emptiest[0]
        heapq.heapreplace(emptiest, (left + seats, concert_id))
        leaves = {8: "line", 20: "reservation"}.get(nth % _LEAVES_EVERY, "") if profile.some_leave else ""
        method = "card_declined" if nth % _DECLINED_EVERY == 3 else "card"
        repeats = "yes" if nth % _REPEATS_EVERY == 5 else ""
        buyers.append(Planned(secrets.token_hex(16), concert_id, seats, method, leaves, repeats))
    return buyers


def arrivals(profile: Profile) -> list[dict[str, Any]]:
    """Artillery's phases: a ramp in thirds of the time with 1/6, 2/6 and 3/6 of the buyers; together exactly all."""
    first, second = profile.users // 6, profile.users // 3
    counts = {"few": first, "more": second, "most": profile.users - first - second}
    return [
        {"name": name, "duration": f"{profile.duration_s * 1000 // 3}ms", "arrivalCount": count}
        for name, count in counts.items()
        if count
    ]


def artillery_config(profile: Profile, url: str, buyers_file: Path, ensure: Mapping[str, Any]) -> dict[str, Any]:
    """The config that joins ``steps.yml``: where to, when, who, and the thresholds (``ensure``)."""
    return {
        "config": {
            # Artillery looks for it beside this config, which lies with the report.
            "processor": str(Path(__file__).with_name("buyer.mjs")),
            "target": url.rstrip("/"),
            "phases": arrivals(profile),
            "payload": {
                "path": str(buyers_file),
                "fields": list(Planned.__dataclass_fields__),
                "skipHeader": True,
                "order": "sequence",
                # As text: a user id of digits and one e would else arrive as a number.
                "cast": False,
            },
            "variables": {
                "think_scale": profile.think_scale,
                "timeout_s": profile.timeout_s,
                "patience_s": profile.patience_s,
            },
            "plugins": {"ensure": {}},
            "ensure": dict(ensure),
        }
    }


def write_buyers(buyers: Sequence[Planned], path: Path) -> None:
    """The list as artillery reads it: CSV with a header."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(Planned.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(buyer) for buyer in buyers)


def _too_few(wanted: Sequence[int], free: int) -> str:
    fits = 0
    needed = 0.0
    for seats in wanted:
        needed += seats * (1 + SPARE_SEATS)
        if needed > free:
            break
        fits += 1
    smaller = f", or --users {fits}" if fits else ""
    return (
        f"{len(wanted):,} buyers want {sum(wanted):,} seats and {SPARE_SEATS:.0%} to spare;"
        f" the concerts on sale have {free:,} free. More seats: scripts/seed --full{smaller}"
    )
