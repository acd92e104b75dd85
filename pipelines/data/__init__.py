"""Tables in, rows and bags out: reading, checking, splitting, in memory or on disk."""
