"""Columns of raw values: what each value of a table is, and which cannot be read."""
