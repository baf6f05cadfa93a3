"""Plain implementations and timing for `scripts/benchmark.py`."""
