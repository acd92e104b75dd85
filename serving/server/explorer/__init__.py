"""The explorer: its page, and the routes that the page asks."""
