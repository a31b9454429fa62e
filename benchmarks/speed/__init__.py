"""Speed and memory in figures; ``python -m benchmarks.speed --help``."""
