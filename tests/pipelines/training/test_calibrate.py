from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from scipy import sparse

from pipelines.data.blocks import HeldInteractions, every_positive
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.prepare import Prepared
from pipelines.evaluation.evaluate import evaluate
from pipelines.evaluation.ranking import rank_items
from pipelines.progress import Reporter
from pipelines.training import calibrate as calibration
from pipelines.training.calibrate import calibrate
from pipelines.training.embed import Vectors, embed, match_scorer
from pipelines.training.fit import Fit, Fitted
from pipelines.training.folds import FoldBatches
from pipelines.training.model import build_model
from towers.features.reading import Mask

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

N_COLD = 12


class Lines(Reporter):
    """Remembers what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text.strip())


@dataclass(frozen=True, eq=False)
class World:
    """Interactions without some items, which validation wants."""

    dataset: Dataset
    validation: sparse.csr_array
    folder: Path

    def calibrate(
        self,
        tiny: Tiny,
        *,
        reporter: Reporter | None = None,
        weight: float | None = None,
        validation: bool = True,
        by: str = "random",
        **training: Any,
    ) -> Fitted:
        """Calibrate a new model, the same each time."""
        config = tiny.config(training=training, split={"by": by})
        batches = FoldBatches.build(self.dataset, config.training, mined=None, seed=config.seed)
        model = build_model(config, batches)
        checkpoint = str(self.folder / "epoch-1")
        job = Fit(
            dataset=self.dataset,
            config=config,
            epochs=1,
            mined=None,
            validation=self.validation if validation else None,
            directory=self.folder,
            logs=self.folder,
        )
        fitted = Fitted(model=model, best_epoch=1, records=(), checkpoint=checkpoint, mined=None)
        return calibrate(fitted, job, reporter or Reporter(), weight=weight)

    def recalls(self, tiny: Tiny, vectors: Vectors, *, added: float = 0.0) -> tuple[float, float]:
        """Recall@5 of all and of warm positives with something added to the cold items' scores."""
        items = vectors["item"].copy()
        items[:N_COLD, 0] += np.float32(added)
        found = evaluate(
            match_scorer({"user": vectors["user"], "item": items}),
            train=every_positive(self.dataset.interactions),
            test=self.validation,
            config=dataclasses.replace(tiny.config().evaluation, cold_item_interactions=1),
        )
        return found.metric("recall@5"), found.metric("recall@5", "warm_items")


def of_items(likes: sparse.csr_array, chosen: Mask) -> sparse.csr_array:
    """The likes of the chosen items [n_items], with all others left out."""
    kept = chosen[likes.indices]
    starts = np.concatenate([[0], np.cumsum(kept)])[likes.indptr]
    return sparse.csr_array((likes.data[kept], likes.indices[kept], starts), shape=likes.shape)


@pytest.fixture
def world(tiny: Tiny, prepared: Prepared, tmp_path: Path) -> World:
    interactions = prepared.interactions("train")
    likes, is_cold = every_positive(interactions), np.arange(len(prepared.items)) < N_COLD
    dataset = assemble_dataset(
        tiny.config().schema,
        users=prepared.users,
        items=prepared.items,
        interactions=HeldInteractions(of_items(likes, ~is_cold), interactions.has_times),
    )
    wanted = of_items(likes, is_cold) + every_positive(prepared.interactions("validation"))
    return World(dataset, sparse.csr_array(wanted), tmp_path)


def test_the_weight_is_the_one_with_the_best_overall_metric(tiny: Tiny, world: World) -> None:
    fitted = world.calibrate(tiny)
    assert fitted.unknown_item_weight is not None
    vectors = embed(fitted.model, world.dataset)
    spread = float((vectors["user"] @ vectors["item"].T).std())
    steps = [-2, -1, -0.3, 0.0, 1, 2]
    found, warm = zip(*(world.recalls(tiny, vectors, added=s * spread) for s in steps), strict=True)
    before = world.recalls(tiny, vectors, added=-fitted.unknown_item_weight)
    least = 0.9 * before[1]  # as much as known items keep of what they have without the weight
    assert warm[3] >= least
    assert found[3] >= max(f for f, w in zip(found, warm, strict=True) if w >= least)
    assert found[3] > before[0]  # as training leaves them, cold items are lost


