"""How fast an index finds enough, beside other indexes: `python -m benchmarks.index`."""
