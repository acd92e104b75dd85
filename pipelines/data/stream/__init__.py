"""Reading, checking and splitting interactions that are larger than memory.

Rows are checked in chunks, divided by user into blocks, and settled a block at a time: what
decides on a row is in the row itself or in the other rows of its user. The one thing that is not,
where time cuts the split, is found by DuckDB, which sorts on disk.
"""