def test_what_came_after_training_says_itself_what_cold_items_are_worth(
    tiny: Tiny, world: World
) -> None:
    """Where most of it is cold, warm items may lose more than a tenth."""
    likes = world.validation.toarray()
    likes[:, :N_COLD] = 1.0
    mostly_cold = dataclasses.replace(world, validation=sparse.csr_array(likes))
    found = {by: mostly_cold.calibrate(tiny, by=by) for by in ("random", "time")}
    figures = {
        by: mostly_cold.recalls(tiny, embed(one.model, world.dataset)) for by, one in found.items()
    }
    bare = embed(found["time"].model, world.dataset)
    before = mostly_cold.recalls(tiny, bare, added=-(found["time"].unknown_item_weight or 0.0))
    assert figures["time"][0] > figures["random"][0] > before[0]
    assert figures["time"][1] < 0.9 * before[1] <= figures["random"][1]


def test_what_is_published_is_the_model_with_the_weight(tiny: Tiny, world: World) -> None:
    """The checkpoint holds it too, and scores of cold items grow by it exactly."""
    before, after = (world.calibrate(tiny, weight=w, validation=False) for w in (0.0, 1.5))
    bare, raised = (embed(each.model, world.dataset)["item"] for each in (before, after))
    np.testing.assert_array_equal(raised[:, 1:], bare[:, 1:])
    np.testing.assert_allclose(raised[:N_COLD, 0], bare[:N_COLD, 0] + 1.5, rtol=1e-5)
    np.testing.assert_array_equal(raised[N_COLD:, 0], bare[N_COLD:, 0])
    kept = after.model.features.w.numpy()
    after.model.features.w.assign(tf.zeros_like(kept))
    tf.train.Checkpoint(model=after.model).read(after.checkpoint)
    np.testing.assert_array_equal(after.model.features.w.numpy(), kept)


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_cold_items_take_the_share_of_places_that_is_asked_for(
    tiny: Tiny, world: World, share: float, validation: bool
) -> None:
    fitted = world.calibrate(tiny, cold_items=share, validation=validation)
    vectors = embed(fitted.model, world.dataset)
    scores = vectors["user"] @ vectors["item"].T
    ranked = rank_items(scores, 5, exclude=every_positive(world.dataset.interactions))
    assert np.mean(ranked < N_COLD) == pytest.approx(share, abs=0.01)


def test_where_all_items_are_known_some_are_taken_for_cold(
    tiny: Tiny, world: World, dataset: Dataset
) -> None:
    """A tenth of them without their ids; a larger share of places takes a larger weight."""
    known = dataclasses.replace(world, dataset=dataset)
    assert dataset.knows_item.all()
    weights = [
        known.calibrate(tiny, cold_items=share).unknown_item_weight or 0.0 for share in (0.05, 0.2)
    ]
    assert weights[0] < weights[1]


def test_items_taken_for_cold_are_wanted_by_those_who_chose_them(
    tiny: Tiny, world: World, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although validation wants none of them, which would lower them as far as can be."""
    wanted = every_positive(HeldInteractions(world.validation))
    taken = np.arange(wanted.shape[1]) < N_COLD
    monkeypatch.setattr(calibration, "_cold_items", lambda *_, **__: np.flatnonzero(taken))
    known = dataclasses.replace(world, dataset=dataset, validation=of_items(wanted, ~taken))
    assert dataset.knows_item.all()
    weight = known.calibrate(tiny).unknown_item_weight
    assert weight is not None
    assert weight >= 0.0


def test_nothing_is_added_in_silence_where_no_validation_decides(tiny: Tiny, world: World) -> None:
    reporter = Lines()
    fitted = world.calibrate(tiny, reporter=reporter, validation=False)
    assert fitted.unknown_item_weight is None
    assert [line.partition(",")[0] for line in reporter.lines] == [
        "items with unknown ids are left as training made them"
    ]


def test_items_that_are_their_ids_alone_are_left_as_they_are(tiny: Tiny, world: World) -> None:
    bags = world.dataset.item_bags
    n = bags.shape[0]
    ids = bags.indices[bags.indptr[:-1]]
    only_ids = sparse.csr_array((np.ones(n, np.float32), ids, np.arange(n + 1)), shape=bags.shape)
    plain = dataclasses.replace(
        world, dataset=dataclasses.replace(world.dataset, item_bags=only_ids)
    )
    reporter = Lines()
    assert plain.calibrate(tiny, reporter=reporter).unknown_item_weight is None
    assert reporter.lines == []
