from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.config import RunConfig
from pipelines.data.blocks import every_positive
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import Prepared
from pipelines.progress import Reporter
from pipelines.publishing import export
from pipelines.publishing.export import Exported, export_bundle, tower_model
from pipelines.publishing.tune_index import measure_recall
from pipelines.results import AnnSetting
from pipelines.training.embed import Vectors, embed
from pipelines.training.fit import Fitted
from serving.search.index import ExactIndex, Found
from serving.search.scann_index import ScannIndex, ScannSettings
from serving.version.embeddings import Embeddings
from serving.version.seen import Seen
from serving.version.vocabulary_files import read_vocabulary
from towers.directions import DIRECTIONS
from towers.errors import RecallGateError
from towers.layers import FeatureTable
from towers.packer import input_dtypes, pack
from towers.schema import Side
from towers.two_tower import TwoTower

if TYPE_CHECKING:
    from tests.pipelines.conftest import Tiny

VERSION = 12
MODELS = {"user_tower", "item_tower", "u2i", "i2i", "u2u", "i2u"}
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
            prepared=self.prepared,
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
    folder = tmp_path_factory.mktemp("exact")
    return folder, case.write(folder, tiny.config(index={"kind": "exact"}))


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
    models = folder / "models"
    assert {path.name for path in models.iterdir()} == MODELS
    for name in MODELS:
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


@pytest.mark.parametrize(("direction", "is_own_first"), [("u2u", True), ("i2i", False)])
def test_own_id_is_left_out_where_it_is_a_feature(
    exact: tuple[Path, Exported], case: Case, direction: str, is_own_first: bool
) -> None:
    """Users are their city, age and history here: the SavedModel cannot know whose they are."""
    side = DIRECTIONS[direction].source
    model = tf.saved_model.load(str(exact[0] / "models" / direction / str(VERSION)))
    answer = model.signatures["serving_default"](**inputs(case, side))
    own = case.dataset.user_ids if side == "user" else case.dataset.item_ids
    ids = answer["ids"].numpy()
    ids = ids if side == "user" else np.char.decode(ids.astype(bytes), "utf-8")
    assert (ids[:, 0] == own).all() == is_own_first
    assert (ids == own[:, np.newaxis]).any() == is_own_first


@pytest.mark.usefixtures("small_trees", "no_graphs")
def test_trees_are_stored_with_their_settings_and_recall(
    case: Case, tiny: Tiny, tmp_path: Path, vectors: Vectors
) -> None:
    bar = {"kind": "scann", "recall": 0.6, "recall_k": 4}
    exported = case.write(tmp_path, tiny.config(index=bar))
    assert [setting["chosen"] for setting in exported.ann].count(True) == 1
    for name, direction in DIRECTIONS.items():
        record = exported.index.directions[name]
        assert record.settings is not None
        assert record.settings.num_leaves is not None
        corpus = direction.project(vectors[direction.target])
        queries = direction.project(vectors[direction.source])
        folder = tmp_path / "index" / name
        index = ScannIndex.load(folder, settings=record.settings, width=corpus.shape[1])
        recall = measure_recall(ExactIndex(corpus).search(queries, 4), index.search(queries, 4))
        assert 0.6 <= record.recall == pytest.approx(recall.mean(), abs=0.05)


def test_index_is_tuned_with_a_sample_of_those_that_exist(
    case: Case, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []

    def tune_index(
        corpus: NDArray[np.float32], queries: NDArray[np.float32], *, exact: Found, **_: Any
    ) -> tuple[ScannIndex, list[AnnSetting]]:
        distinct, recall_k = len(np.unique(queries, axis=0)), exact[0].shape[1]
        asked.append((len(corpus), len(queries), distinct, recall_k))
        raise RecallGateError("seen enough")

    monkeypatch.setattr(export, "tune_index", tune_index)
    n_users, n_items = len(case.dataset.user_ids), len(case.dataset.item_ids)
    for size, recall_k in ((7, 5), (1000, 100)):
        index = {"kind": "scann", "sampled_queries": size, "recall_k": recall_k}
        with pytest.raises(RecallGateError, match="seen enough"):
            case.write(tmp_path / str(size), tiny.config(index=index))
    assert asked == [(n_items, 7, 7, 5), (n_items, n_users, n_users, n_items)]


def test_saved_model_that_finds_too_little_is_refused(
    case: Case, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was tuned does not count: the graph that is exported is measured again."""

    def tune_index(
        corpus: NDArray[np.float32], queries: NDArray[np.float32], **_: Any
    ) -> tuple[ScannIndex, list[AnnSetting]]:
        few = ScannSettings(num_leaves=8, reorder=3, recall_k=3)
        return ScannIndex.build(corpus, few), []

    monkeypatch.setattr(export, "tune_index", tune_index)
    index = {"kind": "scann", "recall": 0.999, "recall_k": 3}
    with pytest.raises(RecallGateError, match=r"u2i: expected recall@3 .* reached 0\.\d{4}; noth"):
        case.write(tmp_path, tiny.config(index=index))
