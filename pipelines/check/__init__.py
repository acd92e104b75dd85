"""Check a configuration and its tables without training: what is there, and what to mind."""
