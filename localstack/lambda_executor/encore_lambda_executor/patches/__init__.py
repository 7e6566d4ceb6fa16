"""Small changes to LocalStack 4.14.0, one file and one reason each. The version is pinned, so they cannot drift.

NEEDED ones mend what would be wrong and always apply. SPEED ones leave every answer as it is and only make it come
sooner; ENCORE_LOCALSTACK_PATCHES says which of them apply. A patch is a module with `REPLACES`, what it puts its own
in the place of (`module:attribute`), and `apply()`.
"""

import importlib
from collections.abc import Mapping

NEEDED = (
    "keep_events_at_updates",
    "keep_s3_objects_in_instance",
    "tag_rest_apis",
    "update_alarms",
    "wait_briefly_for_functions",
)
SPEED = (
    "metrics_in_batches",
    "lambda_in_process",
    "logs_in_batches",
    "one_keepalive_thread",
    "answer_in_one_hop",
    "no_access_log",
    "randomness_in_stock",
)

SWITCH = "ENCORE_LOCALSTACK_PATCHES"


class UnknownPatch(ValueError):
    """The switch names a patch that does not exist."""


def chosen(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The speed patches that the switch turns on: `all` (also when unset or empty), `none`, or names with commas.

    Raises UnknownPatch.
    """
    text = environment.get(SWITCH, "").strip() or "all"
    if text in ("all", "none"):
        return SPEED if text == "all" else ()
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in SPEED]:
        raise UnknownPatch(f"{SWITCH}: there is no patch '{unknown[0]}'; say all, none, or some of {','.join(SPEED)}")
    return tuple(name for name in SPEED if name in names)


def apply_patches(environment: Mapping[str, str]) -> None:
    """Applies the needed patches and the chosen ones; called once, before LocalStack serves. Raises UnknownPatch."""
    for name in (*NEEDED, *chosen(environment)):
        importlib.import_module(f"{__name__}.{name}").apply()


def who_answers() -> dict[str, dict[str, str]]:
    """For each speed patch what it replaces, and the module whose code is in that place now, looked up afresh."""
    answer = {}
    for name in SPEED:
        replaces = importlib.import_module(f"{__name__}.{name}").REPLACES
        answer[name] = {place: _module_in(place) for place in replaces}
    return answer


def _module_in(place: str) -> str:
    module, _, path = place.partition(":")
    found = importlib.import_module(module)
    for attribute in path.split("."):
        found = getattr(found, attribute)
    return str(found.__module__)
