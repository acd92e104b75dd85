"""A published version on disk: its files, its checksums, its SavedModels."""
