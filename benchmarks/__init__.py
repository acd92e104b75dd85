"""Measurements: each prints what it claims, beside a baseline run on the same machine."""
