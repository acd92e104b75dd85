"""Export: a fitted model as the files of a bundle, with its SavedModels and indexes."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray

from pipelines.config import RunConfig
from pipelines.data.blocks import Block, all_blocks
from pipelines.data.dataset import Dataset
from pipelines.data.prepare import Prepared
from pipelines.progress import Reporter
from pipelines.publishing.sample_requests import retrieval_queries, sample_features
from pipelines.publishing.tune_index import exact_scores, measure_recall, tune_index
from pipelines.results import AnnSetting
from pipelines.training.embed import Vectors
from pipelines.training.fit import Fitted
from serving.search.graph_search import ExactSearch, ScannSearch
from serving.search.index import ExactIndex, Found, Pairs
from serving.version.embeddings import Embeddings
from serving.version.index_record import DirectionIndex, IndexRecord
from serving.version.saved_models.first_requests import write_warmup
from serving.version.saved_models.graphs import RetrievalModel, TowerModel
from serving.version.saved_models.names import FEATURES
from serving.version.seen import write_pairs
from serving.version.vocabulary_files import write_vocabulary
from towers.directions import DIRECTIONS, Direction
from towers.encoder import Encoder
from towers.errors import RecallGateError
from towers.schema import Side

CHECKED_AT_ONCE = 64
"""Queries that an exported search is checked with at a time."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What the manifest and the report say about the indexes."""

    index: IndexRecord
    ann: list[AnnSetting]
    """The settings tried for u2i; empty where the index is exact or has no tree."""


def export_bundle(
    fitted: Fitted,
    dataset: Dataset,
    *,
    vectors: Vectors,
    prepared: Prepared,
    config: RunConfig,
    folder: Path,
    version: int,
    reporter: Reporter,
) -> Exported:
    """Write everything of a bundle but its manifest and its report into `folder`.

    Args:
        fitted: the model.
        dataset: what it was fitted on.
        vectors: of the dataset's users and items, by that model.
        prepared: the tables, whose columns are kept to be shown.
        config: the settings.
        folder: where to write; exists.
        version: the version's number, which TF Serving's layout carries.
        reporter: shows progress.

    Raises:
        RecallGateError: an index finds less than the configured share of the exact neighbours.
    """
    _write_tables(dataset, vectors, prepared=prepared, folder=folder)
    _copy_checkpoint(fitted, folder / "checkpoint")
    towers = {side: tower_model(dataset, fitted, side=side) for side in vectors}
    directions: dict[str, DirectionIndex] = {}
    ann: list[AnnSetting] = []
    features = {
        side: sample_features(dataset, prepared, side=side, seed=config.seed) for side in towers
    }
    with reporter.bar("export", len(DIRECTIONS) + len(towers)) as advance:
        for side, tower in towers.items():
            queries = {"serving_default": features[side], FEATURES: features[side]}
            path = folder / "models" / f"{side}_tower" / str(version)
            _save(tower, path, queries=queries)
            advance(1)
        for name, direction in DIRECTIONS.items():
            search, directions[name], tried = _build_search(
                direction, vectors, config=config, folder=folder / "index" / name
            )
            ann = tried if name == "u2i" else ann
            model = _retrieval_model(
                towers[direction.source], search, direction, dataset=dataset, config=config
            )
            queries = retrieval_queries(
                features[direction.source], ids=_ids(dataset, direction), k=config.export.k
            )
            _save(model, folder / "models" / name / str(version), queries=queries)
            del search, model
            gc.collect()  # graphs refer to themselves, and hold their index
            advance(1)
    return Exported(index=IndexRecord(kind=config.index.kind, directions=directions), ann=ann)


def tower_model(dataset: Dataset, fitted: Fitted, *, side: Side) -> TowerModel:
    """Join a side's encoder and the fitted feature table."""
    features = fitted.model.features
    return TowerModel(
        Encoder(dataset.schema, dataset.vocabulary, side=side, past=dataset.past),
        v=features.v,
        w=features.w if side == "item" else None,
        name=f"{side}_tower",
    )


def _write_tables(dataset: Dataset, vectors: Vectors, *, prepared: Prepared, folder: Path) -> None:
    """Write the vocabulary, users and items with their vectors, and who has seen what."""
    write_vocabulary(dataset.vocabulary, folder / "vocabulary")
    tables: dict[Side, pd.DataFrame] = {"user": prepared.users, "item": prepared.items}
    for side, table in tables.items():
        Embeddings.from_pandas(table, vectors[side]).write(folder / f"{side}s.parquet")
    pairs = (_pairs(block) for block in all_blocks(dataset.interactions))
    write_pairs(folder / "seen.parquet", pairs)


