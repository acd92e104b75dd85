"""Fitting a model: its start, its batches, its epochs, and the negatives that it mines."""
