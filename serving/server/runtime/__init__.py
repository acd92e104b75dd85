"""The process that serves: the loaded version, its queue, limits, metrics and listeners."""
