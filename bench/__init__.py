"""Benchmarks: ours, the ceiling and the peers in one run, as ratios."""
