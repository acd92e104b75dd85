from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import sparse

from pipelines.data.blocks import HeldInteractions, every_positive
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.ranking import rank_items
from pipelines.training.calibrate import SCALES, calibrate
from pipelines.training.embed import embed, match_scorer
from pipelines.training.folds import FoldBatches
from pipelines.training.model import build_model
from towers.features.reading import Mask
from towers.two_tower import TwoTower

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

N_COLD = 12


@dataclass(frozen=True, eq=False)
class World:
    """A model of interactions without some items, which validation wants."""

    dataset: Dataset
    model: TwoTower
    validation: sparse.csr_array

    def calibrate(self, tiny: Tiny, **training: Any) -> float:
        return calibrate(
            self.model,
            self.dataset,
            validation=self.validation,
            known=every_positive(self.dataset.interactions),
            config=tiny.config(training=training),
        )


def of_items(likes: sparse.csr_array, chosen: Mask) -> sparse.csr_array:
    """The likes of the chosen items [n_items], with all others left out."""
    kept = chosen[likes.indices]
    starts = np.concatenate([[0], np.cumsum(kept)])[likes.indptr]
    return sparse.csr_array((likes.data[kept], likes.indices[kept], starts), shape=likes.shape)


@pytest.fixture(scope="module")
def world(tiny: Tiny, prepared: Prepared) -> World:
    interactions = prepared.interactions("train")
    likes, is_cold = every_positive(interactions), np.arange(len(prepared.items)) < N_COLD
    config = tiny.config()
    dataset = assemble_dataset(
        config.schema,
        users=prepared.users,
        items=prepared.items,
        interactions=HeldInteractions(of_items(likes, ~is_cold), interactions.has_times),
    )
    batches = FoldBatches.build(dataset, config.training, mined=None, seed=config.seed)
    return World(dataset, build_model(config, batches), of_items(likes, is_cold))


def test_the_factor_is_the_one_with_the_best_overall_metric(tiny: Tiny, world: World) -> None:
    figures = []
    for scale in SCALES:
        vectors = embed(world.model, world.dataset.scale_unknown_items(scale))
        found = evaluate(
            match_scorer(vectors),
            train=every_positive(world.dataset.interactions),
            test=world.validation,
            config=tiny.config().evaluation,
        )
        figures.append(found.metric("recall@5"))
    assert max(figures) > figures[0]  # at the length that they have, cold items are lost
    assert world.calibrate(tiny) == SCALES[int(np.argmax(figures))]


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_cold_items_take_the_share_of_places_that_is_asked_for(
    tiny: Tiny, world: World, share: float
) -> None:
    scale = world.calibrate(tiny, cold_items=share)
    vectors = embed(world.model, world.dataset.scale_unknown_items(scale))
    scores = vectors["user"] @ vectors["item"].T
    ranked = rank_items(scores, 5, exclude=every_positive(world.dataset.interactions))
    users = np.flatnonzero(np.diff(world.validation.indptr))
    assert np.mean(ranked[users] < N_COLD) == pytest.approx(share, abs=0.12)


def test_items_that_are_their_ids_alone_are_left_as_they_are(tiny: Tiny, world: World) -> None:
    bags = world.dataset.item_bags
    rows = np.arange(bags.shape[0])
    only_ids = sparse.csr_array(
        (
            np.ones(len(rows), np.float32),
            bags.indices[bags.indptr[:-1]],
            np.append(rows, len(rows)),
        ),
        shape=bags.shape,
    )
    plain = dataclasses.replace(
        world, dataset=dataclasses.replace(world.dataset, item_bags=only_ids)
    )
    assert plain.calibrate(tiny) == 1.0
