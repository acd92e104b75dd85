"""The steps of a preparation: what is done to each chunk of rows, and to each block of users.

A step reads files and writes files, so that it does not matter where it is carried out, in which
order, or how often. What sorts, groups or joins rows in it is DuckDB.
"""
