"""What one concert's line costs and bears: joins a second, 100,000 people at once, the polls of 1,000 to 1,000,000.

``scripts/bench --line`` runs it on the benchmarks' instance; ``load/line.md`` has what came of it.
"""
