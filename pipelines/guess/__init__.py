"""Look at tables as they come, and write the configuration of a first run on them."""
