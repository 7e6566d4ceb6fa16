"""From the committed payment to the ticket: the outbox relay, and the consumer that issues tickets.

Import ``tickets.relay`` or ``tickets.consumer`` by name: the relay alone needs the Kafka client.
"""
