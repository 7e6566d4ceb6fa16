"""Benchmarks: each step and its main statements beside their floors, measured in one run and told as ratios."""
