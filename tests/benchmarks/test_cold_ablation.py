from __future__ import annotations

import numpy as np
from scipy import sparse

from benchmarks import citeulike
from benchmarks.citeulike import CONFIG
from benchmarks.cold_ablation import VARIANTS
from pipelines.config import load_config
from pipelines.training import initialize
from towers.negatives import SharedSampler

COUNTS = np.array([3, 0, 1])


def test_each_variant_leaves_its_part_out_and_no_other() -> None:
    config = load_config(CONFIG)
    calibrate, left_out = vars(citeulike)["calibrate"], {}
    for name, variant in VARIANTS.items():
        with variant(config) as changed:
            sampler = SharedSampler.build(COUNTS, uniform=2, by_popularity=0, power=0.0)
            placed = vars(initialize)["fit_features"](
                sparse.csr_array(np.eye(2)), np.ones((2, 1), dtype=np.float32)
            )
            left_out[name] = (
                len(sampler.candidates) > 2,
                not placed.any(),
                changed.schema.history is not None and changed.schema.history.item_features == (),
                changed.training.id_dropout == 0.0,
                vars(citeulike)["calibrate"] is not calibrate,
            )
    expected = np.concatenate([np.zeros((1, 5), dtype=bool), np.eye(5, dtype=bool)])
    np.testing.assert_array_equal(list(left_out.values()), expected)
    assert vars(citeulike)["calibrate"] is calibrate
