"""The SavedModels of a version: their graphs, their names, their first requests."""
