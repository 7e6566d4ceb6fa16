"""On a reads command: send the hot reads of a concert to the database, or back to the cache. For what watches the sale
and answers incidents; people use scripts/reads.

The event is {"concert_id", "source", "reason"?, "by"?}; the answer says whether the readers know.
"""

from dataclasses import asdict
from typing import Annotated, Any

import msgspec
from aws_lambda_powertools.utilities.typing import LambdaContext
from msgspec import Meta

from booking.platform.telemetry import logger
from booking.seats.reads import Source, change_reads


class ReadsCommand(msgspec.Struct, forbid_unknown_fields=True):
    concert_id: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    source: Source
    reason: Annotated[str, Meta(max_length=500)] = ""
    by: Annotated[str, Meta(min_length=1, max_length=100)] = "on_reads_command"


@logger().inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    command = msgspec.convert(event, ReadsCommand)
    change = change_reads(command.concert_id, command.source, by=command.by, reason=command.reason)
    logger().info("reads changed", command=msgspec.to_builtins(command), in_force=change.in_force)
    return asdict(change)
