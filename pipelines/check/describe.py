"""Describe prepared tables: parts, interactions per user and item, what is cold, and when."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.blocks import PARTS
from pipelines.data.prepare import Prepared
from pipelines.data.store_blocks import StoredInteractions

QUANTILES = {"min": 0.0, "p10": 0.1, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9}
QUANTILES |= {"p99": 0.99, "max": 1.0}
SLICES = 30
"""How many slices of time the split is drawn in."""


def describe(prepared: Prepared, *, cold_below: int) -> dict[str, Any]:
    """Describe prepared tables as plain values.

    Args:
        prepared: users, items and interactions.
        cold_below: an item with fewer training interactions is cold.
    """
    stored = {part: prepared.stored(part) for part in PARTS}
    all_parts = prepared.stored(*PARTS)
    return {
        "parts": {
            part: {
                "interactions": int(one.item_counts.sum()),
                "users": int((one.user_counts > 0).sum()),
                "items": int((one.item_counts > 0).sum()),
            }
            for part, one in stored.items()
        },
        "per user": quantiles(all_parts.user_counts),
        "per item": quantiles(all_parts.item_counts),
        "density": float(
            all_parts.item_counts.sum() / max(len(prepared.users) * len(prepared.items), 1)
        ),
        "cold": _cold(stored["train"], stored["test"], cold_below=cold_below),
        "times": draw_times(stored) if all_parts.has_times else None,
    }


def quantiles(counts: NDArray[np.int64]) -> dict[str, float]:
    """The quantiles of counts, their mean, and how many are 0 and 1."""
    given = counts[counts > 0]
    found = {
        name: float(np.quantile(given, q)) if len(given) else 0.0 for name, q in QUANTILES.items()
    }
    return found | {
        "mean": float(given.mean()) if len(given) else 0.0,
        "none": int((counts == 0).sum()),
        "one": int((counts == 1).sum()),
    }


def _cold(
    train: StoredInteractions, test: StoredInteractions, *, cold_below: int
) -> dict[str, Any]:
    """What share of the test is of users and items that training does not know, or hardly."""
    item_counts, user_counts = train.item_counts, train.user_counts
    n_test = max(int(test.item_counts.sum()), 1)
    of_items = test.item_counts
    test_users = test.user_counts > 0
    return {
        "test interactions with items of no training interaction": float(
            of_items[item_counts == 0].sum() / n_test
        ),
        f"test interactions with items of fewer than {cold_below}": float(
            of_items[item_counts < cold_below].sum() / n_test
        ),
        "test users without a training interaction": float(
            (test_users & (user_counts == 0)).sum() / max(int(test_users.sum()), 1)
        ),
        "items without any training interaction": float((item_counts == 0).mean()),
    }


def draw_times(stored: dict[Any, StoredInteractions]) -> dict[str, Any]:
    """Count the interactions of each part in slices of time.

    Of interactions in many blocks, those of the first block count, whose users are a random sample
    of all.
    """
    times = {part: one.item_times(0)[1] for part, one in stored.items()}
    everything = np.concatenate(list(times.values()))
    everything = everything[~np.isnan(everything)]
    if not len(everything):
        return {"edges": [], "counts": {part: [] for part in times}}
    edges = np.linspace(everything.min(), everything.max(), SLICES + 1)
    return {
        "edges": edges.tolist(),
        "counts": {part: np.histogram(found, edges)[0].tolist() for part, found in times.items()},
        "from": {part: float(t.min()) if len(t) else None for part, t in times.items()},
    }
