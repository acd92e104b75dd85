"""A fitted model made servable: its files, its indexes, and their check against exact search."""
