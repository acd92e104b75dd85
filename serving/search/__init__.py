"""Vectors found by inner product: exactly or nearly, filtered, and while they change."""
