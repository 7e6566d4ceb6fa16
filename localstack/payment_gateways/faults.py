"""The fault panel: what a gateway does wrong on purpose. Kept in memory: a restarted gateway is well again."""

from enum import StrEnum
from typing import Annotated

import msgspec


class Mode(StrEnum):
    """How the gateway misbehaves, beside `delay_ms` and `error_rate`."""

    OK = "ok"
    REFUSE = "refuse"
    """Connections are refused: the listening socket is closed. Nothing is booked and the client knows it."""
    RESET = "reset"
    """The request is read and the connection cut. Nothing is booked, but the client cannot know that."""
    DECLINE = "decline"
    """Every new charge is declined."""
    APPROVE_THEN_HANG = "approve_then_hang"
    """Charges are booked and never answered. Queries and cancels are answered."""
    DUPLICATE = "duplicate"
    """The result is sent to the payment's `callback_url` twice instead of once. Booked once all the same."""


DelayMs = Annotated[int, msgspec.Meta(ge=0, le=60_000)]
ErrorRate = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Faults(msgspec.Struct, frozen=True):
    """A request keeps the faults that were set when it arrived, whatever the panel says afterwards."""

    delay_ms: DelayMs = 0
    error_rate: ErrorRate = 0.0
    mode: Mode = Mode.OK


class FaultsChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `PUT /_faults`: a field that is left out stays as it is."""

    delay_ms: DelayMs | msgspec.UnsetType = msgspec.UNSET
    error_rate: ErrorRate | msgspec.UnsetType = msgspec.UNSET
    mode: Mode | msgspec.UnsetType = msgspec.UNSET

    def applied_to(self, faults: Faults) -> Faults:
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not msgspec.UNSET}
        return msgspec.structs.replace(faults, **given)
