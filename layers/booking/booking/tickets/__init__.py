"""From the committed payment to the ticket: the outbox relay, and the consumer that issues tickets.

Import ``tickets.relay`` or ``tickets.consumer`` by name: the relay alone needs the Kafka client.
"""

TICKET_CONSUMER = "tickets"
SALES_CONSUMER = "tickets"
"""Who keeps the counters: the same one."""
CONSUMERS = tuple(sorted({TICKET_CONSUMER, SALES_CONSUMER}))
"""Whom every event of a reservation must reach, by their names in the inbox."""
