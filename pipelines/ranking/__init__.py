"""The second stage: a ranker is trained, compared with recall's own order, and published."""
