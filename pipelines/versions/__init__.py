"""What is asked of published versions offline: their figures on a table, what differs, vectors."""
