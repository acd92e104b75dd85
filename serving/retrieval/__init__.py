"""A loaded version: what it answers, why, and what was added to it since."""