def _pairs(block: Block) -> Pairs:
    """The users and items of a block's positives, by row."""
    places, items = block.matrix.tocoo().coords
    return block.users[places], items.astype(np.int64)


def _save(
    model: TowerModel | RetrievalModel,
    path: Path,
    *,
    queries: Mapping[str, Mapping[str, NDArray[Any]]],
) -> None:
    """Write a SavedModel to `path`, <name>/<version>, with the requests that warm it up."""
    model.save(path)
    write_warmup(path, model=path.parent.name, signatures=queries)


def _retrieval_model(
    tower: TowerModel,
    search: ExactSearch | ScannSearch,
    direction: Direction,
    *,
    dataset: Dataset,
    config: RunConfig,
) -> RetrievalModel:
    """Join a tower and a corpus; the query's own id is left out where it is one of the inputs."""
    own = dataset.schema.id_input(direction.source)
    return RetrievalModel(
        tower,
        signature=tower.signature,
        direction=direction,
        search=search,
        ids=_ids(dataset, direction),
        k=config.export.k,
        own_id=own if direction.is_similarity else None,
    )


def _ids(dataset: Dataset, direction: Direction) -> NDArray[Any]:
    """The ids of a direction's targets by row."""
    return dataset.user_ids if direction.target == "user" else dataset.item_ids


def _build_search(
    direction: Direction, vectors: Vectors, *, config: RunConfig, folder: Path
) -> tuple[ExactSearch | ScannSearch, DirectionIndex, list[AnnSetting]]:
    """Index a direction's corpus, and check what is exported against an exact search.

    A tree is kept in `folder` for the retriever.

    Raises:
        RecallGateError: the index finds less than the configured share of the exact neighbours.
    """
    corpus = direction.project(vectors[direction.target])
    queries = direction.project(_sample(vectors[direction.source], config=config))
    k = min(config.index.recall_k, len(corpus))
    if config.index.kind == "exact":
        return ExactSearch(corpus), DirectionIndex(settings=None, recall=1.0), []
    exact = ExactIndex(corpus).search(queries, k)
    try:
        index, tried = tune_index(
            corpus, queries, exact=exact, recall=config.index.recall, storage=config.index.storage
        )
    except RecallGateError as error:
        raise RecallGateError(f"{direction.name}: {error}; nothing was published") from None
    settings = index.settings
    if settings.num_leaves is None:
        search = ScannSearch.of(index)
    else:
        index.save(folder)
        del index  # two of a large index may be too many
        search = ScannSearch(folder, settings=settings, size=len(corpus))
    recall = float(measure_recall(exact, _found(search, corpus, queries, k=k)).mean())
    if recall < config.index.recall:
        raise RecallGateError(
            f"index {direction.name}: expected recall@{k} of at least {config.index.recall}, "
            f"reached {recall:.4f}; nothing was published. Lower index.recall, or set "
            "index.kind = 'exact'"
        )
    return search, DirectionIndex(settings=settings, recall=recall), tried


def _found(
    search: ScannSearch, corpus: NDArray[np.float32], queries: NDArray[np.float32], *, k: int
) -> Found:
    """What a search finds in a corpus, with its exact scores."""
    blocks = []
    for start in range(0, len(queries), CHECKED_AT_ONCE):
        rows, _ = search(tf.constant(queries[start : start + CHECKED_AT_ONCE]), tf.constant(k))
        blocks.append(rows.numpy())
    search.release()
    rows = np.concatenate(blocks)
    return rows, exact_scores(corpus, queries, rows)


def _sample(vectors: NDArray[np.float32], *, config: RunConfig) -> NDArray[np.float32]:
    """Draw some of the users or items that exist."""
    rng = np.random.default_rng(config.seed)
    size = min(config.index.sampled_queries, len(vectors))
    return vectors[rng.choice(len(vectors), size, replace=False)]


def _copy_checkpoint(fitted: Fitted, folder: Path) -> None:
    """Keep the checkpoint that training can continue from."""
    folder.mkdir()
    source = Path(fitted.checkpoint)
    for path in source.parent.glob(f"{source.name}.*"):
        target = folder / path.name.replace(source.name, "model", 1)
        try:
            target.hardlink_to(path)
        except OSError:  # on another file system, or on one without links
            shutil.copyfile(path, target)
