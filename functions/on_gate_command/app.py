"""On a gate command: turn a concert's gate. For what watches the sale and answers incidents; people use scripts/gate.

The event is {"concert_id", "action", "value"?, "reason"?, "by"?}; the answer says what is in force now. A new epoch,
which throws the whole line out, is for people alone.
"""

from dataclasses import asdict
from typing import Annotated, Any, Literal

import msgspec
from aws_lambda_powertools.utilities.typing import LambdaContext
from msgspec import Meta

from booking.platform.problems import Refusal
from booking.platform.telemetry import logger
from booking.queue.gate import change_gate


class GateCommand(msgspec.Struct, forbid_unknown_fields=True):
    concert_id: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    action: Literal["capacity", "rate", "pause", "resume", "message", "open", "close"]
    value: str | int | float | None = None
    reason: Annotated[str, Meta(max_length=500)] = ""
    by: Annotated[str, Meta(min_length=1, max_length=100)] = "on_gate_command"


@logger().inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    try:
        command = msgspec.convert(event, GateCommand)
        change = change_gate(command.concert_id, command.action, command.value, by=command.by, reason=command.reason)
    except (msgspec.ValidationError, Refusal) as refused:
        # What Lambda reports of it has no time and does not say who asked for what.
        logger().error("gate command refused", command=event, reason=str(refused))
        raise
    logger().info("gate changed", command=msgspec.to_builtins(command), in_force=change.in_force)
    return asdict(change)
