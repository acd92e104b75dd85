"""Candidates for every user of a table, from Parquet to Parquet."""
