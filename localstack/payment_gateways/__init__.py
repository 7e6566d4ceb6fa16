"""Simulated payment gateways: `danal` and `payco` are two processes of this one program.

Nothing here talks to the real firms and no money moves; every page, answer and log line says so. What is real is the
contract that a payment client must survive: idempotency keys, a persisted book, and faults that can be switched on.

Run one with `python -m payment_gateways --name danal --port 18081 --book DIR`.
"""
