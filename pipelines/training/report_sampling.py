"""Report what a fit sampled: where its negatives came from, and which of them were hard."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.training.fit import Record
from towers.negatives import Source


def report_sampling(records: tuple[Record, ...]) -> dict[str, Any]:
    """Mean figures over the epochs of what was sampled: shares by source, popularity, violators.

    Empty where nothing was trained.
    """
    trained = [record for record in records if record["epoch"]]
    if not trained:
        return {}

    def mean(name: str) -> float:
        return float(np.mean([record[name] for record in trained]))

    sources = [source.name.lower() for source in Source]
    return {
        "items": {
            "chosen in training, which negatives are drawn from": mean("items_sampled_from"),
            "never chosen, which are no negatives": mean("items_never_chosen"),
        },
        "share of sampled negatives": {name: mean(f"sampled_{name}") for name in sources},
        "share of shared negatives left out": {
            "the user's own, or not there yet when the query asks": mean("left_out"),
        },
        "share of hardest negatives": {name: mean(f"hardest_{name}") for name in sources},
        "mean popularity": {
            "positives": mean("popularity_of_positives"),
            "sampled negatives": mean("popularity_of_sampled"),
            "hardest negatives": mean("popularity_of_hardest"),
        },
        "violators": {"share of pairs within the margin": mean("violators")},
    }
