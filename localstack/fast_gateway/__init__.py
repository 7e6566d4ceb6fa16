"""A fast local gateway, for measuring the bundle instead of the emulator.

It serves the template's own routes with the same Chalice apps that LocalStack deploys, in threads of a few worker
processes. It builds the event that API Gateway (REST, proxy integration) would send and answers as API Gateway would.
What it leaves out: no Lambda layer, no cold start, no environment per request, and a function's time limit is told to
it but not enforced. Figures measured here are the bundle's; report them apart from LocalStack's.

Run it with `python -m fast_gateway` (PYTHONPATH=localstack:layers/booking, the functions' ENCORE_* environment).
ENCORE_GATEWAY_PORT (8000), ENCORE_GATEWAY_WORKERS (2), and for each worker ENCORE_GATEWAY_THREADS (512 at most:
requests at once, with those that wait for a payment firm) and ENCORE_GATEWAY_CONNECTIONS (16 to each Postgres server)
set it up.
`GET /healthz` is its own; every other path is the template's.
"""
