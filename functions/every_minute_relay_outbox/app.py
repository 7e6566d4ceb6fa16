"""Every minute, for a little over a minute: publish the outbox to Kafka, ten times a second."""

from booking.platform.loops import run_loop
from booking.tickets.relay import Relay


def handler(event, context):
    with Relay() as relay:
        return run_loop("relay_outbox", 0.1, relay.publish_batch)
