"""From the committed payment to the ticket: the outbox relay, the consumer that issues tickets, and the notices.

Import ``tickets.relay``, ``tickets.consumer`` or ``tickets.notices`` by name: the relay alone needs the Kafka client.
"""

from booking.sales import SALES_CONSUMER

TICKET_CONSUMER = "tickets"
CONSUMERS = (TICKET_CONSUMER, SALES_CONSUMER)
"""Whom every event of a reservation must reach, by their names in the inbox."""
