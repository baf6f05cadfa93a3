"""What `scripts/benchmark.py` times: plain implementations, and how to time them."""
