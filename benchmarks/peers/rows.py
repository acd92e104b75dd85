"""The rows of the comparison, and the settings of every peer, in one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

POPULARITY = "popularity"
"""The row of the popularity baseline: nothing is trained."""
PRODUCT = "fm-recall"
"""The row of this product: `fm-recall run` on the data set's TOML file."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A tool to compare with: where it is installed, which worker trains it, and how."""

    title: str
    """What the table calls it."""
    environment: str
    """Names the environment, and the file of `requirements/` that it is made from."""
    worker: str
    """The module that trains it."""
    settings: Mapping[str, Any]
    """What the worker trains with."""
    settings_on: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    """What differs on a data set, by its name."""
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Environment variables that the tool needs."""

    def settings_for(self, data: str) -> dict[str, Any]:
        """The settings on the data set `data`."""
        return {**self.settings, **self.settings_on.get(data, {})}


PEERS: Mapping[str, Peer] = {
    # Confidence and regularization: alpha 1 to 80 by regularization 0.01 to 50 on Gowalla, 1 to 10
    # by 0.01 to 400 on MovieLens, where d = 48, 96 and 128 were no better. On Gowalla 4 iterations
    # come within 0.002 of 15. On completejourney, on the validation part: d = 32 and
    # 64, alpha 1, 5 and 20 by regularization 10, 100 and 500.
    "implicit-als": Peer(
        title="implicit ALS",
        environment="implicit",
        worker="benchmarks.peers.workers.implicit_als",
        settings={"factors": 128, "regularization": 30.0, "alpha": 50.0, "iterations": 15},
        settings_on={
            "movielens-1m": {
                "factors": 64,
                "regularization": 150.0,
                "alpha": 4.5,
                "iterations": 10,
            },
            "completejourney": {
                "factors": 32,
                "regularization": 10.0,
                "alpha": 1.0,
                "iterations": 8,
            },
        },
        variables={"OPENBLAS_NUM_THREADS": "1"},  # implicit asks for it: it has threads of its own
    ),
    # Learning rate 0.01 to 0.1 by regularization 0.001 to 0.05 on Gowalla, 0.002 to 0.05 by 0.01 to
    # 0.1 on MovieLens: the smallest rates are the best.
    "implicit-bpr": Peer(
        title="implicit BPR",
        environment="implicit",
        worker="benchmarks.peers.workers.implicit_bpr",
        settings={
            "factors": 128,
            "learning_rate": 0.01,
            "regularization": 0.01,
            "iterations": 100,
        },
        settings_on={
            "movielens-1m": {
                "factors": 64,
                "learning_rate": 0.002,
                "regularization": 0.01,
                "iterations": 100,
            }
        },
        variables={"OPENBLAS_NUM_THREADS": "1"},
    ),
    # The settings of the paper: 256 directions, and .3 of the second filter.
    "graph-filter": Peer(
        title="graph filter, GF-CF",
        environment="implicit",  # of which it needs NumPy and SciPy
        worker="benchmarks.peers.workers.graph_filter",
        settings={"directions": 256, "weight": 0.3},
    ),
    # Adagrad at LightFM's default rate; 0.02 was worse. Epochs 20 and 30 on Gowalla, 10 and 20 on
    # MovieLens.
    "lightfm-warp": Peer(
        title="LightFM WARP",
        environment="lightfm",
        worker="benchmarks.peers.workers.lightfm_warp",
        settings={"no_components": 128, "learning_rate": 0.05, "epochs": 30},
        settings_on={"movielens-1m": {"no_components": 64, "epochs": 20}},
    ),
    # Adagrad, as in the library's tutorials; rates 0.02 to 0.5, epochs 2 to 15. Larger batches
    # (4096) and vectors of length 1 at temperature 0.1 were worse.
    "tfrs": Peer(
        title="TFRS two-tower, in-batch softmax + logQ",
        environment="tfrs",
        worker="benchmarks.peers.workers.tfrs_two_tower",
        settings={"dim": 64, "learning_rate": 0.05, "batch_size": 1024, "epochs": 7},
        settings_on={"movielens-1m": {"learning_rate": 0.02, "epochs": 5}},
        variables={"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
    ),
}
"""The peers by the name of their row.

Each was tried with a few settings on each data set, and the best on the test part was kept, the
number of epochs too. That favours the peers: our own row chooses its epochs by validation.
"""

TITLES: Mapping[str, str] = {
    POPULARITY: "popularity",
    **{name: peer.title for name, peer in PEERS.items()},
    PRODUCT: "fm-recall (this product)",
}
"""What the table calls each row, in its order."""
