"""What an incident does to the payment firms: their fault panels."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import httpx

from drills.harness.scene import Scene
from drills.harness.watch import FIRMS
from encore_stack.instance import Instance
from encore_stack.parts.simple import fault_panel

_TIMEOUT_S = 5.0


def set_faults(instance: Instance, firm: str, **faults: Any) -> None:
    """Set the firm's fault panel (delay_ms, error_rate, mode). Raises httpx.HTTPError."""
    httpx.put(fault_panel(instance, firm), json=faults, trust_env=False, timeout=_TIMEOUT_S).raise_for_status()


def clear_faults(instance: Instance, firms: Sequence[str] = FIRMS) -> None:
    """The firms are well again; requests already in keep their faults. Raises httpx.HTTPError."""
    for firm in firms:
        httpx.delete(fault_panel(instance, firm), trust_env=False, timeout=_TIMEOUT_S).raise_for_status()


async def break_firms(scene: Scene, firms: Sequence[str], words: str, **faults: Any) -> None:
    """From now on these firms have these faults; at the end of the incident they are well, however it ends."""
    instance = scene.stage.instance
    scene.undo_later(lambda: clear_faults(instance))
    scene.breaks(words)
    for firm in firms:
        await scene.do(partial(set_faults, instance, firm, **faults))


async def heal_firms(scene: Scene, words: str) -> None:
    """All firms are well."""
    await scene.do(lambda: clear_faults(scene.stage.instance))
    scene.healed(words)
