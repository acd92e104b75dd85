from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from pipelines.config import RunConfig
from pipelines.data.blocks import HeldInteractions, every_positive
from pipelines.data.dataset import Dataset, assemble_dataset
from pipelines.data.engines import Plan
from pipelines.data.events import Block
from pipelines.data.prepare import Prepared
from pipelines.progress import Reporter
from pipelines.results import baselines, served_round
from pipelines.training import solve
from pipelines.training.embed import embed
from pipelines.training.folds import FoldBatches
from pipelines.training.model import build_model
from serving.retrieval.retriever import Retriever
from tests.without_graphs import TOWERS, without_graphs
from towers.errors import ConfigError
from towers.features.kinds import Categorical, Features
from towers.features.schema import SIDES
from towers.least_squares import Content, Half, Weights, sweeps
from towers.two_tower import TwoTower

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

ALS = {"solver": "als", "epochs": 0, "als": {"penalty": 0.02, "unobserved": 0.3, "sweeps": 40}}


def solved_model(config: RunConfig, dataset: Dataset, said: io.StringIO | None = None) -> TwoTower:
    batches = FoldBatches.build(dataset, config.training, mined=None, seed=config.seed)
    reporter = Reporter(Console(file=said or io.StringIO(), width=200))
    return build_model(config, batches, reporter=reporter)


@pytest.fixture(scope="module")
def by_id(tiny: Tiny, dataset: Dataset, prepared: Prepared) -> Dataset:
    """The same, of users known by their id and their city in place of a history."""
    ids = Categorical(column="user_id")
    cities = next(one for one in dataset.schema.user.features if one.name == "city")
    schema = dataclasses.replace(dataset.schema, user=Features(features=(ids, cities)))
    return assemble_dataset(
        schema, users=prepared.users, items=prepared.items, interactions=dataset.interactions
    )


def expected_scores(dataset: Dataset, config: RunConfig) -> NDArray[Any]:
    """Those of the solution itself, from where the product starts."""
    matrix = every_positive(dataset.interactions)
    settings = config.training.als
    weights = Weights(settings.unobserved or 0.0, settings.penalty)
    rng = np.random.default_rng(config.seed)
    k = config.model.embedding_dim
    start = rng.standard_normal((matrix.shape[1], k), dtype=np.float32) / np.float32(np.sqrt(k))
    content = {
        side: Content(dataset.content_bags(side)[0], dataset.dense(side).x) for side in SIDES
    }
    nothing = np.zeros((matrix.shape[0], k), dtype=np.float32)
    users = Half.start(matrix, content["user"], nothing, weights)
    items = Half.start(matrix.T.tocsr(), content["item"], start, weights)
    *_, last = sweeps(users, items, weights, most=settings.sweeps)
    return np.asarray(last.users.vectors @ last.items.vectors.T)


def test_users_by_their_id_have_the_scores_of_the_solution(tiny: Tiny, by_id: Dataset) -> None:
    """Of all that training knows, features included: towers hold it as it is."""
    config = tiny.config(training=ALS, model={"init": "normal"})
    config = dataclasses.replace(config, user=by_id.schema.user)
    said = io.StringIO()
    vectors = embed(solved_model(config, by_id, said), by_id)
    scores = vectors["user"] @ vectors["item"].T
    chosen = by_id.interactions.item_counts > 0
    active = by_id.interactions.user_counts > 0
    wanted = expected_scores(by_id, config)
    np.testing.assert_allclose(
        scores[active][:, chosen], wanted[active][:, chosen], atol=1e-4 * np.abs(wanted).max()
    )
    lines = [float(line.split()[2]) for line in said.getvalue().splitlines() if "sweep" in line]
    assert len(lines) > 2
    assert lines == sorted(lines, reverse=True)


def test_more_interactions_than_fit_are_refused_where_all_users_are_needed(
    tiny: Tiny, by_id: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solve, "MOST", 10)
    config = dataclasses.replace(tiny.config(training=ALS), user=by_id.schema.user)
    with pytest.raises(ConfigError, match='at most 10 interactions with "als"'):
        solved_model(config, by_id)


def test_histories_score_nearly_as_the_solution_does(tiny: Tiny, dataset: Dataset) -> None:
    """A user known by a history is ranked for as by the vector that would be solved for it."""
    config = tiny.config(training=ALS, model={"start_power": 0.0, "init": "normal"})
    vectors = solve.solve_for_histories(
        dataset, config, start=start_of(config, dataset), reporter=None
    )
    matrix = every_positive(dataset.interactions)
    by_history = (matrix > 0).astype(np.float32) @ vectors @ vectors.T
    wanted = expected_scores(dataset, config)
    both = zip(by_history, wanted, strict=True)
    alike = [np.corrcoef(one, other)[0, 1] for one, other in both if one.any()]
    assert np.mean(alike) > 0.97
    assert np.sqrt(np.mean(np.square(vectors))) == pytest.approx(1.0, rel=1e-5)


def start_of(config: RunConfig, dataset: Dataset) -> NDArray[np.float32]:
    rng = np.random.default_rng(config.seed)
    shape = (len(dataset.item_ids), config.model.embedding_dim)
    return rng.standard_normal(shape, dtype=np.float32)


class InBlocks:
    """Interactions of whose users every block has some, as if they were on disk."""

    def __init__(self, held: HeldInteractions, n_blocks: int) -> None:
        self._held, self.n_blocks = held, n_blocks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._held, name)

    def block(self, number: int) -> Block:
        users = np.arange(number, self._held.shape[0], self.n_blocks)
        return Block(users, self._held.matrix[users])


def test_it_does_not_matter_in_how_many_blocks_the_users_come(tiny: Tiny, dataset: Dataset) -> None:
    config = tiny.config(training=ALS)
    held = dataset.interactions
    assert isinstance(held, HeldInteractions)
    found = []
    for interactions in (held, InBlocks(held, 3)):
        some: Any = dataclasses.replace(dataset, interactions=interactions)
        start = start_of(config, some)
        found.append(solve.solve_for_histories(some, config, start=start))
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)


def test_items_start_at_the_solution(tiny: Tiny, dataset: Dataset) -> None:
    """Their ids and their features together, in the proportions that it gives them."""
    config = tiny.config(training=ALS, model={"start_power": 0.0, "init": "normal"})
    v = solved_model(config, dataset).features.v.numpy()
    vectors = solve.solve_for_histories(dataset, config, start=start_of(config, dataset))
    known = dataset.history_rows >= 0
    found, wanted = (dataset.item_bags @ v)[known], vectors[known]
    scale = np.linalg.norm(found) / np.linalg.norm(wanted)
    np.testing.assert_allclose(found, scale * wanted, atol=1e-5)


@pytest.mark.slow
def test_a_run_from_disk_publishes_what_one_in_memory_does(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole job, with its validation and its refit; what is published finds likes."""
    published = []
    for plan in (Plan(), Plan(engine="disk", rows=150)):
        monkeypatch.setattr("pipelines.run.choose_engine", lambda *_, plan=plan, **__: plan)
        folder = tmp_path / plan.engine
        with without_graphs(but=TOWERS):
            results = tiny.run(folder, training=ALS | {"rounds": 0})
        published.append(Retriever.open(folder))
        figures = served_round(results)["evaluation"]["segments"]["all"]["figures"]
        popular = baselines(results)["popularity"]["segments"]["all"]["figures"]
        assert figures["recall@5"] > 1.3 * popular["recall@5"]
    memory, disk = published
    for side in SIDES:
        found, wanted = (one.catalogue(side).vectors for one in (disk, memory))
        np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())
