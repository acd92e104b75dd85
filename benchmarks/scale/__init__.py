"""Data larger than memory: interactions at scale, and what a run on them takes."""
