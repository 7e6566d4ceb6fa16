"""Complete bookings: 120 a second for a minute with every event drained, and payments over firms that think for 750 ms.

``scripts/bench --bookings`` runs it on the benchmarks' instance; ``load/bookings.md`` has what came of it.
"""
