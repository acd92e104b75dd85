"""What runs in a peer's own environment: it sees the training split, and writes vectors.

Nothing here imports this product, which the peers' environments do not hold.
"""
