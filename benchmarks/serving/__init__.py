"""How fast a large version is served: `python -m benchmarks.serving`."""
