"""Export: a fitted model as the files of a bundle, with its SavedModels and indexes."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.config import RunConfig
from pipelines.dataset import Dataset, with_history
from pipelines.embed import embed_items, embed_users
from pipelines.fit import Fitted
from pipelines.prepare import Prepared
from pipelines.progress import Reporter
from pipelines.results import AnnSetting
from pipelines.tune import choose_settings, measure_recall, tune
from serving.directions import DIRECTIONS, Direction
from serving.graphs import ExactSearch, RetrievalModel, ScannSearch, TowerModel
from serving.index import ExactIndex, ScannIndex, ScannSettings
from serving.vocabulary_files import write_vocabulary
from towers import fm
from towers.encoder import Encoder
from towers.errors import RecallGateError
from towers.schema import Side

Vectors = dict[Side, NDArray[np.float32]]
"""V_user and V_item of every user and item, [n, 1 + k]."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What the manifest and the report say about the indexes."""

    index: dict[str, Any]
    ann: list[AnnSetting]
    """The settings tried for u2i; empty where the index is exact."""


class TowerGraph(tf.Module):
    """Raw features of one side to its vectors, [batch, 1 + k] float32."""

    def __init__(self, dataset: Dataset, fitted: Fitted, *, side: Side) -> None:
        """Join the side's encoder and the fitted feature table."""
        super().__init__(name=f"{side}_tower")
        self._side = side
        self._encoder = Encoder(dataset.schema, dataset.vocabulary, side=side)
        features = fitted.model.features
        self._v = tf.Variable(features.v.numpy(), trainable=False, name="v")
        if side == "item":
            self._w = tf.Variable(features.w.numpy(), trainable=False, name="w")

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """The raw features by name."""
        return self._encoder.signature

    def __call__(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Encode a batch."""
        x = self._encoder(features)
        if self._side == "user":
            return fm.user_vector(x, self._v)
        return fm.item_vector(x, self._w, self._v)


def export_bundle(
    fitted: Fitted,
    dataset: Dataset,
    *,
    prepared: Prepared,
    config: RunConfig,
    folder: Path,
    version: int,
    reporter: Reporter,
) -> Exported:
    """Write everything of a bundle but its manifest and its report into `folder`.

    Raises:
        RecallGateError: an index finds less than the configured share of the exact neighbours.
    """
    vectors: Vectors = {
        "user": embed_users(fitted.model, with_history(dataset)),
        "item": embed_items(fitted.model, dataset.item_bags),
    }
    write_vocabulary(dataset.vocabulary, folder / "vocabulary")
    _write_tables(folder, prepared, dataset=dataset, vectors=vectors)
    _copy_checkpoint(fitted, folder / "checkpoint")
    directions: dict[str, Any] = {}
    ann: list[AnnSetting] = []
    with reporter.bar("export", len(DIRECTIONS) + 2) as advance:
        for side in vectors:
            tower = TowerGraph(dataset, fitted, side=side)
            model = TowerModel(encode=tower, inputs=tower.signature)
            model.save(folder / "models" / f"{side}_tower" / str(version))
            advance(1)
        for name, direction in DIRECTIONS.items():
            corpus = direction.corpus_vectors(vectors[direction.target])
            queries = _sample_queries(vectors, direction, config=config)
            settings, tried = _settle(corpus, queries, config=config, folder=folder / "index" / name)
            search = ExactSearch(corpus) if settings is None else ScannSearch(corpus, settings)
            recall = _gate(search, name, corpus=corpus, queries=queries, config=config)
            shown = dataclasses.asdict(settings) if settings else None
            directions[name] = {"settings": shown, "recall": recall}
            ann = tried if name == "u2i" else ann
            tower = TowerGraph(dataset, fitted, side=direction.source)
            _retrieval_model(tower, search, direction, dataset=dataset, config=config).save(
                folder / "models" / name / str(version)
            )
            advance(1)
    return Exported(index={"kind": config.index.kind, "directions": directions}, ann=ann)


def _retrieval_model(
    tower: TowerGraph,
    search: ExactSearch | ScannSearch,
    direction: Direction,
    *,
    dataset: Dataset,
    config: RunConfig,
) -> RetrievalModel:
    """Join a tower and a corpus; the query's own id is left out where it is one of the inputs."""
    ids = dataset.user_ids if direction.target == "user" else dataset.item_ids
    own = dataset.schema.id_column(direction.source)
    same_side = direction.source == direction.target
    return RetrievalModel(
        encode=tower,
        inputs=tower.signature,
        direction=direction,
        search=search,
        ids=ids,
        k=config.export.k,
        own_id=own if same_side and own in tower.signature else None,
    )


def _settle(
    corpus: NDArray[np.float32],
    queries: NDArray[np.float32],
    *,
    config: RunConfig,
    folder: Path,
) -> tuple[ScannSettings | None, list[AnnSetting]]:
    """Choose ScaNN's settings by the corpus, tune them, and keep the index for the retriever."""
    if config.index.kind == "exact":
        return None, []
    settings = choose_settings(len(corpus))
    if settings.num_leaves is None:
        return settings, []
    index = ScannIndex.build(corpus, settings)
    settings, tried = tune(
        index,
        corpus=corpus,
        queries=queries,
        recall_k=config.index.recall_k,
        recall=config.index.recall,
    )
    index.with_settings(settings).save(folder)
    return settings, tried


def _gate(
    search: ExactSearch | ScannSearch,
    name: str,
    *,
    corpus: NDArray[np.float32],
    queries: NDArray[np.float32],
    config: RunConfig,
) -> float:
    """Compare the search that is exported with an exact one; the recall that it reaches.

    Raises:
        RecallGateError: it is below the bar.
    """
    k = min(config.index.recall_k, len(corpus))
    exact, _ = ExactIndex(corpus).search(queries, k)
    found, _ = search(tf.constant(queries), tf.constant(k))
    recall = measure_recall(exact, found.numpy())
    if recall < config.index.recall:
        raise RecallGateError(
            f"index {name}: expected recall@{k} of at least {config.index.recall}, reached "
            f"{recall:.4f}; nothing was published. Lower index.recall, or set index.kind = 'exact'"
        )
    return recall


def _sample_queries(
    vectors: Vectors, direction: Direction, *, config: RunConfig
) -> NDArray[np.float32]:
    """Draw query vectors of a direction from the users or items that exist."""
    source = vectors[direction.source]
    rng = np.random.default_rng(config.seed)
    size = min(config.index.sampled_queries, len(source))
    return direction.query_vectors(source[rng.choice(len(source), size, replace=False)])


def _write_tables(folder: Path, prepared: Prepared, *, dataset: Dataset, vectors: Vectors) -> None:
    """Write the users' and items' vectors beside their columns, and who has seen what."""
    tables: dict[Side, pd.DataFrame] = {"user": prepared.users, "item": prepared.items}
    for side, table in tables.items():
        columns = pa.Table.from_pandas(table, preserve_index=False)
        width = vectors[side].shape[1]
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors[side].ravel()), width)
        pq.write_table(columns.append_column("vector", values), folder / f"{side}s.parquet")
    users = np.repeat(
        np.arange(dataset.interactions.shape[0]), np.diff(dataset.interactions.indptr)
    )
    seen = pa.table({"user_row": users, "item_row": dataset.interactions.indices.astype(np.int64)})
    pq.write_table(seen, folder / "seen.parquet")


def _copy_checkpoint(fitted: Fitted, folder: Path) -> None:
    """Keep the checkpoint that training can continue from."""
    folder.mkdir()
    source = Path(fitted.checkpoint)
    for path in source.parent.glob(f"{source.name}.*"):
        shutil.copyfile(path, folder / path.name.replace(source.name, "model", 1))
