from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipelines.config import RunConfig
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import Prepared
from pipelines.progress import Reporter
from pipelines.publishing.export import Exported, export_bundle, tower_model
from pipelines.publishing.measure_recall import measure_recall
from pipelines.training.embed import Vectors, embed
from pipelines.training.fit import Fitted
from serving.search.index import ExactIndex
from serving.search.live_shells import open_shells
from serving.search.shells import Shells
from serving.version.embeddings import Embeddings
from serving.version.seen import Seen
from serving.version.vocabulary_files import read_vocabulary
from tests.without_graphs import TOWERS, without_graphs
from towers.directions import DIRECTIONS
from towers.features.packer import input_dtypes, pack
from towers.features.schema import Side
from towers.layers import FeatureTable
from towers.two_tower import TwoTower

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

VERSION = 12
MODELS = {*TOWERS, "u2i"}
OTHERS = DIRECTIONS.keys() - MODELS
SIDES: tuple[Side, Side] = ("user", "item")


@pytest.fixture(scope="module")
def fitted(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A model with weights that nobody fitted, and checkpoints of two epochs."""
    features = FeatureTable(dataset.vocabulary.n_rows, embedding_dim=8, init_scale=0.3, seed=1)
    features.w.assign(tf.random.stateless_normal(features.w.shape, seed=[1, 2]))
    model = TwoTower(features, margin=0.5, hardest=4, l2=0.0)
    folder = tmp_path_factory.mktemp("fit")
    checkpoint = str(folder / "epoch-1")
    for name in ("epoch-1", "epoch-10"):
        tf.train.Checkpoint(model=model).write(str(folder / name))
    return Fitted(model=model, best_epoch=1, records=(), checkpoint=checkpoint, mined=None)


@pytest.fixture(scope="module")
def vectors(fitted: Fitted, dataset: Dataset) -> Vectors:
    return embed(fitted.model, dataset)


@dataclasses.dataclass(frozen=True)
class Case:
    """All that is exported."""

    fitted: Fitted
    dataset: Dataset
    prepared: Prepared

    def write(self, folder: Path, config: RunConfig) -> Exported:
        return export_bundle(
            self.fitted,
            self.dataset,
            vectors=embed(self.fitted.model, self.dataset),
            tables=self.prepared.tables,
            config=config,
            folder=folder,
            version=VERSION,
            reporter=Reporter(),
        )


@pytest.fixture(scope="module")
def case(fitted: Fitted, dataset: Dataset, prepared: Prepared) -> Case:
    return Case(fitted, dataset, prepared)


@pytest.fixture(scope="module")
def exact(
    case: Case, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Exported]:
    """With the SavedModels `MODELS`."""
    folder = tmp_path_factory.mktemp("exact")
    with without_graphs(but=MODELS):
        return folder, case.write(folder, tiny.config(index={"kind": "exact"}))


@pytest.fixture(scope="module")
def others(case: Case, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SavedModels `OTHERS`."""
    folder = tmp_path_factory.mktemp("others")
    with without_graphs(but=OTHERS):
        case.write(folder, tiny.config(index={"kind": "exact"}))
    return folder / "models"


@pytest.fixture
def small_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even a small corpus into leaves."""
    monkeypatch.setattr("serving.search.scann_index.FEWEST_FOR_TREE", 16)


def inputs(case: Case, side: Side) -> dict[str, tf.Tensor]:
    """The raw features of all users, with their histories, or of all items."""
    dataset, prepared = case.dataset, case.prepared
    histories = prepared.frame("train").groupby("user_id")["item_id"].agg(list)
    table = prepared.items
    if side == "user":
        past = [histories.get(user, []) for user in dataset.user_ids]
        table = prepared.users.assign(history=pd.Series(past, dtype=object))
    kinds = input_dtypes(dataset.schema, dataset.vocabulary, side=side)
    columns = {name: table[name].tolist() for name in kinds}
    packed = pack(columns, inputs=kinds, size=len(table))
    return {name: tf.constant(values) for name, values in packed.items()}


def test_folder_holds_the_whole_bundle_but_manifest_and_report(
    exact: tuple[Path, Exported],
) -> None:
    folder, _ = exact
    assert {path.name for path in folder.iterdir()} == {
        "vocabulary",
        "users.parquet",
        "items.parquet",
        "seen.parquet",
        "checkpoint",
        "models",
    }
    assert_there(folder / "models", MODELS)


@pytest.mark.slow
def test_each_direction_has_a_model(others: Path) -> None:
    assert_there(others, OTHERS)


def assert_there(models: Path, names: Collection[str]) -> None:
    assert {path.name for path in models.iterdir()} == set(names)
    for name in names:
        assert [path.name for path in (models / name).iterdir()] == [str(VERSION)]
        assert (models / name / str(VERSION) / "saved_model.pb").is_file()


@pytest.mark.parametrize("side", SIDES)
def test_tower_turns_raw_features_into_the_vectors(
    case: Case, vectors: Vectors, side: Side
) -> None:
    tower = tower_model(case.dataset, case.fitted, side=side)
    given = inputs(case, side)
    assert tower.signature.keys() == given.keys()
    np.testing.assert_allclose(tower(given).numpy(), vectors[side], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_vectors_are_stored_with_the_columns_of_their_table(
    exact: tuple[Path, Exported],
    case: Case,
    vectors: Vectors,
    side: Side,
) -> None:
    stored = Embeddings.read(exact[0] / f"{side}s.parquet")
    np.testing.assert_array_equal(stored.vectors, vectors[side])
    table = case.prepared.users if side == "user" else case.prepared.items
    assert stored.columns == table.columns.tolist()
    assert stored.ids.to_numpy().tolist() == table.iloc[:, 0].tolist()
    texts = stored.table.to_pandas().select_dtypes(exclude="number").map(list)
    pd.testing.assert_frame_equal(texts, table[texts.columns].map(list), check_dtype=False)


def test_seen_pairs_and_vocabulary_are_those_of_the_fit(
    exact: tuple[Path, Exported], case: Case
) -> None:
    interactions, vocabulary = case.dataset.interactions, case.dataset.vocabulary
    seen = Seen.read(exact[0] / "seen.parquet", shape=interactions.shape)
    assert (seen.matrix.toarray() == (every_positive(interactions).toarray() > 0)).all()
    read = read_vocabulary(exact[0] / "vocabulary")
    assert read.n_rows == vocabulary.n_rows
    assert read.spaces.keys() == vocabulary.spaces.keys()
    assert read.tokens("item.item_id").tokens.tolist() == (
        vocabulary.tokens("item.item_id").tokens.tolist()
    )


def test_checkpoint_is_that_of_the_best_epoch_and_no_other(
    exact: tuple[Path, Exported], case: Case
) -> None:
    folder = exact[0] / "checkpoint"
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.index", "model.data-00000-of-00001"}
    n_rows = case.dataset.vocabulary.n_rows
    features = FeatureTable(n_rows, embedding_dim=8, init_scale=0.3, seed=2)
    model = TwoTower(features, margin=0.5, hardest=4, l2=0.0)
    status = tf.train.Checkpoint(model=model).read(str(folder / "model"))
    status.assert_existing_objects_matched()
    fitted = case.fitted.model.features
    np.testing.assert_array_equal(features.v.numpy(), fitted.v.numpy())
    np.testing.assert_array_equal(features.w.numpy(), fitted.w.numpy())


def test_exact_index_is_recorded_as_one_that_finds_all(exact: tuple[Path, Exported]) -> None:
    _, exported = exact
    assert exported.ann == []
    assert exported.index.kind == "exact"
    for record in exported.index.directions.values():
        assert (record.settings, record.recall) == (None, 1.0)


def test_default_signature_gives_the_configured_k(
    exact: tuple[Path, Exported], case: Case, tiny: Tiny
) -> None:
    model = tf.saved_model.load(str(exact[0] / "models" / "u2i" / str(VERSION)))
    answer = model.signatures["serving_default"](**inputs(case, "user"))
    assert answer["ids"].shape == (len(case.dataset.user_ids), tiny.config().export.k)


@pytest.mark.slow
@pytest.mark.parametrize(("direction", "is_own_first"), [("u2u", True), ("i2i", False)])
def test_own_id_is_left_out_where_it_is_a_feature(
    others: Path, case: Case, direction: str, is_own_first: bool
) -> None:
    """Users are their city, age and history here: the SavedModel cannot know whose they are."""
    side = DIRECTIONS[direction].source
    model = tf.saved_model.load(str(others / direction / str(VERSION)))
    answer = model.signatures["serving_default"](**inputs(case, side))
    own = case.dataset.user_ids if side == "user" else case.dataset.item_ids
    ids = answer["ids"].numpy()
    ids = ids if side == "user" else np.char.decode(ids.astype(bytes), "utf-8")
    assert (ids[:, 0] == own).all() == is_own_first
    assert (ids == own[:, np.newaxis]).any() == is_own_first


@pytest.mark.slow
@pytest.mark.usefixtures("small_trees", "no_graphs")
def test_trees_are_stored_with_their_settings_and_recall(
    case: Case, tiny: Tiny, tmp_path: Path, vectors: Vectors
) -> None:
    bar = {"kind": "scann", "recall": 0.6, "recall_k": 4}
    exported = case.write(tmp_path, tiny.config(index=bar))
    assert [setting["chosen"] for setting in exported.ann].count(True) == 1
    for name, direction in DIRECTIONS.items():
        record = exported.index.directions[name]
        assert record.trees
        corpus = direction.project(vectors[direction.target])
        queries = direction.project(vectors[direction.source])
        folder = tmp_path / "index" / name
        index = open_shells(Shells.load(folder, settings=record.trees, width=corpus.shape[1]))
        recall = measure_recall(ExactIndex(corpus).search(queries, 4), index.search(queries, 4))
        assert 0.6 <= record.recall == pytest.approx(recall.mean(), abs=0.1)
        assert f"{name}: recall {record.recall:.4f} with" in "\n".join(exported.lines)


def test_lengths_of_both_sides_are_reported(exact: tuple[Path, Exported], vectors: Vectors) -> None:
    _, exported = exact
    longest = np.linalg.norm(vectors["item"], axis=1).max()
    assert exported.lengths["item"]["longest"] == pytest.approx(longest)
    assert exported.lengths.keys() == {"user", "item"}
