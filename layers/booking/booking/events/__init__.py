"""How reservation events are consumed: a batch in one transaction, each event once for each consumer, and what keeps
failing set aside as a dead letter.

Consumers (``tickets``, ``sales``) say what a batch of events does, in one SQL function each.
"""
